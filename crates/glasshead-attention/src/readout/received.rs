//! `received [batch, heads, keys]`: the column sums, how much weight each key gets from all queries.

use std::sync::Arc;

use super::{Argument, Array, Head, Read, Readout, Shape, Values, nothing_after};
use crate::reference::Row;

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
}

struct ReceivedHead {
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
