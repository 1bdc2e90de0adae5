//! Partial results: attention over some of the keys, computed apart, merged to that over all of them.
//!
//! A part whose sum of exponentials is e^lseₚ has the share wₚ = e^(lseₚ − lse) of a query's weight, where
//! lse = ln Σ e^lseₚ. Its output and its weights count wₚ times (Milakov and Gimelshein 2018):
//!
//! ```text
//! out = Σ wₚ·outₚ,   max = max wₚ·maxₚ,   entropy = Σ wₚ·(entropyₚ − (1 − sinkₚ)·ln wₚ)
//! ```

use super::{Array, Read, Shape, Values};
use crate::{Attended, AttentionError, Element};

/// Attention over the keys from `first_key` on, up to where the next part starts.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a, T> {
    /// Output and readouts, `lse` among them.
    pub attended: &'a Attended<T>,
    /// Where its keys start on the axis of all keys.
    pub first_key: usize,
}

/// What a [`Readout`](super::Readout) needs to merge its arrays.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Per part the arrays of this readout.
    arrays: Vec<&'a [Array]>,
    first_keys: &'a [usize],
    /// Per part wₚ, `[batch, heads, queries]`.
    shares: &'a [Vec<f64>],
    /// Per part, where it has sinks, `[batch, heads, queries]`.
    sink_weights: &'a [Option<&'a [f32]>],
    queries: usize,
}

impl Parts<'_> {
    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.arrays.len()
    }

    /// Where the keys of a part start.
    pub fn first_key(&self, part: usize) -> usize {
        self.first_keys[part]
    }

    /// wₚ of a query: `n` counts them over `[batch, heads, queries]`.
    pub fn share(&self, part: usize, n: usize) -> f64 {
        self.shares[part][n]
    }

    /// What a part's sinks have of its weight.
    pub fn sink_weight(&self, part: usize, n: usize) -> f64 {
        self.sink_weights[part].and_then(|weights| weights.get(n)).map_or(0.0, |x| f64::from(*x))
    }

    /// wₚ of the query `query` of the head `head` of `[batch, heads]`.
    pub fn share_of(&self, part: usize, head: usize, query: usize) -> f64 {
        self.shares[part][head * self.queries + query]
    }

    /// The floats of the readout's array `at`.
    ///
    /// # Errors
    /// It is not there or holds something else.
    pub fn f32(&self, part: usize, at: usize) -> Result<&[f32], String> {
        let array = self.arrays[part].get(at).and_then(Array::f32);
        array.ok_or_else(|| format!("is missing in part {part}"))
    }

    /// As [`Parts::f32`], indices.
    ///
    /// # Errors
    /// As there.
    pub fn i64(&self, part: usize, at: usize) -> Result<&[i64], String> {
        let array = self.arrays[part].get(at).and_then(Array::i64);
        array.ok_or_else(|| format!("is missing in part {part}"))
    }

    /// The axes of the readout's array `at` in a part.
    pub fn shape(&self, part: usize, at: usize) -> &[usize] {
        self.arrays[part].get(at).map_or(&[], |array| &array.shape)
    }

    /// Σ wₚ · x over the parts, for arrays `[batch, heads, queries, …]`.
    ///
    /// # Errors
    /// An array is missing, or has another shape than in the first part.
    pub fn weighted_sum(&self) -> Result<Vec<Values>, String> {
        let mut sums = vec![0.0; self.f32(0, 0)?.len()];
        let queries = self.shares[0].len();
        for part in 0..self.count() {
            let values = self.same_len(part, sums.len())?;
            let per_query = (sums.len() / queries.max(1)).max(1);
            for (n, (sums, values)) in sums.chunks_mut(per_query).zip(values.chunks(per_query)).enumerate() {
                let share = self.share(part, n);
                for (sum, x) in sums.iter_mut().zip(values) {
                    *sum += share * f64::from(*x);
                }
            }
        }
        Ok(vec![Values::F32(sums.into_iter().map(|sum| sum as f32).collect())])
    }

    /// The floats of the first array, as many as in the first part.
    ///
    /// # Errors
    /// Fewer or more.
    pub fn same_len(&self, part: usize, len: usize) -> Result<&[f32], String> {
        let values = self.f32(part, 0)?;
        match values.len() == len {
            true => Ok(values),
            false => Err(format!("has another shape in part {part} than in part 0")),
        }
    }

    /// Puts the keys of the parts behind each other, for arrays `[batch, heads, …, keys]`; `factor` is given
    /// the part and the row, counted over all axes but the last.
    ///
    /// # Errors
    /// An array is missing.
    pub fn side_by_side(&self, factor: impl Fn(usize, usize) -> f64) -> Result<Vec<Values>, String> {
        let mut all = Vec::new();
        let rows: usize = self.shape(0, 0).iter().rev().skip(1).product();
        for row in 0..rows {
            for part in 0..self.count() {
                let keys = self.shape(part, 0).last().copied().unwrap_or(0);
                let values = self.f32(part, 0)?;
                let values = values.get(row * keys..(row + 1) * keys);
                let values =
                    values.ok_or_else(|| format!("has another shape in part {part} than in part 0"))?;
                all.extend(values.iter().map(|x| (f64::from(*x) * factor(part, row)) as f32));
            }
        }
        Ok(vec![Values::F32(all)])
    }
}

