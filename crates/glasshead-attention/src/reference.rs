//! The oracle: attention as the equation says it, in f64, one query after the other.
//!
//! ```text
//! score[j]  = softcap(q[i]·k[j] · scale) − slope·|i + offset − j| + mask[i, j]    for every j that i may see
//! weight[j] = exp(score[j] − max) / (Σ exp(score − max) + exp(sink − max))
//! out[i]    = Σ weight[j] · v[j]
//! ```
//!
//! (Vaswani et al. 2017, eq. 1.) No tiles, no tricks: every fast path is judged against this file.
//! [`attention`] keeps the whole matrix of weights on purpose.

mod gradients;

pub(crate) use gradients::of_head;
pub use gradients::{Gradients, gradients};

use std::ops::Range;

use crate::{Attention, AttentionError, Element, attend::Problem, isa::Number, views::Vector};

/// What normalises one row of scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalizer {
    /// ln Σ exp(score), the sink counted; −∞ for a row without scores.
    pub lse: f64,
    /// The share that the sink takes; 0 without one.
    pub sink_weight: f64,
}

/// The softmax of one row, written to `weights` (of the same length as `scores`).
///
/// A sink is one more score that takes weight and has no value. A row without scores has no weights,
/// `lse` −∞ and `sink_weight` 0. NaN in the row makes the whole row NaN.
///
/// # Panics
/// When the two slices differ in length.
pub fn softmax(scores: &[f64], sink: Option<f64>, weights: &mut [f64]) -> Normalizer {
    assert_eq!(scores.len(), weights.len(), "one weight per score");
    if scores.is_empty() {
        return Normalizer { lse: f64::NEG_INFINITY, sink_weight: 0.0 };
    }
    // f64::max passes over NaN; exp(NaN − max) below brings it back.
    let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for (weight, score) in weights.iter_mut().zip(scores) {
        *weight = (score - max).exp();
        sum += *weight;
    }
    let sink = sink.map_or(0.0, |sink| (sink - max).exp());
    sum += sink;
    for weight in weights {
        *weight /= sum;
    }
    Normalizer { lse: max + sum.ln(), sink_weight: sink / sum }
}

/// One query's row: the keys that it may see, their scores and their weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Batch element of the query.
    pub batch: usize,
    /// Query head.
    pub head: usize,
    /// Index of the query.
    pub query: usize,
    /// `query + offset`: where the query stands on the axis of the keys.
    pub position: i64,
    /// The first key of the query's sequence: 0, unless sequences are packed.
    pub first_key: usize,
    /// The keys that the query may see, ascending.
    pub keys: Vec<usize>,
    /// One score per visible key.
    pub scores: Vec<f64>,
    /// One weight per visible key; they add to 1 − `sink_weight`.
    pub weights: Vec<f64>,
    /// The length of the value of each visible key; empty unless a readout asks for it.
    pub value_norms: Vec<f64>,
    /// ln Σ exp(score), the sink counted; −∞ where nothing is visible.
    pub lse: f64,
    /// The share of the head's sink; 0 without one and where nothing is visible.
    pub sink_weight: f64,
    q: Vec<f64>,
}

impl Row {
    /// Scores and weights of one query.
    pub(crate) fn compute<T: Element>(
        &mut self,
        problem: &Problem<T>,
        batch: usize,
        head: usize,
        query: usize,
    ) {
        self.place(problem, [batch, head, query]);
        self.q.clear();
        self.q.extend(problem.q.vector(batch, head, query).iter().map(T::to_f64));
        self.score(problem);
        self.weigh(problem, softmax);
    }

