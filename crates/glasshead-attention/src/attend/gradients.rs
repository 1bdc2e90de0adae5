//! The backward pass as a request, and who does which part of it.
//!
//! A task is a stretch of queries of all heads that read one key head. It adds up gradients of keys and values
//! in memory of its own; those of several tasks are added in order, so that threads change no bit.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Attention, Problem,
    backward::{AddUp, BackwardPanel, Forward, KeySums, queries_of_panel},
    schedule::WORTH_A_THREAD,
    workspace,
};
use crate::{
    AttentionError, Element, TensorView,
    isa::{COLUMNS, InstructionSet, Number},
    reference, threads,
    views::fits,
};

/// At least so many queries are one task, and at most so many tasks share a sequence: each costs the memory of
/// the gradients of all keys that it sees.
const QUERIES_OF_TASK: usize = 1024;
const TASKS_OF_SEQUENCE: usize = 8;

/// The gradients of a request's inputs, each contiguous and in the shape of what it is the gradient of.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T> {
    /// `[batch, heads, queries, dim]`
    pub q: Vec<T>,
    /// `[batch, kv_heads, keys, dim]`
    pub k: Vec<T>,
    /// `[batch, kv_heads, keys, value_dim]`
    pub v: Vec<T>,
    /// `[heads]`, where there are sinks.
    pub sinks: Option<Vec<f32>>,
}

/// A stretch of queries of the heads that read one key head.
struct Task<'a, T: Element> {
    /// Which key head, over all batch elements.
    index: usize,
    queries: Range<usize>,
    /// Of each head `[queries, dim]`
    gq: Vec<&'a mut [T]>,
    sums: KeySums<T::Number>,
    /// Of each head
    sinks: Vec<f64>,
}

/// One key head of one batch element.
struct KeyHead<'a, T: Element> {
    batch: usize,
    head: usize,
    /// How many tasks it has. The one that is done last adds up what all have left, in their order.
    count: usize,
    done: Vec<Task<'a, T>>,
    gk: &'a mut [T],
    gv: &'a mut [T],
    sinks: Vec<f64>,
}

/// Memory of tasks whose sums have been added up, to be used again: fresh pages cost more than zeros.
type Spare<N> = Mutex<Vec<Vec<N>>>;

impl<T: Element> Attention<'_, T> {
    /// Gradients of q, k, v and the sinks for a loss whose gradient with respect to the output is `grad_out`.
    ///
    /// `out` and `grad_out` are `[batch, heads, queries, value_dim]`; `out` is what this request has computed.
    /// `lse [batch, heads, queries]` is its readout of that name; without it, and always in f64, it is computed
    /// again, which costs a fifth. Memory is O(tokens): weights are computed anew (Dao et al. 2022). Readouts are not
    /// computed; masks and slopes get no gradients. A NaN in a head makes the whole head slow, for it is
    /// computed by the reference.
    ///
    /// ```
    /// use glasshead_attention::{Attention, Read, TensorView};
    /// let tokens = [0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6];
    /// let tokens = TensorView::contiguous(&tokens, [1, 1, 3, 2])?;
    /// let request = Attention::new(tokens, tokens, tokens).read(Read::new().lse());
    /// let seen = request.run()?;
    /// let out = TensorView::contiguous(&seen.out, seen.shape)?;
    /// let lse = seen.readout("lse").and_then(|lse| lse.f32());
    /// let gradients = request.backward(out, lse, out)?; // the loss is Σ out² / 2
    /// assert_eq!(gradients.q.len(), 6);
    /// # Ok::<(), glasshead_attention::AttentionError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Attention::run`]; also when `out`, `lse` or `grad_out` has another shape.
    pub fn backward(
        &self,
        out: TensorView<T>,
        lse: Option<&[f32]>,
        grad_out: TensorView<T>,
    ) -> Result<Gradients<T>, AttentionError> {
        T::differentiate(self, out, lse, grad_out)
    }

    /// As [`Attention::backward`].
    pub(crate) fn differentiate(
        &self,
        out: TensorView<T>,
        lse: Option<&[f32]>,
        grad_out: TensorView<T>,
    ) -> Result<Gradients<T>, AttentionError> {
        let problem = self.checked()?;
        problem.check_output("out", out)?;
        problem.check_output("grad_out", grad_out)?;
        let Problem { batch, heads, group, queries, keys, dim, value_dim, .. } = problem;
        let rows = batch * heads * queries;
        if let Some(lse) = lse.filter(|lse| lse.len() != rows) {
            let expected = format!("[batch, heads, queries] = [{batch}, {heads}, {queries}]");
            return Err(AttentionError::shape("lse", &[lse.len()], expected));
        }
        let mut gradients = Gradients {
            q: zeros("the gradient of q", [batch, heads, queries, dim])?,
            k: zeros("the gradient of k", [batch, heads / group, keys, dim])?,
            v: zeros("the gradient of v", [batch, heads / group, keys, value_dim])?,
            sinks: None,
        };
        let isa = InstructionSet::choose(self.isa)?;
        let forward = Forward { out, grad_out, lse };
        let sinks = run(&problem, &forward, isa, &mut gradients);
        gradients.sinks = problem.sinks.map(|_| sinks.into_iter().map(|x| x as f32).collect());
        Ok(gradients)
    }
}

