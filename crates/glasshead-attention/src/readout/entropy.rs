//! `entropy [batch, heads, queries]`: −Σ p ln p in nats, over the keys alone.

use std::sync::Arc;

use super::{Argument, Array, AtWork, Fused, Head, PerQuery, Read, Readout, Shape, nothing_after};

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

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::PerQuery(head())))
    }
}

fn head() -> PerQuery {
    // p ln p → 0 as p → 0; adding 0 turns −0 into 0.
    PerQuery::of_moments(
        |row| -row.weights.iter().map(|&p| if p == 0.0 { 0.0 } else { p * p.ln() }).sum::<f64>() + 0.0,
        |lane| lane.entropy,
    )
}
