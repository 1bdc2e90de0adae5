//! From a problem to independent pieces of work, and who does them.
//!
//! A sequence of many queries becomes panels, one of few becomes chunks of keys and a merge. How it is cut
//! follows from the shapes alone, so that the same input gives the same bits for any number of threads, and
//! for an element alone or in a batch.
//! The one exception, how many key heads a thread reads together, changes no bit.

use std::ops::Range;

use super::{
    Problem,
    copies::can_stay,
    decode::{CHUNK, Chunk, Layout, Merge, Softmax, most_heads},
    prefill::{Panel, TILES},
    reading::{Plan, Reading},
    rowwise,
    workspace::{self, Room},
};
use crate::{
    Element,
    isa::{COLUMNS, InstructionSet, MOST_DEPTH, Number},
    readout::{self, Array, AtWork, Places, Readouts},
    threads,
};

/// Sequences of fewer queries than this are decoded: half of a tile's lanes would be idle.
const FEW_QUERIES: usize = 16;
/// Below so many multiply-adds (some ten microseconds), waking a thread costs more than it gives.
pub(super) const WORTH_A_THREAD: usize = 1 << 20;

/// A piece of work.
enum Task<'a, 'p, T: Element> {
    /// Queries from `first` on of one head, `panel` of them at a time, their output and their readouts.
    Panels {
        batch: usize,
        head: usize,
        first: usize,
        panel: usize,
        again: bool,
        next: Option<[usize; 3]>,
        out: &'a mut [T],
        seen: Vec<AtWork<'a>>,
    },
    /// A chunk of keys of some key heads for all queries of a sequence.
    Chunk {
        batch: usize,
        key_heads: Range<usize>,
        queries: Range<usize>,
        keys: Range<usize>,
        partial: &'p mut [T::Number],
    },
}

/// A sequence of few queries in one batch element.
struct Decoded {
    batch: usize,
    queries: Range<usize>,
    /// What some query sees.
    keys: Range<usize>,
    /// The first key of the sequence: what multiples of [`CHUNK`] are counted from.
    first: usize,
    /// Where the partial results of its first key head start.
    start: usize,
    /// Values of one chunk's partial result.
    unit: usize,
}

/// Queries of one head whose partial results are to be merged, their output and their readouts.
struct Merged<'a, 'd, T> {
    sequence: &'d Decoded,
    head: usize,
    out: &'a mut [T],
    seen: Vec<AtWork<'a>>,
}

impl Decoded {
    /// The chunks of keys, cut at multiples of [`CHUNK`] from the first. At least one, so that there is something to merge.
    fn chunks(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let (first, Range { start, end }) = (self.first, self.keys.clone());
        let from = start.saturating_sub(first) / CHUNK;
        let to = end.saturating_sub(first).div_ceil(CHUNK).max(from + 1);
        (from..to).map(move |at| start.max(first + at * CHUNK)..end.min(first + (at + 1) * CHUNK))
    }
}

/// Computes `out [batch, heads, queries, value_dim]` and the readouts.
pub(crate) fn run<T: Element>(
    problem: &Problem<T>,
    isa: InstructionSet,
    readouts: Readouts,
    out: &mut [T],
) -> Vec<Array> {
    let heads = problem.batch * problem.heads;
    let mut by_row: Vec<_> = (0..heads).map(|_| readouts.by_row()).collect();
    rowwise::read(problem, &mut by_row);
    let mut arrays = readouts.arrays();
    let places = readouts.places(&mut arrays);
    let parts = match heads * problem.queries {
        0 => Vec::new(),
        _ => Schedule::new(problem, isa, &readouts).attend(out, places),
    };
    let values = readouts.finish(by_row, parts);
    readout::put(&mut arrays, values);
    arrays
}

/// What all pieces of work need to know.
struct Schedule<'a, 'p, T: Element> {
    problem: &'a Problem<'p, T>,
    isa: InstructionSet,
    /// Of the readouts that are fused, and whether there are any.
    plan: Plan,
    reads: bool,
    /// Whether any needs the rows of decoded queries.
    rows: bool,
    layout: Layout,
    /// ‖v‖ of every value, `[batch, kv_heads, keys]`, if readouts need them.
    value_norms: Vec<f32>,
}