/// A view may repeat values with stride 0: its gradient can be larger than it, and than memory.
fn zeros<T: Element>(what: &'static str, shape: [usize; 4]) -> Result<Vec<T>, AttentionError> {
    let too_large = || AttentionError::shape(what, &shape, "gradients that fit into memory");
    Ok(vec![T::default(); fits::<T>(shape).ok_or_else(too_large)?])
}

/// Fills the gradients; those of the sinks, `[heads]`.
fn run<T: Element>(
    problem: &Problem<T>,
    forward: &Forward<T>,
    isa: InstructionSet,
    gradients: &mut Gradients<T>,
) -> Vec<f64> {
    let &Problem { batch, heads, group, queries, keys, dim, value_dim, .. } = problem;
    let mut sinks = vec![0.0; heads];
    if batch * heads * queries == 0 || keys == 0 {
        return sinks;
    }
    let (gk, gv) = (gradients.k.chunks_mut(keys * dim), gradients.v.chunks_mut(keys * value_dim));
    let key_heads = gk.zip(gv).enumerate().map(|(index, (gk, gv))| {
        let (batch, head) = (index / (heads / group), index % (heads / group));
        KeyHead { batch, head, count: 0, done: Vec::new(), gk, gv, sinks: vec![0.0; group] }
    });
    let mut key_heads: Vec<_> = key_heads.collect();
    let panel = queries_of_panel(COLUMNS * T::Number::lanes(isa));
    let mut tasks = Vec::new();
    for (index, gq) in gradients.q.chunks_mut(group * queries * dim).enumerate() {
        let mut rest: Vec<_> = gq.chunks_mut(queries * dim).collect();
        for sequence in problem.visibility.sequences() {
            let len = sequence.len().div_ceil(TASKS_OF_SEQUENCE).max(QUERIES_OF_TASK).next_multiple_of(panel);
            for start in sequence.clone().step_by(len) {
                let queries = start..sequence.end.min(start + len);
                let mut gq = Vec::with_capacity(group);
                for rest in &mut rest {
                    let (own, others) = std::mem::take(rest).split_at_mut(queries.len() * dim);
                    gq.push(own);
                    *rest = others;
                }
                let sums = KeySums { keys: 0..0, k: Vec::new(), v: Vec::new() };
                tasks.push(Some(Task { index, queries, gq, sums, sinks: vec![0.0; group] }));
                key_heads[index].count += 1;
            }
        }
    }
    // Those with most to do first, as in the forward pass.
    tasks.reverse();

    let key_heads: Vec<_> = key_heads.into_iter().map(Mutex::new).collect();
    let spare = Spare::default();
    threads::for_each(&mut tasks, problem.multiply_adds() > WORTH_A_THREAD, |task| {
        let Some(mut task) = task.take() else { return };
        let index = task.index;
        task.run(problem, forward, isa, panel, &spare);
        let mut key_head = lock(&key_heads[index]);
        key_head.done.push(task);
        if key_head.done.len() == key_head.count {
            key_head.finish(problem, forward, isa, &spare);
        }
    });
    for key_head in &key_heads {
        let key_head = lock(key_head);
        let own = &mut sinks[key_head.head * group..][..group];
        own.iter_mut().zip(&key_head.sinks).for_each(|(all, sink)| *all += sink);
    }
    sinks
}

