//! `blocks [batch, heads, ⌈queries/size⌉, ⌈keys/size⌉]`: the map of the weights, summed in squares.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fuse, Fused, Head, Needs, Read, Readout, Shape, Tile, Values, one_number,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

#[derive(Debug)]
struct Blocks(usize);

impl Read {
    /// `blocks`: the sum of the weights in every `size × size` square of the map.
    ///
    /// # Panics
    /// When `size` is 0.
    pub fn blocks(self, size: usize) -> Self {
        assert!(size > 0, "blocks of at least one key");
        self.with(Blocks(size))
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    Ok(Arc::new(Blocks(one_number(argument, 64, "block size")?)))
}

impl Readout for Blocks {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("blocks", [shape.queries.div_ceil(self.0), shape.keys.div_ceil(self.0)])]
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        Box::new(self.head(shape))
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Blocks(self.head(shape))))
    }
}

impl Blocks {
    fn head(&self, shape: &Shape) -> BlocksHead {
        let (size, rows) = (self.0, shape.queries.div_ceil(self.0));
        BlocksHead { size, keys: shape.keys, rows, first: 0, sums: Vec::new() }
    }
}

pub(crate) struct BlocksHead {
    size: usize,
    keys: usize,
    /// Rows of the whole map.
    rows: usize,
    /// The first row of `sums`.
    first: usize,
    /// `[rows seen so far, ⌈keys/size⌉]`
    sums: Vec<f64>,
}

impl BlocksHead {
    /// The sums of a row of the map; rows come in ascending order.
    fn row(&mut self, row: usize) -> &mut [f64] {
        let columns = self.keys.div_ceil(self.size);
        if self.sums.is_empty() {
            self.first = row;
        }
        let at = (row - self.first) * columns;
        if self.sums.len() < at + columns {
            self.sums.resize(at + columns, 0.0);
        }
        &mut self.sums[at..at + columns]
    }
}

impl Head for BlocksHead {
    fn see(&mut self, row: &Row) {
        let size = self.size;
        let sums = self.row(row.query / size);
        for (&key, weight) in row.keys.iter().zip(&row.weights) {
            sums[key / size] += weight;
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        let columns = self.keys.div_ceil(self.size);
        let mut all = vec![0.0; self.rows * columns];
        for (all, sum) in all[self.first * columns..].iter_mut().zip(self.sums) {
            *all = sum as f32;
        }
        vec![Values::F32(all)]
    }
}

impl Fuse for BlocksHead {
    fn needs(&self) -> Needs {
        Needs { cuts: (self.size..self.keys).step_by(self.size).collect(), ..Needs::default() }
    }

    fn finish_tile<S: Simd>(&mut self, _: S, tile: &Tile<S>, _: &mut [S::N]) {
        let size = self.size;
        for (lane, query) in tile.queries.clone().enumerate() {
            let sums = self.row(query / size);
            for (span, weights) in tile.spans.iter().zip(tile.sums.chunks_exact(COLUMNS * S::LANES)) {
                sums[span.start / size] += weights[lane].to_f64();
            }
        }
    }

    fn absorb(&mut self, mut later: Self) {
        let columns = self.keys.div_ceil(self.size);
        let (first, sums) = (later.first, std::mem::take(&mut later.sums));
        for (row, later) in sums.chunks_exact(columns.max(1)).enumerate() {
            for (sum, later) in self.row(first + row).iter_mut().zip(later) {
                *sum += later;
            }
        }
    }
}