impl<'a, 'p, T: Element> Schedule<'a, 'p, T> {
    fn new(problem: &'a Problem<'p, T>, isa: InstructionSet, readouts: &Readouts) -> Self {
        let readers = readouts.fused();
        let plan = Plan::new(&readers);
        let layout = Layout::new(problem.value_dim, T::Number::lanes(isa));
        let value_norms = if plan.needs.value_norms { value_norms(problem) } else { Vec::new() };
        let (reads, rows) = (!readers.is_empty(), !readers.iter().all(AtWork::sum_is_enough));
        Self { problem, isa, plan, reads, rows, layout, value_norms }
    }

    /// Computes the output and what was read out: of which head, from which query on.
    fn attend<'t>(&self, out: &'t mut [T], mut places: Places<'t>) -> Vec<(usize, usize, Vec<AtWork<'t>>)> {
        let (decoded, partials_len) = self.decoded();
        let mut partials = workspace::take_partials::<T::Number>();
        if partials.len() < partials_len {
            partials.resize(partials_len, T::Number::default());
        }
        let mut tasks = self.chunks(&decoded, &mut partials[..partials_len]);
        let (panels, mut rows) = self.panels(&decoded, out, &mut places);
        tasks.extend(panels);
        let spread = self.problem.multiply_adds() > WORTH_A_THREAD;
        threads::for_each(&mut tasks, spread, |task| self.compute(task));
        let mut parts = Vec::with_capacity(tasks.len() + rows.len());
        for task in tasks {
            if let Task::Panels { batch, head, first, seen, .. } = task {
                parts.push((batch * self.problem.heads + head, first, seen));
            }
        }

        let spread = spread && (self.rows || partials_len > WORTH_A_THREAD);
        threads::for_each(&mut rows, spread, |merged| self.merge(merged, &partials));
        for Merged { sequence, head, seen, .. } in rows {
            parts.push((sequence.batch * self.problem.heads + head, sequence.queries.start, seen));
        }
        workspace::give_partials(partials);
        parts
    }

    /// The sequences of few queries, batch element by batch element, and how many values their partial results take.
    fn decoded(&self) -> (Vec<Decoded>, usize) {
        let Self { problem, layout, .. } = self;
        let row = layout.row() + if self.rows { CHUNK } else { 0 };
        let (mut decoded, mut len) = (Vec::new(), 0);
        for batch in 0..problem.batch {
            for queries in problem.visibility.sequences().filter(few) {
                let keys = problem.visibility.keys_of_all(batch, queries.clone());
                let unit = problem.group * queries.len() * row;
                let first = problem.visibility.first_key(queries.start);
                let this = Decoded { batch, queries, keys, first, start: len, unit };
                len += self.key_heads() * this.chunks().len() * unit;
                decoded.push(this);
            }
        }
        (decoded, len)
    }

    /// Shares out the keys of sequences of few queries.
    fn chunks<'t, 'o>(&self, decoded: &[Decoded], partials: &'t mut [T::Number]) -> Vec<Task<'o, 't, T>> {
        let Self { problem, .. } = self;
        let (mut tasks, mut rest) = (Vec::new(), partials);
        let key_heads = self.key_heads();
        let side_by_side = problem.k.heads_together() && problem.v.heads_together();
        let pieces = decoded.iter().map(|sequence| sequence.chunks().len()).sum::<usize>() * key_heads;
        for sequence in decoded {
            // Heads that a thread reads together change no bit, so that the number of threads may tell how many.
            let most = if side_by_side { most_heads(problem.group * sequence.queries.len()) } else { 1 };
            let together = most.min(pieces / (2 * threads::count())).max(1);
            let from = tasks.len();
            for keys in sequence.chunks() {
                for first in (0..key_heads).step_by(together) {
                    let key_heads = first..key_heads.min(first + together);
                    let partial;
                    (partial, rest) = rest.split_at_mut(key_heads.len() * sequence.unit);
                    let (batch, queries, keys) = (sequence.batch, sequence.queries.clone(), keys.clone());
                    tasks.push(Task::Chunk { batch, key_heads, queries, keys, partial });
                }
            }
            if !side_by_side {
                // In the order in which they lie: a chunk asks for the start of the next one of its head.
                tasks[from..].sort_by_key(|task| match task {
                    Task::Chunk { key_heads, .. } => key_heads.start,
                    Task::Panels { .. } => 0,
                });
            }
        }
        tasks
    }

    /// Shares out the queries of the other sequences, and the output of all; what is still to be merged.
    fn panels<'t, 'd, 'n>(
        &self,
        decoded: &'d [Decoded],
        out: &'t mut [T],
        places: &mut Places<'t>,
    ) -> (Vec<Task<'t, 'n, T>>, Vec<Merged<'t, 'd, T>>) {
        let Self { problem, plan, .. } = self;
        let value_dim = problem.value_dim;
        let (mut tasks, mut rows) = (Vec::new(), Vec::new());
        let mut panels: Vec<usize> = Vec::new();
        let per_batch = decoded.len() / problem.batch;
        for (n, mut out) in out.chunks_mut(problem.queries * value_dim).enumerate() {
            let (batch, head) = (n / problem.heads, n % problem.heads);
            if head == 0 {
                panels.clear();
                panels.extend(problem.visibility.sequences().map(|queries| self.panel(batch, queries)));
            }
            let mut decoded = decoded[batch * per_batch..].iter();
            for (queries, &panel) in problem.visibility.sequences().zip(&panels) {
                let part;
                (part, out) = out.split_at_mut(queries.len() * value_dim);
                if few(&queries) {
                    if let Some(sequence) = decoded.next() {
                        let seen = places.take(queries.len());
                        rows.push(Merged { sequence, head, out: part, seen });
                    }
                    continue;
                }
                let len = plan.queries_of_task(problem.heads, queries.len(), panel);
                let from = tasks.len();
                for (at, out) in part.chunks_mut(len * value_dim).enumerate() {
                    let (first, seen) = (queries.start + at * len, places.take(out.len() / value_dim));
                    tasks.push(Task::Panels {
                        batch,
                        head,
                        first,
                        panel,
                        again: false,
                        next: None,
                        out,
                        seen,
                    });
                }
                // The last queries of a causal text have most to do. They come first, so that it is short tasks that are
                // left when threads run out of them.
                tasks[from..].reverse();
            }
        }
        introduce(&mut tasks);
        (tasks, rows)
    }

    /// Queries per panel of a sequence. By its own keys, so that its bits are those that it has alone; only weights that
    /// stay ask for them.
    fn panel(&self, batch: usize, queries: Range<usize>) -> usize {
        let own = || self.problem.visibility.keys_of_all(batch, queries).len();
        let keys = if self.plan.needs.weights { own() } else { 0 };
        let width = COLUMNS * T::Number::lanes(self.isa);
        let copies = size_of::<T>() < size_of::<T::Number>() && !can_stay(self.problem);
        let token = (self.problem.dim + self.problem.value_dim) * size_of::<T::Number>();
        self.plan.tiles(keys, width, token, copies) * width
    }

    /// Does a piece of work.
    fn compute(&self, task: &mut Task<T>) {
        let &Self { problem, isa, ref plan, reads, .. } = self;
        workspace::with(|workspace| match task {
            Task::Panels { batch, head, first, panel, again, next, out, seen } => {
                let (batch, head, panel) = (*batch, *head, *panel);
                let value_norms = self.norms_of(batch, head);
                let count = out.len().div_ceil(panel * problem.value_dim);
                if reads {
                    workspace.rooms.resize_with(TILES, Room::default);
                }
                if plan.needs.weights {
                    let queries = *first..*first + out.len() / problem.value_dim;
                    // The first visited may be one before the first seen: see `Dot::DEPTH`.
                    let keys = problem.visibility.keys_of_all(batch, queries).len() + MOST_DEPTH;
                    workspace.rooms.iter_mut().for_each(|room| room.backlog.start(keys));
                }
                for (at, out) in out.chunks_mut(panel * problem.value_dim).enumerate() {
                    let first = *first + at * panel;
                    let again = *again || at > 0;
                    let own = (at + 1 < count).then_some([batch, head, first + panel]);
                    let (last, next) = (own.is_none(), own.or(*next));
                    let reading = reads.then_some(Reading { plan, value_norms, readouts: seen });
                    let workspace = &mut *workspace;
                    T::run(
                        isa,
                        Panel { problem, batch, head, first, again, next, last, out, reading, workspace },
                    );
                }
            }
            Task::Chunk { batch, key_heads, queries, keys, partial } => {
                let (batch, key_heads) = (*batch, key_heads.clone());
                let (queries, keys) = (queries.clone(), keys.clone());
                T::run(isa, Chunk { problem, batch, key_heads, queries, keys, partial, workspace });
            }
        });
    }

    /// Puts the partial results of one head of a sequence together, and shows the readouts its rows.
    fn merge(&self, Merged { sequence, head, out, seen }: &mut Merged<T>, partials: &[T::Number]) {
        let &Self { problem, isa, rows: all, layout, .. } = self;
        let (sequence, head, value_dim) = (*sequence, *head, problem.value_dim);
        let stride = self.key_heads() * sequence.unit;
        let end = sequence.start + sequence.chunks().len() * stride;
        let partials = &partials[sequence.start + head / problem.group * sequence.unit..end];
        let rows = problem.group * sequence.queries.len();
        let sink = problem.sinks.map(|sinks| sinks[head]);
        workspace::with(|workspace| {
            for (i, out) in out.chunks_mut(value_dim).enumerate() {
                let query = sequence.queries.start + i;
                let row = i * problem.group + head % problem.group;
                let own = &partials[row * layout.row()..];
                let merge = Merge { partials: own, stride, value_dim, sink, out, workspace: &mut *workspace };
                let sum = T::Number::dispatch(isa, merge);
                if sum.is_none() {
                    rowwise::one(problem, sequence.batch, head, query, &mut workspace.row, out);
                } else if all {
                    let scores = partials.chunks(stride).zip(sequence.chunks()).map(|(chunk, keys)| {
                        let scores = &chunk[rows * layout.row() + row * CHUNK..][..keys.len()];
                        (keys, scores)
                    });
                    workspace.row.take(
                        problem,
                        [sequence.batch, head, query],
                        scores,
                        |scores, sink, weights| f64::dispatch(isa, Softmax { scores, sink, weights }),
                    );
                }
                match sum.filter(|_| !all) {
                    Some(sum) => seen.iter_mut().for_each(|readout| readout.see_sum(&sum)),
                    None => {
                        workspace.row.measure(self.norms_of(sequence.batch, head));
                        seen.iter_mut().for_each(|readout| readout.see(&workspace.row));
                    }
                }
            }
        });
    }

    fn key_heads(&self) -> usize {
        self.problem.heads / self.problem.group
    }

    /// ‖v‖ of the values that a head reads; nothing where no readout needs them.
    fn norms_of(&self, batch: usize, head: usize) -> &[f32] {
        let &Self { problem, ref value_norms, .. } = self;
        let first = (batch * problem.heads + head) / problem.group * problem.keys;
        if value_norms.is_empty() { &[] } else { &value_norms[first..first + problem.keys] }
    }
}

