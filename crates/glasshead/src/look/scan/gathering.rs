//! The watch that keeps what was asked for of every layer, and lets the rest go.

use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use glasshead_attention::{Array, Read, Shape, Values};

use super::readouts::Wanted;
use super::{Onlooker, estimate::gigabytes};
use crate::models::{LayerView, Watch};
use crate::{Error, Result};

/// What is kept while the layers pass by: of the passes over the prompt, and of one more for every token of an
/// answer.
pub(super) struct Gathering<'a> {
    wanted: &'a Wanted,
    /// `[1, heads, tokens]` of one layer and the pass over the prompt.
    prompt: Shape,
    /// The tokens of an answer, at most.
    answer: usize,
    layers: &'a [usize],
    heads: &'a [usize],
    /// Layers that are computed.
    depth: usize,
    /// Layers of all passes over the prompt that are done, and how many there are.
    done: [usize; 2],
    onlooker: &'a mut dyn Onlooker,
    /// `[layers, heads, …]`, for the prompt and the longest answer.
    kept: Vec<Array>,
    /// The onlooker has had enough.
    pub(super) stopped: bool,
}

/// The watch over one pass. What it keeps goes to places of its own, so that passes may run side by side.
pub(super) struct PassWatch<'g, 'a> {
    gathering: &'g Mutex<Gathering<'a>>,
    /// Where the first token of the pass stands among those of all texts.
    first: usize,
    /// The tokens of its text that are on their way.
    passing: Range<usize>,
    /// What came out for the last token, `[hidden]`.
    pub(super) last_hidden: Vec<f32>,
}

/// The arrays `[layers, heads, …]` that are kept of the arrays `[1, all heads, …]` of a layer; still empty.
pub(super) fn kept_of(passing: &[Array], layers: usize, heads: usize) -> Vec<Array> {
    let mut kept = passing.to_vec();
    kept.iter_mut().for_each(|array| drop(array.shape.splice(0..2, [layers, heads])));
    kept
}

impl<'a> Gathering<'a> {
    /// Makes room for everything that will be kept.
    ///
    /// # Errors
    /// When memory is not enough.
    pub(super) fn new(
        wanted: &'a Wanted,
        [prompt, whole]: [Shape; 2],
        [layers, heads]: [&'a [usize]; 2],
        [depth, all_layers]: [usize; 2],
        onlooker: &'a mut dyn Onlooker,
    ) -> Result<Self> {
        let passing = wanted.named(wanted.whole.arrays(&whole), &whole);
        let mut kept = kept_of(&passing, layers.len(), heads.len());
        for array in &mut kept {
            let count = array.shape.iter().try_fold(1usize, |count, &axis| count.checked_mul(axis));
            let count = count.unwrap_or(usize::MAX);
            let full = match &mut array.values {
                Values::F32(values) => zeros(count).map(|zeros| *values = zeros),
                Values::I64(values) => zeros(count).map(|zeros| *values = zeros),
            };
            full.map_err(|_| {
                Error::environment(
                    format!(
                        "the readout {} needs {}, more memory than there is",
                        array.name,
                        gigabytes((count as u64).saturating_mul(4))
                    ),
                    "choose --layers or --heads, fewer rows, coarser segments or larger blocks",
                )
            })?;
        }
        Ok(Self {
            wanted,
            prompt,
            answer: whole.queries - prompt.queries,
            layers,
            heads,
            depth,
            done: [0, all_layers],
            onlooker,
            kept,
            stopped: false,
        })
    }

    /// What was kept, for so many tokens as there are in the end.
    pub(super) fn finish(mut self, tokens: usize) -> Vec<Array> {
        let rows = self.wanted.rows.iter().filter(|&&row| row < tokens).count();
        for array in &mut self.kept {
            let mut tail = array.shape.split_off(2);
            let before = grid(&tail);
            match (array.name, self.wanted.block) {
                ("rows", _) => tail = vec![rows, tokens],
                ("blocks", Some(block)) => tail = vec![tokens.div_ceil(block); 2],
                _ => tail[0] = tokens,
            }
            let after = grid(&tail);
            match &mut array.values {
                Values::F32(values) => shrink(values, before, after),
                Values::I64(values) => shrink(values, before, after),
            }
            array.shape.extend(tail);
        }
        self.kept.retain(|array| array.name != "rows" || rows > 0);
        self.kept
    }

    /// Keeps the arrays `[1, all heads, …]` of a layer, of the tokens `passing` from the token `first` on.
    fn keep(&mut self, slot: usize, arrays: &[Array], first: usize, passing: &Range<usize>) {
        for array in arrays {
            let Some((down, adds)) = self.place(array.name, first, passing) else { continue };
            let Some(kept) = self.kept.iter_mut().find(|kept| kept.name == array.name) else { continue };
            let grids = [grid(&array.shape[2..]), grid(&kept.shape[2..])];
            let join = Join { slot, heads: self.heads, all_heads: self.prompt.heads, grids, down };
            match (&mut kept.values, &array.values) {
                (Values::F32(to), Values::F32(from)) if adds => join.join(to, from, |to, from| *to += from),
                (Values::F32(to), Values::F32(from)) => join.join(to, from, |to, from| *to = from),
                (Values::I64(to), Values::I64(from)) => join.join(to, from, |to, from| *to = from),
                _ => {}
            }
        }
    }

    /// Where an array goes in those that are kept: its row, and whether it is added to what is there. `None`: nowhere.
    fn place(&self, name: &str, first: usize, passing: &Range<usize>) -> Option<(usize, bool)> {
        let row = first + passing.start;
        Some(match (name, self.wanted.block) {
            // Sums over queries go on.
            ("received", _) => (first, true),
            ("blocks", Some(block)) => (row / block, true),
            ("rows", _) => (self.wanted.rows.iter().position(|row| passing.contains(row))?, false),
            _ => (row, false),
        })
    }

    /// Tells the onlooker of a layer of the prompt, or of the last layer over a token of the answer.
    fn tell(&mut self, layer: usize, passing: &Range<usize>) {
        if passing.start == 0 {
            self.done[0] += 1;
            self.stopped |= self.onlooker.layer(self.done[0], self.done[1]).is_break();
        } else if layer + 1 == self.depth {
            let written = passing.end - self.prompt.queries;
            self.stopped |= self.onlooker.written(written, self.answer).is_break();
        }
    }
}

impl<'g, 'a> PassWatch<'g, 'a> {
    /// Over a pass whose first token stands at `first` among those of all texts.
    pub(super) fn new(gathering: &'g Mutex<Gathering<'a>>, first: usize) -> Self {
        Self { gathering, first, passing: 0..0, last_hidden: Vec::new() }
    }

