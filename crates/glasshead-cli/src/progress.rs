//! Progress bars on standard error, and only on a terminal.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    time::Instant,
};

use glasshead::{look::scan::Onlooker, weights::Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::printer;

/// Fewer bytes are over before a line is read.
const WORTH_A_LINE: u64 = 8 << 20;

/// A bar per step; plain lines where standard error is no terminal.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn start(&mut self, what: &str, total_bytes: u64) {
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}, {eta} left");
            let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
            self.bar = Some(
                bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_message(what.to_owned()),
            );
        } else if total_bytes >= WORTH_A_LINE {
            printer::note(what);
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| printer::note(line)),
            None => printer::note(line),
        }
    }
}

/// Layers done and time left, on a terminal; and how fast an answer was written.
pub(crate) struct Layers {
    bar: Option<ProgressBar>,
    /// When the first token of the answer was there, when the last one, and how many there are.
    written: Option<(Instant, Instant, usize)>,
}

impl Layers {
    /// Nothing done yet.
    pub(crate) fn new() -> Self {
        Self { bar: None, written: None }
    }

    /// Moves the bar on, a new one where there is none and somebody looks.
    fn at(&mut self, template: &str, done: usize, all: usize) {
        if self.bar.is_none() && io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(template);
            let bar = ProgressBar::with_draw_target(Some(all as u64), ProgressDrawTarget::stderr());
            self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }
}

impl Onlooker for Layers {
    fn layer(&mut self, done: usize, layers: usize) -> ControlFlow<()> {
        self.at("{bar:30} layer {pos} of {len}, {eta} left", done, layers);
        if done >= layers
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
        ControlFlow::Continue(())
    }

    fn written(&mut self, written: usize, most: usize) -> ControlFlow<()> {
        self.at("token {pos} of at most {len} of the answer", written, most);
        let now = Instant::now();
        let first = self.written.map_or(now, |(first, ..)| first);
        self.written = Some((first, now, written));
        ControlFlow::Continue(())
    }
}

impl Layers {
    /// `answer: 64 tokens, 31.2 per second`; the first one belongs to the pass over the prompt.
    pub(crate) fn of_answer(&self) -> Option<String> {
        let (first, last, tokens) = self.written.filter(|(.., tokens)| *tokens > 1)?;
        let per_second = (tokens - 1) as f64 / (last - first).as_secs_f64();
        Some(format!("answer: {tokens} tokens, {per_second:.1} per second"))
    }
}

impl Drop for Layers {
    /// An answer may end before its longest.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
