//! `received [batch, heads, keys]`: the column sums, how much weight each key gets from all queries; also with a
//! weight per query (`received_weighted`) and counted by the lengths of the values (`received_by_value`).

use std::{ops::Range, sync::Arc};

use super::{
    Argument, Array, AtWork, Fuse, Fused, Head, Needs, Parts, Read, Readout, Shape, Values, Weights,
    nothing_after, query_weights::QueryWeights,
};
use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    reference::Row,
};

#[derive(Clone, Debug)]
struct Received {
    name: &'static str,
    weights: QueryWeights,
    by_value: bool,
}

fn plain() -> Received {
    Received { name: "received", weights: QueryWeights::default(), by_value: false }
}

impl Read {
    /// `received`: the sum over all queries of the weight on each key.
    pub fn received(self) -> Self {
        self.with(plain())
    }

    /// `received_weighted`: Σ wᵢ · pᵢⱼ over all queries i, for a weight `w [queries]` per query, the same for all
    /// heads or `[batch, heads, queries]`. A vector of weights on the tokens of a layer becomes that of the layer
    /// below: one step of attention rollout (Abnar and Zuidema 2020), without its matrices.
    pub fn received_weighted(self, weights: &[f32]) -> Self {
        self.with(Received { name: "received_weighted", weights: QueryWeights::new(weights), ..plain() })
    }

    /// `received_by_value`: Σ pᵢⱼ · ‖vⱼ‖ over all queries i (Kobayashi et al. 2020): a key with much weight and
    /// a small value gives little.
    pub fn received_by_value(self) -> Self {
        self.with(Received { name: "received_by_value", by_value: true, ..plain() })
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    nothing_after(argument)?;
    Ok(Arc::new(plain()))
}

impl Readout for Received {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32(self.name, [shape.keys])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        self.weights.check(shape)
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        Box::new(self.head(shape))
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        parts.side_by_side(|_, _| 1.0)
    }

    fn adds_up_queries(&self) -> bool {
        true
    }

    fn of_part(&self, _: &Range<usize>, shares: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        let weights = self.weights.times(shares?);
        Some(Arc::new(Self { weights, ..self.clone() }))
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Received(self.head(shape))))
    }
}

impl Received {
    fn head(&self, shape: &Shape) -> ReceivedHead {
        ReceivedHead { of: self.clone(), shape: *shape, first: 0, sums: Vec::new() }
    }
}

pub(crate) struct ReceivedHead {
    of: Received,
    shape: Shape,
    /// The first key that was seen.
    first: usize,
    /// Of the keys from there to the last that was seen: a task of a packed sequence holds its own keys alone.
    sums: Vec<f64>,
}

impl ReceivedHead {
    /// The sums of these keys.
    fn sums(&mut self, keys: Range<usize>) -> &mut [f64] {
        if self.sums.is_empty() {
            self.first = keys.start;
        }
        if keys.start < self.first {
            self.sums.splice(0..0, std::iter::repeat_n(0.0, self.first - keys.start));
            self.first = keys.start;
        }
        let own = keys.start - self.first..keys.end - self.first;
        if self.sums.len() < own.end {
            self.sums.resize(own.end, 0.0);
        }
        &mut self.sums[own]
    }
}

impl Head for ReceivedHead {
    fn see(&mut self, row: &Row) {
        let factor = self.of.weights.of_one(&self.shape, [row.batch, row.head], row.query);
        let (Some(&first), Some(&last), by_value) = (row.keys.first(), row.keys.last(), self.of.by_value)
        else {
            return;
        };
        let sums = self.sums(first..last + 1);
        for (at, (&key, weight)) in row.keys.iter().zip(&row.weights).enumerate() {
            let norm = if by_value { row.value_norms[at] } else { 1.0 };
            sums[key - first] += weight * factor * norm;
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        let mut all = vec![0.0; self.shape.keys];
        all[self.first..][..self.sums.len()]
            .iter_mut()
            .zip(self.sums)
            .for_each(|(all, sum)| *all = sum as f32);
        vec![Values::F32(all)]
    }
}

impl Fuse<'_> for ReceivedHead {
    fn needs(&self) -> Needs {
        Needs { weights: true, value_norms: self.of.by_value, ..Needs::default() }
    }

    #[inline(always)]
    fn see_weights<S: Simd>(&mut self, simd: S, weights: &Weights<S>) {
        let Weights { head, ref queries, ref keys, numbers, mut factors, value_norms } = *weights;
        if let Some(weights) = self.of.weights.of(&self.shape, head, queries.clone()) {
            let mut of_query = [S::N::from_f64(1.0); COLUMNS * MAX_LANES];
            for (to, weight) in of_query.iter_mut().zip(weights) {
                *to = S::N::from_f64(f64::from(*weight));
            }
            for (factor, of_query) in factors.iter_mut().zip(of_query.chunks_exact(S::LANES)) {
                *factor = simd.mul(*factor, simd.load(of_query));
            }
        }
        let by_value = self.of.by_value;
        let sums = self.sums(keys.clone());
        match by_value {
            true => add_columns::<S, true>(simd, numbers, factors, &value_norms[keys.clone()], sums),
            false => add_columns::<S, false>(simd, numbers, factors, &[], sums),
        }
    }

    fn absorb(&mut self, later: Self) {
        if later.sums.is_empty() {
            return;
        }
        let own = self.sums(later.first..later.first + later.sums.len());
        own.iter_mut().zip(later.sums).for_each(|(sum, later)| *sum += later);
    }
}

/// Adds the weights `rows [keys, queries]` times the factors of the queries to the sums of the keys; `norms` are those of
/// their values.
#[inline(always)]
fn add_columns<S: Simd, const BY_VALUE: bool>(
    simd: S,
    rows: &[S::N],
    factors: [S::F; COLUMNS],
    norms: &[f32],
    sums: &mut [f64],
) {
    let (width, zero) = (COLUMNS * S::LANES, simd.constant(0.0));
    let both = |row: &[S::N]| {
        let left = simd.mul(simd.load(row), factors[0]);
        simd.mul_add(simd.load(&row[S::LANES..]), factors[1], left)
    };
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let (rows, last) = rows.split_at(fours.len() * 4 * width);
    for (n, (sums, rows)) in fours.iter_mut().zip(rows.chunks_exact(4 * width)).enumerate() {
        let four = [both(rows), both(&rows[width..]), both(&rows[2 * width..]), both(&rows[3 * width..])];
        let mut more = simd.sums(four).map(S::N::to_f64);
        if BY_VALUE {
            for (more, norm) in more.iter_mut().zip(&norms[4 * n..]) {
                *more = by_value(*more, *norm);
            }
        }
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum += more;
        }
    }
    for (n, (sum, row)) in rest.iter_mut().zip(last.chunks_exact(width)).enumerate() {
        let [more, ..] = simd.sums([both(row), zero, zero, zero]).map(S::N::to_f64);
        *sum += if BY_VALUE { by_value(more, norms[4 * fours.len() + n]) } else { more };
    }
}

/// 0 · NaN of a hidden value must not get in: what nobody looks at has received nothing.
fn by_value(weight: f64, norm: f32) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * f64::from(norm) }
}
