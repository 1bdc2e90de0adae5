//! `max_weight [batch, heads, queries]`: the largest weight on a key.

use std::sync::Arc;

use super::{Argument, Array, AtWork, Fused, Head, PerQuery, Read, Readout, Shape, nothing_after};

#[derive(Debug)]
struct MaxWeight;

impl Read {
    /// `max_weight`: the largest weight that a query gives to a key.
    pub fn max_weight(self) -> Self {
        self.with(MaxWeight)
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(MaxWeight))
}

impl Readout for MaxWeight {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("max_weight", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(head())
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery {
    // Unlike f64::max, this keeps a NaN.
    PerQuery::new(
        |row| row.weights.iter().fold(0.0, |max, &p| if max > p { max } else { p }),
        |lane| lane.max_weight,
    )
}
