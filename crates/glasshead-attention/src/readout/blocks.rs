//! `blocks [batch, heads, ⌈queries/size⌉, ⌈keys/size⌉]`: the map of the weights, summed in squares.

use std::sync::Arc;

use super::{Argument, Array, Head, Read, Readout, Shape, Values, one_number};
use crate::reference::Row;

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
        let size = self.0;
        let columns = shape.keys.div_ceil(size);
        Box::new(BlocksHead { size, columns, sums: vec![0.0; shape.queries.div_ceil(size) * columns] })
    }
}

struct BlocksHead {
    size: usize,
    columns: usize,
    sums: Vec<f64>,
}

impl Head for BlocksHead {
    fn see(&mut self, row: &Row) {
        let sums = &mut self.sums[row.query / self.size * self.columns..];
        for (&key, weight) in row.keys.iter().zip(&row.weights) {
            sums[key / self.size] += weight;
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.sums.into_iter().map(|sum| sum as f32).collect())]
    }
}