/// A thread that panicked has left nothing half done here: it holds a lock to push, and in [`KeyHead::finish`].
fn lock<A>(mutex: &Mutex<A>) -> MutexGuard<'_, A> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn zeros_from<N: Number>(spare: &Spare<N>, len: usize) -> Vec<N> {
    match lock(spare).pop() {
        Some(mut used) => {
            used.clear();
            used.resize(len, N::default());
            used
        }
        None => vec![N::default(); len],
    }
}

impl<T: Element> Task<'_, T> {
    fn run(
        &mut self,
        problem: &Problem<T>,
        forward: &Forward<T>,
        isa: InstructionSet,
        panel: usize,
        spare: &Spare<T::Number>,
    ) {
        let Self { index, queries, gq, sums, sinks } = self;
        let key_heads = problem.heads / problem.group;
        let (batch, key_head) = (*index / key_heads, *index % key_heads);
        sums.keys = problem.visibility.keys_of_all(batch, queries.clone());
        let len = |dim: usize| sums.keys.len() * dim.next_multiple_of(T::Number::lanes(isa));
        sums.k = zeros_from(spare, len(problem.dim));
        sums.v = zeros_from(spare, len(problem.value_dim));
        for (member, gq) in gq.iter_mut().enumerate() {
            for (at, gq) in gq.chunks_mut(panel * problem.dim).enumerate() {
                let (head, first) = (key_head * problem.group + member, queries.start + at * panel);
                sinks[member] += workspace::with(|workspace| {
                    let sums = &mut *sums;
                    let panel = BackwardPanel { problem, forward, batch, head, first, gq, sums, workspace };
                    T::Number::dispatch(isa, panel)
                });
            }
        }
    }
}

impl<T: Element> KeyHead<'_, T> {
    fn finish(
        &mut self,
        problem: &Problem<T>,
        forward: &Forward<T>,
        isa: InstructionSet,
        spare: &Spare<T::Number>,
    ) {
        let Self { batch, head, done, gk, gv, sinks, .. } = self;
        done.sort_by_key(|task| task.queries.start);
        let keys = problem.keys;
        let parts: Vec<_> = done.iter().map(|task| &task.sums).collect();
        T::Number::dispatch(
            isa,
            AddUp { parts: &parts, of: |sums| &sums.k, factor: problem.scale, keys, to: gk },
        );
        T::Number::dispatch(isa, AddUp { parts: &parts, of: |sums| &sums.v, factor: 1.0, keys, to: gv });
        for task in done.iter_mut() {
            sinks.iter_mut().zip(&task.sinks).for_each(|(all, sink)| *all += sink);
            lock(spare).extend([std::mem::take(&mut task.sums.k), std::mem::take(&mut task.sums.v)]);
        }
        let is_nan = |x: &T| x.to_f64().is_nan();
        let gq = || done.iter().flat_map(|task| &task.gq).flat_map(|gq| gq.iter());
        if !(gq().any(is_nan) || gk.iter().any(is_nan) || gv.iter().any(is_nan)) {
            return;
        }
        let exact = reference::of_head(problem, forward.grad_out, *batch, *head);
        let rows = problem.queries * problem.dim;
        for Task { queries, gq, .. } in done.iter_mut() {
            for (member, gq) in gq.iter_mut().enumerate() {
                round(&exact.q[member * rows + queries.start * problem.dim..], gq);
            }
        }
        round(&exact.k, gk);
        round(&exact.v, gv);
        *sinks = exact.sinks;
    }
}

fn round<T: Element>(exact: &[f64], to: &mut [T]) {
    to.iter_mut().zip(exact).for_each(|(to, exact)| *to = T::from_f64(*exact));
}