    /// Whether the onlooker has had enough.
    pub(super) fn stopped(&self) -> bool {
        self.gathering().stopped
    }

    fn gathering(&self) -> MutexGuard<'g, Gathering<'a>> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for PassWatch<'_, '_> {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        let gathering = self.gathering();
        // A pass beside this one may have been stopped.
        if gathering.stopped {
            return ControlFlow::Break(());
        }
        let Gathering { wanted, layers, .. } = *gathering;
        drop(gathering);
        let tokens = view.attention.q().shape()[2];
        self.passing = view.offset..view.offset + tokens;
        let read = if view.offset == 0 { &wanted.read } else { &wanted.step };
        ControlFlow::Continue(if layers.contains(&view.layer) { read.clone() } else { Read::new() })
    }

    fn seen(&mut self, layer: usize, mut readouts: Vec<Array>) -> ControlFlow<()> {
        let Gathering { wanted, layers, prompt, .. } = *self.gathering();
        let slot = layers.iter().position(|&chosen| chosen == layer);
        if slot.is_some() {
            let shape = Shape { queries: self.passing.len(), keys: self.passing.end, ..prompt };
            readouts = wanted.named(readouts, &shape);
            for array in &mut readouts {
                if let Values::I64(keys) = &mut array.values {
                    // Indices of keys; −1 is none.
                    keys.iter_mut().filter(|key| **key >= 0).for_each(|key| *key += self.first as i64);
                }
            }
        }
        let mut gathering = self.gathering();
        if let Some(slot) = slot {
            gathering.keep(slot, &readouts, self.first, &self.passing);
        }
        gathering.tell(layer, &self.passing);
        // An answer goes on from what comes out; who only looks needs no more.
        let done = gathering.answer == 0 && layer + 1 == gathering.depth;
        if done || gathering.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        let each = last_hidden.len() / self.passing.len().max(1);
        self.last_hidden = last_hidden[last_hidden.len() - each..].to_vec();
    }
}

/// So many zeros, or an error where memory cannot hold them. Pages that nobody has written to cost nothing yet: each
/// pass pays for its own.
fn zeros<T: Clone + Default>(count: usize) -> std::result::Result<Vec<T>, std::collections::TryReserveError> {
    Vec::<T>::new().try_reserve_exact(count)?;
    Ok(vec![T::default(); count])
}

/// The axes of an array after layer and head as two: down and across.
fn grid(tail: &[usize]) -> [usize; 2] {
    match tail {
        [down] => [*down, 1],
        [down, across @ ..] => [*down, across.iter().product()],
        [] => [1, 1],
    }
}

/// How the arrays `[all heads, …]` of one pass and layer go into those of all passes and layers.
struct Join<'a> {
    /// The place of the layer.
    slot: usize,
    /// The heads that are kept.
    heads: &'a [usize],
    all_heads: usize,
    /// Down and across, of the pass and of what is kept.
    grids: [[usize; 2]; 2],
    /// The first row.
    down: usize,
}

impl Join<'_> {
    fn join<T: Copy>(&self, to: &mut [T], from: &[T], put: impl Fn(&mut T, T)) {
        let [[rows, width], [to_rows, to_width]] = self.grids;
        debug_assert_eq!(from.len(), self.all_heads * rows * width);
        if width == 0 {
            return;
        }
        for (at, &head) in self.heads.iter().enumerate() {
            let head_to = (self.slot * self.heads.len() + at) * to_rows + self.down;
            for (row, from) in from[head * rows * width..][..rows * width].chunks_exact(width).enumerate() {
                let start = (head_to + row) * to_width;
                to[start..start + width].iter_mut().zip(from).for_each(|(to, from)| put(to, *from));
            }
        }
    }
}

/// Takes the rows and columns away that nothing came into, of every grid.
fn shrink<T: Copy>(values: &mut Vec<T>, before: [usize; 2], after: [usize; 2]) {
    let [[rows, width], [new_rows, new_width]] = [before, after];
    if before == after {
        return;
    }
    let grids = values.len() / (rows * width).max(1);
    for grid in 0..grids {
        for row in 0..new_rows {
            let from = (grid * rows + row) * width;
            values.copy_within(from..from + new_width, (grid * new_rows + row) * new_width);
        }
    }
    values.truncate(grids * new_rows * new_width);
}