    /// The row of a query whose scores are known, keys by keys, −∞ where one is hidden. Scores of plain terms are q·k,
    /// others are finished. `softmax` does as [`softmax`] does.
    pub(crate) fn take<'s, T: Element>(
        &mut self,
        problem: &Problem<T>,
        [batch, head, query]: [usize; 3],
        scores: impl Iterator<Item = (Range<usize>, &'s [T::Number])>,
        softmax: impl FnOnce(&[f64], Option<f64>, &mut [f64]) -> Normalizer,
    ) {
        self.place(problem, [batch, head, query]);
        let scale = if problem.is_plain(head) { problem.scale } else { 1.0 };
        self.keys.clear();
        self.scores.clear();
        let hidden = T::Number::from_f64(f64::NEG_INFINITY);
        for (keys, scores) in scores {
            if scores.contains(&hidden) {
                let seen = keys.zip(scores).filter(|(_, score)| **score != hidden);
                let seen = seen.map(|(key, score)| (key, score.to_f64() * scale));
                seen.for_each(|(key, score)| {
                    self.keys.push(key);
                    self.scores.push(score);
                });
            } else {
                self.keys.extend(keys);
                self.scores.extend(scores.iter().map(|score| score.to_f64() * scale));
            }
        }
        self.weigh(problem, softmax);
    }

    /// Takes note of the lengths of the values, `[keys of the head]`, if there are any.
    pub(crate) fn measure(&mut self, value_norms: &[f32]) {
        self.value_norms.clear();
        if !value_norms.is_empty() {
            self.value_norms.extend(self.keys.iter().map(|key| f64::from(value_norms[*key])));
        }
    }

    fn place<T: Element>(&mut self, problem: &Problem<T>, [batch, head, query]: [usize; 3]) {
        (self.batch, self.head, self.query) = (batch, head, query);
        let reach = problem.visibility.reach(batch, query);
        (self.position, self.first_key) = (reach.position(query), reach.first_key());
    }

    fn weigh<T: Element>(
        &mut self,
        problem: &Problem<T>,
        softmax: impl FnOnce(&[f64], Option<f64>, &mut [f64]) -> Normalizer,
    ) {
        self.weights.clear();
        self.weights.resize(self.scores.len(), 0.0);
        let sink = problem.sinks.map(|sinks| f64::from(sinks[self.head]));
        Normalizer { lse: self.lse, sink_weight: self.sink_weight } =
            softmax(&self.scores, sink, &mut self.weights);
    }

    fn score<T: Element>(&mut self, problem: &Problem<T>) {
        self.keys.clear();
        self.scores.clear();
        let (batch, head, query) = (self.batch, self.head, self.query);
        let slope = f64::from(problem.slope(head));
        for key in problem.visibility.keys(batch, query) {
            let bias = match problem.mask() {
                None => 0.0,
                Some(mask) => match mask.bias(batch, head, query, key) {
                    None => continue,
                    Some(bias) => bias,
                },
            };
            let mut score = dot(&self.q, problem.k.vector(batch, head / problem.group, key)) * problem.scale;
            if problem.softcap > 0.0 {
                score = problem.softcap * (score / problem.softcap).tanh();
            }
            if problem.alibi_slopes.is_some() {
                score -= slope * self.position.abs_diff(key as i64) as f64;
            }
            self.keys.push(key);
            self.scores.push(score + bias);
        }
    }

    /// Σ weight · v over the visible keys: `[value_dim]`.
    pub(crate) fn mix<T: Element>(&self, problem: &Problem<T>) -> Vec<f64> {
        let mut out = vec![0.0; problem.value_dim];
        for (&key, &weight) in self.keys.iter().zip(&self.weights) {
            let value = problem.v.vector(self.batch, self.head / problem.group, key);
            for (out, value) in out.iter_mut().zip(value.iter()) {
                *out += weight * value.to_f64();
            }
        }
        out
    }
}

fn dot<T: Element>(q: &[f64], k: Vector<T>) -> f64 {
    q.iter().zip(k.iter()).map(|(q, k)| q * k.to_f64()).sum()
}

/// The whole of attention, nothing left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// `[batch, heads, queries, value_dim]`
    pub out: Vec<f64>,
    /// `[batch, heads, queries, keys]`, 0 where a key is hidden.
    pub weights: Vec<f64>,
    /// `[batch, heads, queries]`
    pub lse: Vec<f64>,
}

