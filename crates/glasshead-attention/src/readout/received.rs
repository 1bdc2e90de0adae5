//! `received [batch, heads, keys]`: the column sums, how much weight each key gets from all queries.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fuse, Fused, Head, Needs, Read, Readout, Shape, Tile, Values, nothing_after,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

#[derive(Debug)]
struct Received;

impl Read {
    /// `received`: the sum over all queries of the weight on each key.
    pub fn received(self) -> Self {
        self.with(Received)
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(Received))
}

impl Readout for Received {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("received", [shape.keys])]
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        Box::new(ReceivedHead { sums: vec![0.0; shape.keys] })
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Received(ReceivedHead { sums: vec![0.0; shape.keys] })))
    }
}

pub(crate) struct ReceivedHead {
    /// `[keys]`
    sums: Vec<f64>,
}

impl Head for ReceivedHead {
    fn see(&mut self, row: &Row) {
        for (&key, weight) in row.keys.iter().zip(&row.weights) {
            self.sums[key] += weight;
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.sums.into_iter().map(|sum| sum as f32).collect())]
    }
}

impl Fuse for ReceivedHead {
    fn needs(&self) -> Needs {
        Needs { weights: true, ..Needs::default() }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, _: &mut [S::N]) {
        let (Some(weights), Some(first)) = (tile.weights, tile.spans.first()) else { return };
        let width = COLUMNS * S::LANES;
        let zero = simd.constant(0.0);
        for (span, factors) in tile.spans.iter().zip(weights.factors.chunks_exact(width)) {
            let factors = [simd.load(factors), simd.load(&factors[S::LANES..])];
            let rows = &weights.numbers[(span.start - first.start) * width..(span.end - first.start) * width];
            let both = |row: &[S::N]| {
                let left = simd.mul(simd.load(row), factors[0]);
                simd.mul_add(simd.load(&row[S::LANES..]), factors[1], left)
            };
            let mut sums = self.sums[span.clone()].chunks_exact_mut(4);
            let mut rows = rows.chunks_exact(4 * width);
            for (sums, rows) in (&mut sums).zip(&mut rows) {
                let four =
                    [both(rows), both(&rows[width..]), both(&rows[2 * width..]), both(&rows[3 * width..])];
                for (sum, more) in sums.iter_mut().zip(simd.sums(four)) {
                    *sum += more.to_f64();
                }
            }
            for (sum, row) in sums.into_remainder().iter_mut().zip(rows.remainder().chunks_exact(width)) {
                *sum += simd.sums([both(row), zero, zero, zero])[0].to_f64();
            }
        }
    }

    fn absorb(&mut self, later: Self) {
        for (sum, later) in self.sums.iter_mut().zip(later.sums) {
            *sum += later;
        }
    }
}
