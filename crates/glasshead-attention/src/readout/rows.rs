//! `rows [batch, heads, R, keys]`: the whole rows of chosen queries; `rows_by_value` times the lengths of the values.

use std::sync::Arc;

use super::{
    Argument, Array, AtWork, Block, Fuse, Fused, Head, Needs, Parts, Read, Readout, Shape, Tile, Values,
    numbers,
};
use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    reference::Row,
};

#[derive(Clone)]
struct Rows {
    queries: Vec<usize>,
    by_value: bool,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?})", if self.by_value { "RowsByValue" } else { "Rows" }, self.queries)
    }
}

impl Read {
    /// `rows`: all weights of these queries, in the order given; hidden keys have weight 0.
    pub fn rows(self, queries: &[usize]) -> Self {
        self.with(Rows { queries: queries.to_vec(), by_value: false })
    }

    /// `rows_by_value`: as `rows`, every weight times the length ‖v‖ of its value (Kobayashi et al. 2020).
    pub fn rows_by_value(self, queries: &[usize]) -> Self {
        self.with(Rows { queries: queries.to_vec(), by_value: true })
    }
}

pub(super) fn parse(argument: Argument, shape: &Shape) -> Result<Arc<dyn Readout>, String> {
    let last = || shape.queries.checked_sub(1).into_iter().collect();
    Ok(Arc::new(Rows { queries: numbers(argument, last, "row")?, by_value: false }))
}

impl Readout for Rows {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        let name = if self.by_value { "rows_by_value" } else { "rows" };
        vec![Array::of_f32(name, [self.queries.len(), shape.keys])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        match self.queries.iter().find(|&&query| query >= shape.queries) {
            Some(query) => Err(format!(
                "asks for row {query}, but rows are counted from 0 and there are {}",
                shape.queries
            )),
            None => Ok(()),
        }
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        Box::new(self.head(shape))
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        let count = self.queries.len();
        parts.side_by_side(|part, row| parts.share_of(part, row / count, self.queries[row % count]))
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Rows(self.head(shape))))
    }
}

impl Rows {
    fn head(&self, shape: &Shape) -> RowsHead {
        let scores = vec![Vec::new(); self.queries.len()];
        RowsHead { of: self.clone(), keys: shape.keys, weights: Vec::new(), scores }
    }
}

pub(crate) struct RowsHead {
    of: Rows,
    keys: usize,
    /// `[R, keys]`, or nothing as long as none of the queries has come.
    weights: Vec<f32>,
    /// `[R]`: the scores of a query whose tile is not finished, from the first key of the tile on.
    scores: Vec<Vec<f64>>,
}

impl RowsHead {
    fn weights(&mut self) -> &mut [f32] {
        let len = self.of.queries.len() * self.keys;
        self.weights.resize(len, 0.0);
        &mut self.weights
    }
}

impl Head for RowsHead {
    fn see(&mut self, row: &Row) {
        for at in 0..self.of.queries.len() {
            if self.of.queries[at] == row.query {
                let (keys, by_value) = (self.keys, self.of.by_value);
                let weights = &mut self.weights()[at * keys..(at + 1) * keys];
                weights.fill(0.0);
                for (at, (&key, &weight)) in row.keys.iter().zip(&row.weights).enumerate() {
                    let norm = row.value_norms.get(at).filter(|_| by_value).unwrap_or(&1.0);
                    weights[key] = (weight * norm) as f32;
                }
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Vec<Values> {
        self.weights();
        vec![Values::F32(self.weights)]
    }
}

impl Fuse<'_> for RowsHead {
    fn needs(&self) -> Needs {
        Needs { value_norms: self.of.by_value, ..Needs::default() }
    }

    fn see_block<S: Simd>(&mut self, _: S, block: &Block<S>, _: &mut [S::N]) {
        for (query, own) in self.of.queries.iter().zip(&mut self.scores) {
            if block.queries.contains(query) {
                let rows = block.scores.chunks_exact(COLUMNS * S::LANES);
                own.extend(rows.map(|scores| scores[query - block.queries.start].to_f64()));
            }
        }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, _: &mut [S::N]) {
        let Some(first) = tile.spans.first() else { return };
        for at in 0..self.of.queries.len() {
            let query = self.of.queries[at];
            if tile.queries.contains(&query) {
                let lane = query - tile.queries.start;
                let (c, lane) = (lane / S::LANES, lane % S::LANES);
                let mut lanes = [[S::N::default(); MAX_LANES]; 2];
                simd.store(tile.top[c], &mut lanes[0]);
                simd.store(tile.share[c], &mut lanes[1]);
                let (top, share) = (simd.splat(lanes[0][lane]), simd.splat(lanes[1][lane]));
                let (keys, by_value) = (self.keys, self.of.by_value);
                let scores = std::mem::take(&mut self.scores[at]);
                let seen = first.start..first.start + scores.len();
                let weights = &mut self.weights()[at * keys..][seen.clone()];
                for (weights, scores) in weights.chunks_mut(S::LANES).zip(scores.chunks(S::LANES)) {
                    for (lane, score) in lanes[0].iter_mut().zip(scores) {
                        *lane = S::N::from_f64(*score);
                    }
                    let x = tile.weight_of(simd, simd.load(&lanes[0]), top, share);
                    simd.store(x, &mut lanes[0]);
                    for (weight, lane) in weights.iter_mut().zip(lanes[0]) {
                        *weight = lane.to_f64() as f32;
                    }
                }
                if by_value {
                    // 0 · NaN of a hidden value must not get in.
                    let norms = weights.iter_mut().zip(&tile.value_norms[seen]);
                    norms.filter(|(weight, _)| **weight != 0.0).for_each(|(weight, norm)| *weight *= norm);
                }
            }
        }
    }

    fn absorb(&mut self, later: Self) {
        if later.weights.is_empty() {
            return;
        }
        // A query has come either here or there: the rows of the other side are 0.
        for (weight, later) in self.weights().iter_mut().zip(later.weights) {
            *weight += later;
        }
    }
}
