//! `distance [batch, heads, queries]`: Σ p·|query position − key position|.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fused, Head, Parts, PerQuery, Read, Readout, Shape, Values, nothing_after,
};

#[derive(Debug)]
struct Distance;

impl Read {
    /// `distance`: the mean distance, in tokens, between a query and what it looks at. Positions are
    /// counted with the causal offset; weight on a sink counts as distance 0.
    pub fn distance(self) -> Self {
        self.with(Distance)
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(Distance))
}

impl Readout for Distance {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("distance", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(head())
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        parts.weighted_sum()
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery<'static> {
    PerQuery::of_moments(
        |row| {
            let distances = row.keys.iter().map(|&key| row.position.abs_diff(key as i64) as f64);
            row.weights.iter().zip(distances).map(|(p, distance)| p * distance).sum()
        },
        |lanes| &lanes.distance,
    )
}
