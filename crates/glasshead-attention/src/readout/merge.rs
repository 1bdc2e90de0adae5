//! Partial results: attention over some of the keys, computed apart, merged to that over all of them.
//!
//! A part whose sum of exponentials is e^lseₚ has the share wₚ = e^(lseₚ − lse) of a query's weight, where
//! lse = ln (Σ e^lseₚ + e^sink). Its output and its weights count wₚ times (Milakov and Gimelshein 2018):
//!
//! ```text
//! out = Σ wₚ·outₚ,   max = max wₚ·maxₚ,   entropy = Σ wₚ·(entropyₚ − ln wₚ)
//! ```

use std::ops::Range;

use super::{Array, Read, Readout, Shape, Values};
use crate::{Attended, AttentionError, Element};

/// What was computed of some of the keys.
#[derive(Clone, Debug)]
pub struct Part<'a, T> {
    /// Output and readouts of a request with [`part`](crate::Attention::part).
    pub attended: &'a Attended<T>,
    /// Readouts of the same request with [`shares`](crate::Attention::shares): those that add up queries.
    pub summed: &'a [Array],
    /// Where its keys lie on the axis of all keys.
    pub keys: Range<usize>,
}

/// What a [`Readout`](super::Readout) needs to merge its arrays, whose shapes are those of [`Readout::arrays`].
#[derive(Debug)]
pub struct Parts<'a> {
    /// Per part the arrays of this readout.
    arrays: Vec<&'a [Array]>,
    keys: &'a [Range<usize>],
    /// Per part wₚ, `[batch, heads, queries]`.
    shares: &'a [Vec<f64>],
    queries: usize,
}

impl Parts<'_> {
    /// How many parts there are.
    pub fn count(&self) -> usize {
        self.arrays.len()
    }

    /// The keys of a part on the axis of all keys.
    pub fn keys_of(&self, part: usize) -> Range<usize> {
        self.keys[part].clone()
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.keys.last().map_or(0, |keys| keys.end)
    }

    /// wₚ of a query: `n` counts them over `[batch, heads, queries]`.
    pub fn share(&self, part: usize, n: usize) -> f64 {
        self.shares[part][n]
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
    /// An array is missing.
    pub fn weighted_sum(&self) -> Result<Vec<Values>, String> {
        let mut sums = vec![0.0; self.f32(0, 0)?.len()];
        let queries = self.shares[0].len();
        for part in 0..self.count() {
            let values = self.f32(part, 0)?;
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
                let keys = self.keys[part].len();
                let values = self.f32(part, 0)?;
                let values = &values[row * keys..(row + 1) * keys];
                all.extend(values.iter().map(|x| (f64::from(*x) * factor(part, row)) as f32));
            }
        }
        Ok(vec![Values::F32(all)])
    }
}