/// Attention in f64 with the full matrix of weights.
///
/// # Errors
/// As [`Attention::run`].
pub fn attention<T: Element>(request: &Attention<T>) -> Result<Reference, AttentionError> {
    let problem = request.checked()?;
    let mut reference = Reference { out: Vec::new(), weights: Vec::new(), lse: Vec::new() };
    let mut row = Row::default();
    for batch in 0..problem.batch {
        for head in 0..problem.heads {
            for query in 0..problem.queries {
                row.compute(&problem, batch, head, query);
                let start = reference.weights.len();
                reference.weights.resize(start + problem.keys, 0.0);
                for (&key, &weight) in row.keys.iter().zip(&row.weights) {
                    reference.weights[start + key] = weight;
                }
                reference.out.extend(row.mix(&problem));
                reference.lse.push(row.lse);
            }
        }
    }
    Ok(reference)
}

/// One row of a request: the keys that the query sees, scores, weights.
///
/// # Errors
/// As [`Attention::run`]; also when an index is outside its axis.
pub fn row<T: Element>(
    request: &Attention<T>,
    batch: usize,
    head: usize,
    query: usize,
) -> Result<Row, AttentionError> {
    Ok(row_of(request, [batch, head, query])?.0)
}

/// The output of one query, `[value_dim]`.
///
/// # Errors
/// As [`row`].
pub fn output<T: Element>(
    request: &Attention<T>,
    batch: usize,
    head: usize,
    query: usize,
) -> Result<Vec<f64>, AttentionError> {
    let (row, problem) = row_of(request, [batch, head, query])?;
    Ok(row.mix(&problem))
}

fn row_of<'a, T: Element>(
    request: &Attention<'a, T>,
    [batch, head, query]: [usize; 3],
) -> Result<(Row, Problem<'a, T>), AttentionError> {
    let problem = request.checked()?;
    let axes =
        [("batch", batch, problem.batch), ("head", head, problem.heads), ("query", query, problem.queries)];
    for (axis, index, len) in axes {
        if index >= len {
            return Err(AttentionError::value(axis, index, format!("is not below {len}")));
        }
    }
    let mut row = Row::default();
    row.compute(&problem, batch, head, query);
    Ok((row, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorView;

    #[test]
    fn softmax_of_the_worked_example() {
        let scores = [0.2, 0.8, 0.4, 1.0, 1.0, 0.6, 0.2, 0.3, 0.5];
        let expected =
            [0.074397, 0.135560, 0.090868, 0.165573, 0.165573, 0.110987, 0.074397, 0.082221, 0.100425];
        let mut weights = [0.0; 9];
        softmax(&scores, None, &mut weights);
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((weight - expected).abs() < 5e-7, "{weight} is not {expected}");
        }
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_row_without_scores_and_a_row_of_a_sink() {
        assert_eq!(softmax(&[], Some(3.0), &mut []), Normalizer { lse: f64::NEG_INFINITY, sink_weight: 0.0 });
        let mut weights = [0.0; 1];
        let normalizer = softmax(&[0.0], Some(0.0), &mut weights);
        assert_eq!((weights[0], normalizer.sink_weight), (0.5, 0.5));
        assert!((normalizer.lse - 2f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn two_tokens_by_hand() {
        let q = [1.0f64, 0.0, 0.0, 2.0];
        let v = [10.0f64, 20.0];
        let view = TensorView::contiguous(&q, [1, 1, 2, 2]).unwrap();
        let values = TensorView::contiguous(&v, [1, 1, 2, 1]).unwrap();
        let got = attention(&Attention::new(view, view, values).scale(1.0)).unwrap();
        let first = 1.0 / (1.0 + (-1.0f64).exp());
        assert!((got.weights[0] - first).abs() < 1e-15);
        assert!((got.out[0] - (first * 10.0 + (1.0 - first) * 20.0)).abs() < 1e-12);
    }
}