/// Merges attention over parts of the keys into that over all: the output, and every readout of `read`, with
/// which all parts were computed.
///
/// Parts come in the order of their keys and have the same queries. A causal form or window is that of the
/// whole, as `Causal::Offset(offset − first_key)` in each part; sinks are given to one part alone. Segments have
/// as many ends in every part, each clipped to its keys. `received` and `blocks` add up queries before a part
/// can know their shares: ask for `received_weighted` with [`shares`] in a second pass instead.
///
/// # Errors
/// No parts, shapes that differ, a part without `lse`, or a readout that cannot be merged.
pub fn merge<T: Element>(read: &Read, parts: &[Part<T>]) -> Result<Attended<T>, AttentionError> {
    let Some(first) = parts.first() else {
        return Err(AttentionError::value("merge", 0, "parts: there must be at least one"));
    };
    let shape @ [batch, heads, queries, value_dim] = first.attended.shape;
    for Part { attended, .. } in parts {
        if attended.shape != shape || attended.out.len() != first.attended.out.len() {
            let expected = format!("{shape:?}, as in the first part");
            return Err(AttentionError::shape("out", &attended.shape, expected));
        }
    }
    let lses = parts.iter().map(|part| match part.attended.readout("lse").and_then(Array::f32) {
        Some(lse) if lse.len() == batch * heads * queries => Ok(lse),
        _ => Err(AttentionError::Readout {
            item: "lse".into(),
            problem: "is missing in a part; every part is merged by it".into(),
        }),
    });
    let lses = lses.collect::<Result<Vec<&[f32]>, _>>()?;
    let total = total_lse(&lses);
    let shares: Vec<Vec<f64>> = lses.iter().map(|lse| shares_of(lse, &total)).collect();

    let mut out = vec![0.0; first.attended.out.len()];
    for (part, shares) in parts.iter().zip(&shares) {
        let values = part.attended.out.chunks(value_dim.max(1));
        for ((sums, values), share) in out.chunks_mut(value_dim.max(1)).zip(values).zip(shares) {
            // A part that a query sees nothing of is 0, and its share too.
            sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += share * x.to_f64());
        }
    }
    let keys = parts.iter().map(|part| part.first_key).max().unwrap_or(0);
    let first_keys: Vec<usize> = parts.iter().map(|part| part.first_key).collect();
    let mut readouts = Vec::new();
    let mut at = 0;
    let sink_weights: Vec<Option<&[f32]>> =
        parts.iter().map(|part| part.attended.readout("sink_weight").and_then(Array::f32)).collect();
    let with_sinks = sink_weights.iter().flatten().count();
    if with_sinks > 1 {
        return Err(AttentionError::value("merge", with_sinks, "parts have sinks: give them to one alone"));
    }
    for item in read.items() {
        let wrong = |problem| AttentionError::Readout { item: format!("{item:?}"), problem };
        let count = item.arrays(&Shape { batch, heads, queries, keys }).len();
        let mut arrays = Vec::new();
        for part in parts {
            let own = part.attended.readouts.get(at..at + count);
            arrays.push(own.ok_or_else(|| wrong("was not read out of every part".into()))?);
        }
        let sink_weights = &sink_weights[..];
        let own = Parts { arrays, first_keys: &first_keys, shares: &shares, sink_weights, queries };
        let values = item.merge(&own, &total).map_err(wrong)?;
        for (n, values) in values.into_iter().enumerate() {
            let array = &first.attended.readouts[at + n];
            let mut shape = array.shape.clone();
            let len = match &values {
                Values::F32(values) => values.len(),
                Values::I64(values) => values.len(),
            };
            // Only the axis of the keys, the last one, can have grown.
            let rest: usize = shape.iter().rev().skip(1).product();
            if let Some(last) = shape.last_mut().filter(|_| rest > 0) {
                *last = len / rest;
            }
            readouts.push(Array { name: array.name, shape, values });
        }
        at += count;
    }
    if let Some(part) = sink_weights.iter().position(Option::is_some) {
        let own = sink_weights[part].unwrap_or_default().iter().zip(&shares[part]);
        let values = Values::F32(own.map(|(x, share)| (f64::from(*x) * share) as f32).collect());
        readouts.push(Array { name: "sink_weight", shape: vec![batch, heads, queries], values });
    }
    Ok(Attended { out: out.into_iter().map(T::from_f64).collect(), shape, readouts })
}

/// ln Σ e^lseₚ over parts of the keys, for every query; −∞ where none sees anything.
pub fn total_lse(parts: &[&[f32]]) -> Vec<f64> {
    let count = parts.first().map_or(0, |lse| lse.len());
    let total = |n: usize| {
        let lses = || parts.iter().map(|lse| f64::from(lse[n]));
        let max = lses().fold(f64::NEG_INFINITY, f64::max);
        if max == f64::NEG_INFINITY {
            max
        } else {
            max + lses().map(|lse| (lse - max).exp()).sum::<f64>().ln()
        }
    };
    (0..count).map(total).collect()
}

/// The share e^(lseₚ − lse) that a part has of every query's weight: what `received_weighted` is to be asked
/// for with, so that the received weight of the parts side by side is that of the whole.
pub fn shares(part: &[f32], total: &[f64]) -> Vec<f32> {
    shares_of(part, total).into_iter().map(|share| share as f32).collect()
}

fn shares_of(part: &[f32], total: &[f64]) -> Vec<f64> {
    let share = |(lse, total): (&f32, &f64)| match *total == f64::NEG_INFINITY {
        true => 0.0,
        false => (f64::from(*lse) - total).exp(),
    };
    part.iter().zip(total).map(share).collect()
}
