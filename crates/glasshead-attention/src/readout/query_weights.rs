//! How much every query counts in a readout that adds up queries.

use std::{fmt, ops::Range, sync::Arc};

use super::Shape;

/// 1, a number per query, or a number per query of every head, `[batch, heads, queries]`.
#[derive(Clone, Default)]
pub(super) struct QueryWeights(Option<Arc<[f32]>>);

impl QueryWeights {
    pub(super) fn new(weights: &[f32]) -> Self {
        Self(Some(weights.into()))
    }

    pub(super) fn check(&self, shape: &Shape) -> Result<(), String> {
        let heads = shape.batch * shape.heads;
        match self.0.as_ref().map(|weights| weights.len()) {
            Some(len) if len != shape.queries && len != heads * shape.queries => Err(format!(
                "has {len} weights, neither one for each of the {} queries nor for those of all {heads} heads",
                shape.queries
            )),
            _ => Ok(()),
        }
    }

    /// These times others, `[batch, heads, queries]`.
    pub(super) fn times(&self, others: &[f32]) -> Self {
        match &self.0 {
            None => Self::new(others),
            Some(own) => Self(Some(others.iter().zip(own.iter().cycle()).map(|(x, own)| x * own).collect())),
        }
    }

    /// Those of some queries of a head of a batch element, None where each counts once.
    pub(super) fn of(
        &self,
        shape: &Shape,
        [batch, head]: [usize; 2],
        queries: Range<usize>,
    ) -> Option<&[f32]> {
        let weights = self.0.as_ref()?;
        let first =
            if weights.len() == shape.queries { 0 } else { (batch * shape.heads + head) * shape.queries };
        Some(&weights[first + queries.start..first + queries.end])
    }

    pub(super) fn of_one(&self, shape: &Shape, head: [usize; 2], query: usize) -> f64 {
        self.of(shape, head, query..query + 1).map_or(1.0, |weights| f64::from(weights[0]))
    }
}

/// Errors name a readout by what it prints: not all numbers.
impl fmt::Debug for QueryWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("1"),
            Some(weights) => write!(f, "{} numbers", weights.len()),
        }
    }
}
