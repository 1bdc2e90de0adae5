//! `max_weight [batch, heads, queries]`: the largest weight on a key.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fused, Head, Parts, PerQuery, Read, Readout, Shape, Values, nothing_after,
};

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

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        let mut all = vec![0f32; parts.f32(0, 0)?.len()];
        for part in 0..parts.count() {
            let own = parts.f32(part, 0)?;
            for (n, (all, x)) in all.iter_mut().zip(own).enumerate() {
                *all = all.max((parts.share(part, n) * f64::from(*x)) as f32);
            }
        }
        Ok(vec![Values::F32(all)])
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery<'static> {
    // Unlike f64::max, this keeps a NaN.
    PerQuery::new(
        |row| row.weights.iter().fold(0.0, |max, &p| if max > p { max } else { p }),
        |lanes| &lanes.max_weight,
    )
}
