//! Several texts become passes; passes run side by side where there are enough of them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::prompt::Prompt;
use crate::{Error, Result};

/// Texts that go through the model in one pass.
#[derive(Debug)]
pub(super) struct Packed {
    /// Of all tokens.
    pub(super) tokens: Range<usize>,
    /// Where each text ends, counted from the first token of the pass.
    pub(super) ends: Vec<usize>,
}

impl Packed {
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| end - start)
    }
}

/// About so many tokens in a pass over several texts: what lies between two matrix products stays in the caches of
/// a core, and there are passes enough for all cores.
const PASS: usize = 512;

/// The passes over a prompt: one for one text.
pub(super) fn passes(prompt: &Prompt) -> Vec<Packed> {
    let all = prompt.tokens.len();
    if prompt.texts.is_empty() {
        return vec![Packed { tokens: 0..all, ends: vec![all] }];
    }
    let mut passes: Vec<Packed> = Vec::new();
    let mut start = 0;
    for text in &prompt.texts {
        let end = start + text.tokens;
        match passes.last_mut().filter(|pass| end - pass.tokens.start <= PASS) {
            Some(pass) => {
                pass.ends.push(end - pass.tokens.start);
                pass.tokens.end = end;
            }
            None => passes.push(Packed { tokens: start..end, ends: vec![text.tokens] }),
        }
        start = end;
    }
    passes
}

/// How many of so many passes run at once.
pub(super) fn at_once(passes: usize) -> usize {
    let threads = rayon::current_num_threads();
    if passes < 2 * threads { 1 } else { threads }
}

/// Calls `work` for every pass: one after the other on all threads; or, where there are enough passes, each on a
/// thread of its own. A thread that shares nothing waits for nobody between two short steps.
pub(super) fn run(passes: &[Packed], work: impl Fn(&Packed) -> Result<()> + Sync) -> Result<()> {
    let threads = at_once(passes.len());
    if threads == 1 {
        return passes.iter().try_for_each(work);
    }
    let cannot = |cause: &dyn std::fmt::Display| {
        Error::environment(format!("{threads} threads cannot be started: {cause}"), "ask for fewer")
    };
    let next = AtomicUsize::new(0);
    let alone = || {
        // What a pass would share out over threads stays on this one.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        let pool = pool.map_err(|cause| cannot(&cause))?;
        pool.install(|| {
            while let Some(pass) = passes.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(pass).inspect_err(|_| next.store(passes.len(), Ordering::Relaxed))?;
            }
            Ok(())
        })
    };
    std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, alone);
        let started: Vec<_> = (0..threads).map(start).collect();
        let mut outcome = Ok(());
        for thread in started {
            let ended = match thread.map(|thread| thread.join()) {
                Ok(Ok(ended)) => ended,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(cause) => Err(cannot(&cause)),
            };
            outcome = outcome.and(ended);
        }
        outcome
    })
}
