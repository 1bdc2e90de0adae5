//! Weights that wait. What a weight is, its row tells at its end; readouts that add all of them up see those of a tile
//! when the next one needs their place, block by block: they come from a far cache, and can be asked for while the
//! processor multiplies.

use std::ops::Range;

use super::{
    ahead::Ahead,
    reading::{End, Reading},
    workspace::Lines,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    readout::Weights,
};

/// The weights of a finished tile until they have been seen, and in their place those of the tile at work.
#[derive(Default)]
pub(super) struct Backlog<N> {
    /// `[keys, queries]`
    numbers: Lines<N>,
    /// How many keys there is room for.
    keys: usize,
    /// Of the finished tile: batch element and head, queries, blocks of keys, `[blocks, queries]` what their numbers are
    /// to be multiplied with.
    head: [usize; 2],
    queries: Range<usize>,
    blocks: Vec<Range<usize>>,
    factors: Vec<N>,
    /// How many of its blocks have been seen.
    seen: usize,
}

impl<N: Number> Backlog<N> {
    /// Before the panels of a task, of which none visits more keys. Nothing waits then: only a panel that panicked leaves
    /// something behind.
    pub(super) fn start(&mut self, keys: usize) {
        self.blocks.clear();
        self.keys = self.keys.max(keys);
    }

    /// Room for the weights of the tile at work on `keys`, counted from the first that it visits.
    #[inline(always)]
    pub(super) fn block<S: Simd<N = N>>(
        &mut self,
        simd: S,
        reading: &mut Reading,
        keys: Range<usize>,
    ) -> &mut [N] {
        self.show(simd, reading, keys.end);
        self.at::<S>(keys)
    }

    /// Where weights on `keys` stand.
    pub(super) fn at<S: Simd<N = N>>(&mut self, keys: Range<usize>) -> &mut [N] {
        let width = COLUMNS * S::LANES;
        &mut self.numbers.get(self.keys * width)[keys.start * width..keys.end * width]
    }

    /// Asks for the place of weights on `keys`, as far as there are so many.
    pub(super) fn ask<S: Simd<N = N>>(&mut self, ahead: &mut Ahead, keys: Range<usize>) {
        let end = keys.end.min(self.keys);
        ahead.slice(self.at::<S>(keys.start.min(end)..end));
    }

    /// Shows the blocks of the finished tile that start before this key, counted from the first that it has visited.
    #[inline(always)]
    pub(super) fn show<S: Simd<N = N>>(&mut self, simd: S, reading: &mut Reading, before: usize) {
        let width = COLUMNS * S::LANES;
        let Some(first) = self.blocks.first().map(|block| block.start) else { return };
        while let Some(block) = self.blocks.get(self.seen).filter(|block| block.start - first < before) {
            let factors = &self.factors[self.seen * width..];
            let keys = block.clone();
            let numbers = &self.numbers.get(self.keys * width)[(keys.start - first) * width..];
            let weights = Weights {
                head: self.head,
                queries: self.queries.clone(),
                numbers: &numbers[..keys.len() * width],
                factors: [simd.load(factors), simd.load(&factors[S::LANES..])],
                value_norms: reading.value_norms,
                keys,
            };
            // Not a closure: the compiler would call it, without vectors.
            for readout in &mut *reading.readouts {
                readout.see_weights(simd, &weights);
            }
            self.seen += 1;
        }
    }

    /// The tile at work is finished: its blocks, and what its numbers are to be multiplied with, wait now.
    #[inline(always)]
    pub(super) fn wait<S: Simd<N = N>>(
        &mut self,
        simd: S,
        reading: &mut Reading,
        end: &End<S>,
        blocks: &mut Vec<Range<usize>>,
        factors: &mut Vec<N>,
    ) {
        self.show(simd, reading, usize::MAX);
        (self.head, self.queries, self.seen) = (end.head, end.queries.clone(), 0);
        std::mem::swap(&mut self.blocks, blocks);
        std::mem::swap(&mut self.factors, factors);
    }
}
