//! `top_index`, `top_weight [batch, heads, queries, K]`: the K heaviest keys of every query.

use std::{cmp::Ordering, sync::Arc};

use super::{
    Argument, Array, AtWork, Block, Fuse, Fused, Head, Read, Readout, Shape, Tile, Values, one_number,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

/// Up to here f32 counts keys exactly.
const MOST_KEYS: usize = 1 << 24;

/// More than the keys may be asked for (the rest is filled up), but not without end.
const SPARE: usize = 1024;

#[derive(Debug)]
struct TopK(usize);

impl Read {
    /// `top_index` and `top_weight`: the `k` heaviest keys of every query, descending, ties to the lower
    /// key; index −1 and weight 0 fill up where fewer keys are visible.
    pub fn top_k(self, k: usize) -> Self {
        self.with(TopK(k))
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    Ok(Arc::new(TopK(one_number(argument, 8, "number of keys")?)))
}

impl Readout for TopK {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![
            Array::of_i64("top_index", [shape.queries, self.0]),
            Array::of_f32("top_weight", [shape.queries, self.0]),
        ]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        if self.0 == 0 || self.0 > shape.keys.saturating_add(SPARE) {
            return Err(format!("asks for the top {} of {} keys", self.0, shape.keys));
        }
        Ok(())
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(self.head())
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        (shape.keys <= MOST_KEYS).then(|| Fused(AtWork::TopK(self.head())))
    }
}

impl TopK {
    fn head(&self) -> TopKHead {
        TopKHead { k: self.0, order: Vec::new(), index: Vec::new(), weight: Vec::new() }
    }
}

pub(crate) struct TopKHead {
    k: usize,
    order: Vec<usize>,
    /// `[queries seen so far, K]`
    index: Vec<i64>,
    weight: Vec<f32>,
}

impl Head for TopKHead {
    fn see(&mut self, row: &Row) {
        // Scores order the keys even where their weights have all become 0.
        let heavier = |a: &usize, b: &usize| -> Ordering {
            row.scores[*b].partial_cmp(&row.scores[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        self.order.clear();
        self.order.extend(0..row.keys.len());
        if !row.lse.is_nan() {
            if self.k < self.order.len() {
                self.order.select_nth_unstable_by(self.k - 1, heavier);
                self.order.truncate(self.k);
            }
            self.order.sort_unstable_by(heavier);
        }
        for at in 0..self.k {
            let key = self.order.get(at);
            self.index.push(key.map_or(-1, |&at| row.keys[at] as i64));
            self.weight.push(key.map_or(0.0, |&at| row.weights[at] as f32));
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::I64(self.index), Values::F32(self.weight)]
    }
}

/// The room holds the best scores so far, `[K, queries]`, and after them their keys.
impl Fuse for TopKHead {
    fn room(&self) -> usize {
        2 * self.k
    }

    fn start_tile<S: Simd>(&self, _: S, room: &mut [S::N]) {
        let (scores, keys) = room.split_at_mut(room.len() / 2);
        scores.fill(S::N::from_f64(f64::NEG_INFINITY));
        keys.fill(S::N::from_f64(-1.0));
    }

    #[inline(always)]
    fn see_block<S: Simd>(&mut self, simd: S, block: &Block<S>, room: &mut [S::N]) {
        let width = COLUMNS * S::LANES;
        let (scores, keys) = room.split_at_mut(room.len() / 2);
        for c in 0..COLUMNS {
            let (scores, keys) = (&mut scores[c * S::LANES..], &mut keys[c * S::LANES..]);
            let last = (self.k - 1) * width;
            let mut least = simd.load(&scores[last..]);
            // Late in a row, most blocks hold nothing new.
            if !simd.any_less(least, block.max[c]) {
                continue;
            }
            for (at, row) in block.scores.chunks_exact(width).enumerate() {
                let score = simd.load(&row[c * S::LANES..]);
                if simd.any_less(least, score) {
                    let key = simd.constant((block.keys.start + at) as f64);
                    insert(simd, score, key, scores, keys, last + S::LANES);
                    least = simd.load(&scores[last..]);
                }
            }
        }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
        let half = room.len() / 2;
        for scores in room[..half].chunks_exact_mut(COLUMNS * S::LANES) {
            for (c, scores) in scores.chunks_exact_mut(S::LANES).enumerate() {
                simd.store(tile.weight(simd, c, simd.load(scores)), scores);
            }
        }
    }

    fn lane<S: Simd>(&mut self, _: &Tile<S>, lane: usize, room: &[S::N]) {
        let (weights, keys) = room.split_at(room.len() / 2);
        let width = COLUMNS * S::LANES;
        self.index.extend(keys.iter().skip(lane).step_by(width).map(|key| key.to_f64() as i64));
        self.weight.extend(weights.iter().skip(lane).step_by(width).map(|weight| weight.to_f64() as f32));
    }

    fn absorb(&mut self, later: Self) {
        self.index.extend(later.index);
        self.weight.extend(later.weight);
    }
}

/// Puts a key into the descending lists of all lanes where its score is larger; an equal one stays below.
#[inline(always)]
fn insert<S: Simd>(
    simd: S,
    mut score: S::F,
    mut key: S::F,
    scores: &mut [S::N],
    keys: &mut [S::N],
    end: usize,
) {
    for at in (0..end).step_by(COLUMNS * S::LANES) {
        let (old_score, old_key) = (simd.load(&scores[at..]), simd.load(&keys[at..]));
        simd.store(simd.select_less(old_score, score, score, old_score), &mut scores[at..]);
        simd.store(simd.select_less(old_score, score, key, old_key), &mut keys[at..]);
        key = simd.select_less(old_score, score, old_key, key);
        score = simd.select_less(old_score, score, old_score, score);
    }
}