/// Tells each panel task what comes after it, and whether what comes before it reads the same head.
fn introduce<T: Element>(tasks: &mut [Task<T>]) {
    for at in 1..tasks.len() {
        let (before, after) = tasks.split_at_mut(at);
        if let (
            [.., Task::Panels { batch, head, next, .. }],
            [Task::Panels { batch: its_batch, head: its_head, first, again, .. }, ..],
        ) = (before, after)
        {
            *next = Some([*its_batch, *its_head, *first]);
            *again = [*batch, *head] == [*its_batch, *its_head];
        }
    }
}

/// ‖v‖ of every value, `[batch, kv_heads, keys]`.
fn value_norms<T: Element>(problem: &Problem<T>) -> Vec<f32> {
    let kv_heads = problem.heads / problem.group;
    let mut norms = vec![0.0; problem.batch * kv_heads * problem.keys];
    threads::for_each_chunk(
        &mut norms,
        problem.keys,
        || (),
        |(), n, norms| {
            for (key, norm) in norms.iter_mut().enumerate() {
                let value = problem.v.vector(n / kv_heads, n % kv_heads, key);
                *norm = value.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt() as f32;
            }
        },
    );
    norms
}

fn few(queries: &Range<usize>) -> bool {
    (1..FEW_QUERIES).contains(&queries.len())
}
