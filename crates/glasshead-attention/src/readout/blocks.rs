//! `blocks [batch, heads, ⌈queries/size⌉, ⌈keys/size⌉]`: the map of the weights, summed in squares.

use std::{ops::Range, sync::Arc};

use super::{
    Argument, Array, AtWork, Fuse, Fused, Head, Needs, Parts, Read, Readout, Shape, Tile, Values, one_number,
    query_weights::QueryWeights,
};
use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    reference::Row,
};

#[derive(Clone, Debug)]
struct Blocks {
    size: usize,
    /// How many keys of the first block come before the first key: of a part of the keys.
    before: usize,
    weights: QueryWeights,
}

impl Blocks {
    fn new(size: usize) -> Self {
        Self { size, before: 0, weights: QueryWeights::default() }
    }

    fn columns(&self, keys: usize) -> usize {
        if keys == 0 { 0 } else { (self.before + keys).div_ceil(self.size) }
    }
}

impl Read {
    /// `blocks`: the sum of the weights in every `size × size` square of the map.
    ///
    /// # Panics
    /// When `size` is 0.
    pub fn blocks(self, size: usize) -> Self {
        assert!(size > 0, "blocks of at least one key");
        self.with(Blocks::new(size))
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    Ok(Arc::new(Blocks::new(one_number(argument, 64, "block size")?)))
}

impl Readout for Blocks {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("blocks", [shape.queries.div_ceil(self.size), self.columns(shape.keys)])]
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        Box::new(self.head(shape))
    }

    /// A block that lies in two parts is their sum.
    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        let columns = parts.keys().div_ceil(self.size);
        let rows: usize = parts.shape(0, 0).iter().rev().skip(1).product();
        let mut sums = vec![0.0f64; rows * columns];
        for part in 0..parts.count() {
            let first = parts.keys_of(part).start / self.size;
            let count = parts.shape(part, 0).last().map_or(1, |count| (*count).max(1));
            let values = parts.f32(part, 0)?;
            for (sums, values) in sums.chunks_mut(columns.max(1)).zip(values.chunks(count)) {
                sums[first..].iter_mut().zip(values).for_each(|(sum, x)| *sum += f64::from(*x));
            }
        }
        Ok(vec![Values::F32(sums.into_iter().map(|sum| sum as f32).collect())])
    }

    fn adds_up_queries(&self) -> bool {
        true
    }

    fn of_part(&self, keys: &Range<usize>, shares: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        let weights = shares.map_or_else(|| self.weights.clone(), |shares| self.weights.times(shares));
        Some(Arc::new(Self { before: keys.start % self.size, weights, ..*self }))
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Blocks(self.head(shape))))
    }
}

impl Blocks {
    fn head(&self, shape: &Shape) -> BlocksHead {
        BlocksHead {
            of: self.clone(),
            shape: *shape,
            first: None,
            ended: 0,
            done: Vec::new(),
            open: Vec::new(),
        }
    }
}

pub(crate) struct BlocksHead {
    of: Blocks,
    shape: Shape,
    /// The first row of the map that was seen.
    first: Option<usize>,
    /// How many of its rows are finished.
    ended: usize,
    /// `[ended, ⌈keys/size⌉]`
    done: Vec<f32>,
    /// `[rows, ⌈keys/size⌉]`: those after them, which the tile at hand adds to: its queries that come row by row do so
    /// after all others.
    open: Vec<f64>,
}

impl BlocksHead {
    fn columns(&self) -> usize {
        self.of.columns(self.shape.keys)
    }

    /// The sums of a row of the map that is not finished.
    fn row(&mut self, row: usize) -> &mut [f64] {
        let columns = self.columns();
        let at = (row - self.first.unwrap_or(row) - self.ended) * columns;
        self.open.resize(self.open.len().max(at + columns), 0.0);
        &mut self.open[at..at + columns]
    }

