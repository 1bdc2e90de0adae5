//! `entropy [batch, heads, queries]`: −Σ p ln p in nats, over the keys alone.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Fused, Head, Parts, PerQuery, Read, Readout, Shape, Values, nothing_after,
};

#[derive(Debug)]
struct Entropy;

impl Read {
    /// `entropy`: −Σ p ln p of every query in nats (Shannon); a sink's own term is not in it.
    pub fn entropy(self) -> Self {
        self.with(Entropy)
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(Entropy))
}

impl Readout for Entropy {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("entropy", [shape.queries])]
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(head())
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        let mut all = vec![0f64; parts.f32(0, 0)?.len()];
        for part in 0..parts.count() {
            let own = parts.f32(part, 0)?;
            for (n, (all, x)) in all.iter_mut().zip(own).enumerate() {
                let share = parts.share(part, n);
                if share > 0.0 {
                    *all += share * (f64::from(*x) - share.ln());
                }
            }
        }
        Ok(vec![Values::F32(all.into_iter().map(|x| x as f32).collect())])
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery<'static> {
    // p ln p → 0 as p → 0; adding 0 turns −0 into 0.
    PerQuery::of_moments(
        |row| -row.weights.iter().map(|&p| if p == 0.0 { 0.0 } else { p * p.ln() }).sum::<f64>() + 0.0,
        |lanes| &lanes.entropy,
    )
}