/// Merges attention over parts of the keys into that over all: the output, and every readout of `read`, with
/// which all parts were computed.
///
/// Parts come in the order of their keys and have the same queries; `sinks [heads]` belong to none of them, and are
/// counted here.
///
/// ```
/// use glasshead_attention::{Attention, Causal, Part, Read, TensorView, merge, shares};
/// let numbers = [0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6];
/// let all = TensorView::contiguous(&numbers, [1, 1, 6, 1])?;
/// let read = Read::new().entropy().received();
/// let whole = Attention::new(all, all, all).causal(Causal::BottomRight).read(read.clone());
///
/// let keys = [0..4, 4..6];
/// let part = |n: usize| {
///     let own = TensorView::contiguous(&numbers[keys[n].clone()], [1, 1, keys[n].len(), 1])?;
///     let request = Attention::new(all, own, own).causal(Causal::BottomRight).read(read.clone());
///     Ok::<_, glasshead_attention::AttentionError>(request.part(keys[n].start, 6))
/// };
/// let seen = [part(0)?.run()?, part(1)?.run()?];
/// // What adds up queries takes a second pass: only now is it known how much of each belongs to a part.
/// let share = shares(&[&seen[0], &seen[1]], None)?;
/// let summed = [part(0)?.shares(&share[0]).run()?, part(1)?.shares(&share[1]).run()?];
/// let parts = [0, 1].map(|n| Part { attended: &seen[n], summed: &summed[n].readouts, keys: keys[n].clone() });
/// let (merged, whole) = (merge(&read, &parts, None)?, whole.run()?);
/// for (a, b) in merged.out.iter().zip(&whole.out) {
///     assert!((a - b).abs() < 1e-6);
/// }
/// assert_eq!(merged.readouts[1].name, "received");
/// # Ok::<(), glasshead_attention::AttentionError>(())
/// ```
///
/// # Errors
/// No parts, parts that do not follow one another, shapes that differ, or a readout that was not read out of every
/// part or cannot be merged.
pub fn merge<T: Element>(
    read: &Read,
    parts: &[Part<T>],
    sinks: Option<&[f32]>,
) -> Result<Attended<T>, AttentionError> {
    let attended: Vec<_> = parts.iter().map(|part| part.attended).collect();
    let Weighed { total, shares } = weigh(&attended, sinks)?;
    let keys: Vec<_> = parts.iter().map(|part| part.keys.clone()).collect();
    let starts = [0].into_iter().chain(keys.iter().map(|keys| keys.end));
    let is_next = |keys: &Range<usize>, start| keys.start == start && keys.end >= start;
    if let Some((found, start)) = keys.iter().zip(starts).find(|(keys, start)| !is_next(keys, *start)) {
        let problem = format!("are the keys of a part that should start at {start}");
        return Err(AttentionError::value("merge", format!("{found:?}"), problem));
    }
    let first = attended[0];
    let shape @ [batch, heads, queries, value_dim] = first.shape;
    let mut out = vec![0.0; first.out.len()];
    for (part, shares) in attended.iter().zip(&shares) {
        let values = part.out.chunks(value_dim.max(1));
        for ((sums, values), share) in out.chunks_mut(value_dim.max(1)).zip(values).zip(shares) {
            // A part that a query sees nothing of is 0, and its share too.
            sums.iter_mut().zip(values).for_each(|(sum, x)| *sum += share * x.to_f64());
        }
    }

    let all = Shape { batch, heads, queries, keys: keys.last().map_or(0, |keys| keys.end) };
    read.check(&all)?;
    let mut readouts = Vec::new();
    // How many arrays of the first pass and of the second are done.
    let mut done = [0, 0];
    for item in read.items() {
        let wrong = |problem| AttentionError::Readout { item: format!("{item:?}"), problem };
        let at = &mut done[usize::from(item.adds_up_queries())];
        let arrays = arrays_of(item.as_ref(), &all, parts, *at).map_err(wrong)?;
        *at += arrays[0].len();
        let own = Parts { arrays: arrays.clone(), keys: &keys, shares: &shares, queries };
        let values = item.merge(&own, &total).map_err(wrong)?;
        for (array, values) in item.arrays(&all).into_iter().zip(values) {
            let shape = [batch, heads].into_iter().chain(array.shape).collect();
            readouts.push(Array { name: array.name, shape, values });
        }
    }
    if let Some(sinks) = sinks {
        let weight = |(n, total): (usize, &f64)| match *total == f64::NEG_INFINITY {
            true => 0.0,
            false => (f64::from(sinks[n / queries % heads]) - total).exp() as f32,
        };
        let values = Values::F32(total.iter().enumerate().map(weight).collect());
        readouts.push(Array { name: "sink_weight", shape: vec![batch, heads, queries], values });
    }
    Ok(Attended { out: out.into_iter().map(T::from_f64).collect(), shape, readouts })
}

