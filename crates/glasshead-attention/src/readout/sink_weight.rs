//! `sink_weight [batch, heads, queries]`: the share of the head's sink. Always read where sinks are given.

use super::{Array, Head, PerQuery, Readout, Shape};

#[derive(Debug)]
pub(super) struct SinkWeight;

impl Readout for SinkWeight {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("sink_weight", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        PerQuery::start(|row| row.sink_weight)
    }
}
