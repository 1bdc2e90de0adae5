//! `sink_weight [batch, heads, queries]`: the share of the head's sink. Always read where sinks are given.

use super::{Array, AtWork, Fused, Head, PerQuery, Readout, Shape};

#[derive(Debug)]
pub(super) struct SinkWeight;

impl Readout for SinkWeight {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("sink_weight", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(head())
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery<'static> {
    PerQuery::of_sum(|row| row.sink_weight, |lanes| &lanes.sink_weight, |sum| sum.sink_weight)
}