/// Of each part the arrays of a readout, which are those from `at` on of its pass.
fn arrays_of<'a, T>(
    item: &dyn Readout,
    all: &Shape,
    parts: &[Part<'a, T>],
    at: usize,
) -> Result<Vec<&'a [Array]>, String> {
    let pass = match item.adds_up_queries() {
        true => " in a second pass with its shares",
        false => "",
    };
    let of_part = |(part, Part { attended, summed, keys }): (usize, &Part<'a, T>)| {
        let asked = item.of_part(keys, None);
        let expected = asked.as_deref().unwrap_or(item).arrays(&Shape { keys: keys.len(), ..*all });
        let there = if item.adds_up_queries() { *summed } else { &attended.readouts[..] };
        let Some(there) = there.get(at..at + expected.len()) else {
            return Err(format!("was not read out of part {part}{pass}"));
        };
        for (array, expected) in there.iter().zip(expected) {
            let shape = [all.batch, all.heads].into_iter().chain(expected.shape).collect::<Vec<_>>();
            let len = match &array.values {
                Values::F32(values) => values.len(),
                Values::I64(values) => values.len(),
            };
            if array.name != expected.name {
                return Err(format!("was not read out of part {part}{pass}"));
            }
            if array.shape != shape || len != shape.iter().product() {
                return Err(format!("has the shape {:?} in part {part}, not {shape:?}", array.shape));
            }
        }
        Ok(there)
    };
    parts.iter().enumerate().map(of_part).collect()
}

/// The share e^(lseₚ − lse) that each part has of every query's weight, `[batch, heads, queries]`: what a second pass
/// over the parts is to be asked with, see [`merge`].
///
/// # Errors
/// No parts, shapes that differ, or a part without `lse`.
pub fn shares<T: Element>(
    parts: &[&Attended<T>],
    sinks: Option<&[f32]>,
) -> Result<Vec<Vec<f32>>, AttentionError> {
    let Weighed { shares, .. } = weigh(parts, sinks)?;
    Ok(shares.into_iter().map(|shares| shares.into_iter().map(|share| share as f32).collect()).collect())
}

/// How much each part counts.
struct Weighed {
    /// `lse` over all keys, `[batch, heads, queries]`; −∞ where nothing is visible.
    total: Vec<f64>,
    /// Per part wₚ, `[batch, heads, queries]`.
    shares: Vec<Vec<f64>>,
}

fn weigh<T: Element>(parts: &[&Attended<T>], sinks: Option<&[f32]>) -> Result<Weighed, AttentionError> {
    let Some(first) = parts.first() else {
        return Err(AttentionError::value("merge", 0, "parts: there must be at least one"));
    };
    let [batch, heads, queries, _] = first.shape;
    if let Some(sinks) = sinks.filter(|sinks| sinks.len() != heads) {
        return Err(AttentionError::shape("sinks", &[sinks.len()], format!("[heads] = [{heads}]")));
    }
    let mut lses = Vec::new();
    for part in parts {
        if part.shape != first.shape || part.out.len() != first.out.len() {
            let expected = format!("{:?}, as in the first part", first.shape);
            return Err(AttentionError::shape("out", &part.shape, expected));
        }
        match part.readout("lse").and_then(Array::f32) {
            Some(lse) if lse.len() == batch * heads * queries => lses.push(lse),
            _ => {
                let problem = "is missing in a part; every part is merged by it".into();
                return Err(AttentionError::Readout { item: "lse".into(), problem });
            }
        }
    }
    let total = |n: usize| {
        let own = lses.iter().map(|lse| f64::from(lse[n]));
        let seen = own.clone().fold(f64::NEG_INFINITY, f64::max);
        if seen == f64::NEG_INFINITY && !own.clone().any(f64::is_nan) {
            // A sink takes nothing where there is nothing to see.
            return seen;
        }
        let terms = own.chain(sinks.map(|sinks| f64::from(sinks[n / queries % heads])));
        let max = terms.clone().fold(f64::NEG_INFINITY, f64::max);
        max + terms.map(|lse| (lse - max).exp()).sum::<f64>().ln()
    };
    let total: Vec<f64> = (0..batch * heads * queries).map(total).collect();
    let share = |(lse, total): (&f32, &f64)| match *total == f64::NEG_INFINITY {
        true => 0.0,
        false => (f64::from(*lse) - total).exp(),
    };
    let shares = lses.iter().map(|lse| lse.iter().zip(&total).map(share).collect()).collect();
    Ok(Weighed { total, shares })
}
