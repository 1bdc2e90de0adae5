//! `top_index`, `top_weight [batch, heads, queries, K]`: the K heaviest keys of every query.

use std::{cmp::Ordering, ops::Range, sync::Arc};

use super::{
    Argument, Array, AtWork, Block, Column, Fuse, Fused, Head, Needs, Parts, Read, Readout, Shape, Slots,
    Tile, Values, one_number,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

/// Up to so many places are kept in registers while a block is looked through.
const IN_REGISTERS: usize = 8;
/// Keys that are looked through at a time: a bit of a word each.
const CANDIDATES: usize = u64::BITS as usize;
/// Of keys, see [`floor`]: the more, the fewer keys it leaves beside the heaviest.
const GROUPS: usize = 4 * IN_REGISTERS;
/// In the place of the index of a key: none.
const NONE: usize = u32::MAX as usize;

/// More than the keys may be asked for (the rest is filled up), but not without end.
const SPARE: usize = 1024;

#[derive(Debug)]
struct TopK {
    k: usize,
    by_value: bool,
}

impl Read {
    /// `top_index` and `top_weight`: the `k` heaviest keys of every query, descending, ties to the lower
    /// key; index −1 and weight 0 fill up where fewer keys are visible.
    pub fn top_k(self, k: usize) -> Self {
        self.with(TopK { k, by_value: false })
    }

    /// `top_index_by_value` and `top_weight_by_value`: the `k` keys that give most, by weight times the length
    /// ‖v‖ of the value (Kobayashi et al. 2020), otherwise as `top_k`.
    pub fn top_k_by_value(self, k: usize) -> Self {
        self.with(TopK { k, by_value: true })
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    Ok(Arc::new(TopK { k: one_number(argument, 8, "number of keys")?, by_value: false }))
}

impl Readout for TopK {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        let [index, weight] = match self.by_value {
            false => ["top_index", "top_weight"],
            true => ["top_index_by_value", "top_weight_by_value"],
        };
        let axes = [shape.queries, self.k];
        vec![Array::of_i64(index, axes), Array::of_f32(weight, axes)]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        if self.k == 0 || self.k > shape.keys.saturating_add(SPARE) {
            let most = format!("from 1 to {SPARE} more than there are");
            return Err(format!("asks for the top {} of {} keys, and can have {most}", self.k, shape.keys));
        }
        Ok(())
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(self.head())
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        let len = parts.f32(0, 1)?.len();
        let (mut index, mut weight) = (Vec::with_capacity(len), Vec::with_capacity(len));
        let mut all: Vec<(i64, f32)> = Vec::new();
        for n in 0..len / self.k {
            all.clear();
            for part in 0..parts.count() {
                let own = n * self.k..(n + 1) * self.k;
                let (keys, weights) = (&parts.i64(part, 0)?[own.clone()], &parts.f32(part, 1)?[own]);
                let (share, first) = (parts.share(part, n), parts.keys_of(part).start as i64);
                let seen = keys.iter().zip(weights).filter(|(key, _)| **key >= 0);
                all.extend(seen.map(|(key, weight)| (key + first, (share * f64::from(*weight)) as f32)));
            }
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.resize(self.k.max(all.len()), (-1, 0.0));
            index.extend(all[..self.k].iter().map(|(key, _)| *key));
            weight.extend(all[..self.k].iter().map(|(_, weight)| *weight));
        }
        Ok(vec![Values::I64(index), Values::F32(weight)])
    }

    fn fuse(&self, shape: &Shape) -> Option<Fused> {
        (shape.keys <= NONE).then(|| Fused(AtWork::TopK(self.head())))
    }
}

impl TopK {
    fn head(&self) -> TopKHead<'static> {
        TopKHead {
            k: self.k,
            by_value: self.by_value,
            adjusted: Vec::new(),
            order: Vec::new(),
            index: Column::new(),
            weight: Column::new(),
        }
    }
}

pub(crate) struct TopKHead<'a> {
    k: usize,
    by_value: bool,
    /// Scores by which keys are ordered.
    adjusted: Vec<f64>,
    order: Vec<usize>,
    /// `[queries seen so far, K]`
    index: Column<'a, i64>,
    weight: Column<'a, f32>,
}