    /// No query will come to a row of the map before this one.
    fn end_before(&mut self, row: usize) {
        let rows = row - *self.first.get_or_insert(row) - self.ended;
        let len = rows * self.columns();
        self.ended += rows;
        self.open.resize(self.open.len().max(len), 0.0);
        self.done.extend(self.open.drain(..len).map(|sum| sum as f32));
    }

    fn end(&mut self) {
        self.done.extend(self.open.drain(..).map(|sum| sum as f32));
    }
}

impl Head for BlocksHead {
    fn see(&mut self, row: &Row) {
        let (size, before) = (self.of.size, self.of.before);
        let factor = self.of.weights.of_one(&self.shape, [row.batch, row.head], row.query);
        self.end_before(row.query / size);
        let sums = self.row(row.query / size);
        for (&key, weight) in row.keys.iter().zip(&row.weights) {
            sums[(before + key) / size] += weight * factor;
        }
    }

    fn finish(mut self: Box<Self>) -> Vec<Values> {
        self.end();
        let columns = self.columns();
        let mut all = self.done;
        all.splice(0..0, std::iter::repeat_n(0.0, self.first.unwrap_or(0) * columns));
        all.resize(self.shape.queries.div_ceil(self.of.size) * columns, 0.0);
        vec![Values::F32(all)]
    }
}

impl Fuse<'_> for BlocksHead {
    fn needs(&self) -> Needs {
        let first = self.of.size - self.of.before;
        Needs { cuts: (first..self.shape.keys).step_by(self.of.size).collect(), ..Needs::default() }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, _: &mut [S::N]) {
        let (size, before, width) = (self.of.size, self.of.before, COLUMNS * S::LANES);
        let queries = tile.queries.clone();
        if queries.is_empty() {
            return;
        }
        self.end_before(queries.start / size);
        let mut factors = [S::N::from_f64(1.0); COLUMNS * MAX_LANES];
        if let Some(weights) = self.of.weights.of(&self.shape, tile.head, queries.clone()) {
            for (factor, weight) in factors.iter_mut().zip(weights) {
                *factor = S::N::from_f64(f64::from(*weight));
            }
        }
        if queries.start / size == (queries.end - 1) / size {
            // All in one row of squares; lanes without a query hold 0.
            let sums = self.row(queries.start / size);
            let zero = simd.constant(0.0);
            let of_query = [simd.load(&factors), simd.load(&factors[S::LANES..])];
            let both = |sums: &[S::N]| {
                let left = simd.mul(simd.load(sums), of_query[0]);
                simd.mul_add(simd.load(&sums[S::LANES..]), of_query[1], left)
            };
            for (spans, weights) in tile.spans.chunks(4).zip(tile.sums.chunks(4 * width)) {
                let mut four = [zero; 4];
                for (four, weights) in four.iter_mut().zip(weights.chunks_exact(width)) {
                    *four = both(weights);
                }
                for (span, sum) in spans.iter().zip(simd.sums(four)) {
                    sums[(before + span.start) / size] += sum.to_f64();
                }
            }
            return;
        }
        for (lane, query) in queries.enumerate() {
            let sums = self.row(query / size);
            for (span, weights) in tile.spans.iter().zip(tile.sums.chunks_exact(width)) {
                sums[(before + span.start) / size] += weights[lane].to_f64() * factors[lane].to_f64();
            }
        }
    }

    fn absorb(&mut self, mut later: Self) {
        self.end();
        later.end();
        let Some(from) = later.first else { return };
        let first = *self.first.get_or_insert(from);
        // The row in which a task ends is the one in which the next may start.
        let at = (from - first) * self.columns();
        self.done.resize(self.done.len().max(at), 0.0);
        let both = later.done.len().min(self.done.len() - at);
        for (sum, more) in self.done[at..].iter_mut().zip(later.done.drain(..both)) {
            *sum += more;
        }
        self.done.append(&mut later.done);
    }
}
