//! `lse [batch, heads, queries]`: ln Σ exp(score), the sink counted.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fused, Head, Parts, PerQuery, Read, Readout, Shape, Values, nothing_after,
};

#[derive(Debug)]
struct Lse;

impl Read {
    /// `lse`: ln Σ exp(score) of every query, the sink counted; −∞ where nothing is visible.
    pub fn lse(self) -> Self {
        self.with(Lse)
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(Lse))
}

impl Readout for Lse {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("lse", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(head())
    }

    fn merge(&self, _: &Parts, lse: &[f64]) -> Result<Vec<Values>, String> {
        Ok(vec![Values::F32(lse.iter().map(|lse| *lse as f32).collect())])
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery<'static> {
    PerQuery::of_sum(|row| row.lse, |lanes| &lanes.lse, |sum| sum.lse)
}
