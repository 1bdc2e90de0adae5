//! `blocks [batch, heads, ⌈queries/size⌉, ⌈keys/size⌉]`: the map of the weights, summed in squares.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fuse, Fused, Head, Needs, Read, Readout, Shape, Tile, Values, append, one_number,
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
        BlocksHead { size, keys: shape.keys, rows, first: None, done: Vec::new(), sums: Vec::new() }
    }
}

pub(crate) struct BlocksHead {
    size: usize,
    keys: usize,
    /// Rows of the whole map.
    rows: usize,
    /// The first row that was seen.
    first: Option<usize>,
    /// `[rows that are finished, ⌈keys/size⌉]`
    done: Vec<f32>,
    /// `[⌈keys/size⌉]`: the row after those, or nothing yet.
    sums: Vec<f64>,
}

impl BlocksHead {
    fn columns(&self) -> usize {
        self.keys.div_ceil(self.size)
    }

    /// The sums of a row of the map; rows come in ascending order.
    fn row(&mut self, row: usize) -> &mut [f64] {
        let (first, columns) = (*self.first.get_or_insert(row), self.columns());
        while self.done.len() < (row - first) * columns {
            self.sums.resize(columns, 0.0);
            self.end_row();
        }
        self.sums.resize(columns, 0.0);
        &mut self.sums
    }

    fn end_row(&mut self) {
        self.done.extend(self.sums.drain(..).map(|sum| sum as f32));
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

    fn finish(mut self: Box<Self>) -> Vec<Values> {
        self.settle();
        let columns = self.columns();
        let mut all = self.done;
        all.splice(0..0, std::iter::repeat_n(0.0, self.first.unwrap_or(0) * columns));
        all.resize(self.rows * columns, 0.0);
        vec![Values::F32(all)]
    }
}

impl Fuse for BlocksHead {
    fn needs(&self) -> Needs {
        Needs { cuts: (self.size..self.keys).step_by(self.size).collect(), ..Needs::default() }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, _: &mut [S::N]) {
        let (size, width) = (self.size, COLUMNS * S::LANES);
        let queries = tile.queries.clone();
        if queries.is_empty() {
            return;
        }
        if queries.start / size == (queries.end - 1) / size {
            // All in one row of squares; lanes without a query hold 0.
            let sums = self.row(queries.start / size);
            let zero = simd.constant(0.0);
            let both = |sums: &[S::N]| simd.add(simd.load(sums), simd.load(&sums[S::LANES..]));
            for (spans, weights) in tile.spans.chunks(4).zip(tile.sums.chunks(4 * width)) {
                let mut four = [zero; 4];
                for (four, weights) in four.iter_mut().zip(weights.chunks_exact(width)) {
                    *four = both(weights);
                }
                for (span, sum) in spans.iter().zip(simd.sums(four)) {
                    sums[span.start / size] += sum.to_f64();
                }
            }
            return;
        }
        for (lane, query) in queries.enumerate() {
            let sums = self.row(query / size);
            for (span, weights) in tile.spans.iter().zip(tile.sums.chunks_exact(width)) {
                sums[span.start / size] += weights[lane].to_f64();
            }
        }
    }

    fn settle(&mut self) {
        self.end_row();
        self.done.shrink_to_fit();
    }

    fn absorb(&mut self, mut later: Self) {
        self.settle();
        later.settle();
        let Some(from) = later.first else { return };
        let first = *self.first.get_or_insert(from);
        // The row in which a task ends is the one in which the next may start.
        let at = (from - first) * self.columns();
        self.done.resize(self.done.len().max(at), 0.0);
        let both = later.done.len().min(self.done.len() - at);
        for (sum, more) in self.done[at..].iter_mut().zip(later.done.drain(..both)) {
            *sum += more;
        }
        append(&mut self.done, later.done);
    }
}