impl Head for TopKHead<'_> {
    fn see(&mut self, row: &Row) {
        // Scores order the keys even where their weights have all become 0.
        self.adjusted.clear();
        self.adjusted.extend_from_slice(&row.scores);
        if self.by_value {
            self.adjusted.iter_mut().zip(&row.value_norms).for_each(|(score, norm)| *score += norm.ln());
        }
        let scores = &self.adjusted;
        let heavier = |a: &usize, b: &usize| -> Ordering {
            scores[*b].partial_cmp(&scores[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        let counts = |score: f64| !self.by_value || score > f64::NEG_INFINITY;
        let sorted = !row.lse.is_nan();
        // Keys ascend, so that what is no heavier than the last of the k heaviest so far is not among them.
        let many = self.k.saturating_mul(2).max(CANDIDATES);
        let mut least = None;
        self.order.clear();
        for (at, &score) in scores.iter().enumerate() {
            if least.is_some_and(|least| score <= least) || !counts(score) {
                continue;
            }
            self.order.push(at);
            if sorted && self.order.len() == many {
                self.order.select_nth_unstable_by(self.k - 1, heavier);
                self.order.truncate(self.k);
                least = Some(scores[self.order[self.k - 1]]);
            }
        }
        if sorted {
            self.order.sort_unstable_by(heavier);
        }
        for at in 0..self.k {
            let key = self.order.get(at);
            let norm = |at: usize| if self.by_value { row.value_norms[at] } else { 1.0 };
            self.index.push(key.map_or(-1, |&at| row.keys[at] as i64));
            self.weight.push(key.map_or(0.0, |&at| (row.weights[at] * norm(at)) as f32));
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::I64(self.index.into_list()), Values::F32(self.weight.into_list())]
    }
}

/// The room holds the best scores so far, `[places, queries]`, and after them their keys, as the bits of numbers.
impl<'a> Fuse<'a> for TopKHead<'a> {
    fn needs(&self) -> Needs {
        Needs { value_norms: self.by_value, ..Needs::default() }
    }

    fn room(&self) -> usize {
        2 * self.k.max(IN_REGISTERS)
    }

    fn start_tile<S: Simd>(&self, _: S, room: &mut [S::N]) {
        let (scores, keys) = room.split_at_mut(room.len() / 2);
        scores.fill(S::N::from_f64(f64::NEG_INFINITY));
        keys.fill(S::N::from_index(NONE));
    }

    #[inline(always)]
    fn see_block<S: Simd>(&mut self, simd: S, block: &Block<S>, room: &mut [S::N]) {
        let (scores, keys) = room.split_at_mut(room.len() / 2);
        let last = (self.k.max(IN_REGISTERS) - 1) * COLUMNS * S::LANES;
        for c in 0..COLUMNS {
            let (scores, keys) = (&mut scores[c * S::LANES..], &mut keys[c * S::LANES..]);
            if self.by_value {
                match self.k <= IN_REGISTERS {
                    true => see_column::<S, true>(simd, block, c, scores, keys),
                    false => see_long_column::<S, true>(simd, block, c, last, scores, keys),
                }
                continue;
            }
            // Late in a row, most blocks hold nothing new.
            if !simd.any_less(simd.load(&scores[last..]), block.max[c]) {
                continue;
            }
            if self.k <= IN_REGISTERS {
                see_column::<S, false>(simd, block, c, scores, keys);
            } else {
                see_long_column::<S, false>(simd, block, c, last, scores, keys);
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

    fn see_lanes<S: Simd>(&mut self, _: &Tile<S>, lanes: Range<usize>, room: &[S::N]) {
        let width = COLUMNS * S::LANES;
        let (weights, keys) = room.split_at(room.len() / 2);
        let own = ..self.k * width;
        self.index.extend_lanes(&keys[own], width, lanes.clone(), |key| match key.to_index() {
            NONE => -1,
            key => key as i64,
        });
        self.weight.extend_lanes(&weights[own], width, lanes, |weight| weight.to_f64() as f32);
    }

    fn by_query(&self) -> bool {
        true
    }

    fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        self.index.fill(slots);
        self.weight.fill(slots);
    }
}

/// What the score of a key rises by for weight · ‖v‖ to be in its order.
fn shift<S: Simd>(block: &Block<S>, at: usize) -> S::N {
    let exponent = f64::from(block.value_norms[block.keys.start + at]).log2();
    S::N::from_f64(exponent / block.unit.to_f64())
}

/// Looks for better keys of the queries of one column. An equal score stays below those of lower keys.
#[inline(always)]
fn see_column<S: Simd, const BY_VALUE: bool>(
    simd: S,
    block: &Block<S>,
    c: usize,
    scores: &mut [S::N],
    keys: &mut [S::N],
) {
    let width = COLUMNS * S::LANES;
    let lowest = simd.constant(f64::NEG_INFINITY);
    let mut best = [(lowest, lowest); IN_REGISTERS];
    for (place, best) in best.iter_mut().enumerate() {
        *best = (simd.load(&scores[place * width..]), simd.load(&keys[place * width..]));
    }
    let last = best[IN_REGISTERS - 1].0;
    let full = !simd.any_less(last, simd.constant(f64::from(f32::MIN)));
    let floor = if BY_VALUE || full { lowest } else { floor(simd, block, c) };
    for (part, rows) in block.scores.chunks(CANDIDATES * width).enumerate() {
        // Which keys are better is a guess that a processor makes wrongly: they are listed without a branch.
        let least = simd.max(best[IN_REGISTERS - 1].0, floor);
        let mut shifts = [S::N::default(); CANDIDATES];
        if BY_VALUE {
            for (at, to) in shifts.iter_mut().enumerate().take(rows.len() / width) {
                *to = shift(block, part * CANDIDATES + at);
            }
        }
        let mut better = 0u64;
        for (at, row) in rows.chunks_exact(width).enumerate().rev() {
            let mut score = simd.load(&row[c * S::LANES..]);
            if BY_VALUE {
                score = simd.add(score, simd.splat(shifts[at]));
            }
            better = better << 1 | u64::from(simd.any_less(least, score));
        }
        let next = |better: &mut u64| {
            let at = better.trailing_zeros() as usize;
            *better &= *better - 1;
            let mut score = simd.load(&rows[at * width + c * S::LANES..]);
            if BY_VALUE {
                score = simd.add(score, simd.splat(shifts[at]));
            }
            (score, simd.splat(S::N::from_index(block.keys.start + part * CANDIDATES + at)))
        };
        while better != 0 {
            let (mut score, mut key) = next(&mut better);
            // Most keys are better in one lane or two: two that are in different ones go in together.
            if better != 0 {
                let mut left = better;
                let (other, its_key) = next(&mut left);
                if !simd.any_less(best[IN_REGISTERS - 1].0, simd.min(score, other)) {
                    key = simd.select_less(score, other, its_key, key);
                    score = simd.max(other, score);
                    better = left;
                }
            }
            // Every place keeps what it holds, takes the new one, or what stood before it; none waits for another.
            for place in (1..IN_REGISTERS).rev() {
                let (old, before) = (best[place], best[place - 1]);
                let key = simd.select_less(before.0, score, before.1, key);
                best[place] =
                    (simd.max(simd.min(score, before.0), old.0), simd.select_less(old.0, score, key, old.1));
            }
            let old = best[0];
            best[0] = (simd.max(score, old.0), simd.select_less(old.0, score, key, old.1));
        }
    }
    for (place, best) in best.iter().enumerate() {
        simd.store(best.0, &mut scores[place * width..]);
        simd.store(best.1, &mut keys[place * width..]);
    }
}

/// What none of the heaviest keys of a block lies below or at: a little less than the last of the largest maxima of as many
/// groups of keys. Without it nearly every key of a first block would be better than what is there.
#[inline(always)]
fn floor<S: Simd>(simd: S, block: &Block<S>, c: usize) -> S::F {
    let width = COLUMNS * S::LANES;
    let lowest = simd.constant(f64::NEG_INFINITY);
    let group = block.scores.len() / width / GROUPS;
    if group < 2 {
        return lowest;
    }
    let mut largest = [lowest; IN_REGISTERS];
    for rows in block.scores.chunks_exact(group * width).take(GROUPS) {
        let mut max = lowest;
        for row in rows.chunks_exact(width) {
            max = simd.max(max, simd.load(&row[c * S::LANES..]));
        }
        for place in (1..IN_REGISTERS).rev() {
            largest[place] = simd.max(simd.min(max, largest[place - 1]), largest[place]);
        }
        largest[0] = simd.max(max, largest[0]);
    }
    let last = largest[IN_REGISTERS - 1];
    let size = simd.max(last, simd.sub(simd.constant(0.0), last));
    simd.sub(last, simd.mul_add(size, simd.constant(1e-6), simd.constant(1e-30)))
}

/// As [`see_column`], for lists that the registers do not hold and that end at `last`.
#[inline(always)]
fn see_long_column<S: Simd, const BY_VALUE: bool>(
    simd: S,
    block: &Block<S>,
    c: usize,
    last: usize,
    scores: &mut [S::N],
    keys: &mut [S::N],
) {
    let width = COLUMNS * S::LANES;
    for (at, row) in block.scores.chunks_exact(width).enumerate() {
        let mut score = simd.load(&row[c * S::LANES..]);
        if BY_VALUE {
            score = simd.add(score, simd.splat(shift(block, at)));
        }
        if !simd.any_less(simd.load(&scores[last..]), score) {
            continue;
        }
        let new = score;
        let mut key = simd.splat(S::N::from_index(block.keys.start + at));
        // From the first place below the new one on, every place takes what stood before it, equals in their order.
        for at in (0..=last).step_by(width) {
            let (old_score, old_key) = (simd.load(&scores[at..]), simd.load(&keys[at..]));
            simd.store(simd.select_less(old_score, new, score, old_score), &mut scores[at..]);
            simd.store(simd.select_less(old_score, new, key, old_key), &mut keys[at..]);
            key = simd.select_less(old_score, new, old_key, key);
            score = simd.select_less(old_score, new, old_score, score);
        }
    }
}
