//! The readouts of a panel while it is computed: what the fused pass keeps for them, and when they see what.

use std::ops::Range;

use super::{
    backlog::Backlog,
    prefill::TILES,
    ranges::MAX_WIDTH,
    score::{Closed, Running},
    tile::{InOrder, Moments, Sum, exponentiate, join, raise},
    workspace::{Lines, Room},
};
use crate::{
    isa::{COLUMNS, Dot, MAX_LANES, Number, Simd, Single, second_cache},
    readout::{AtWork, Block, Needs, PerLane, Tile},
    softmax::exp2,
};

/// How many numbers of weights are kept at a time, if they can be fewer.
const HELD_WEIGHTS: usize = 1 << 20;
/// A second cache of so many bytes holds the weights of a few tiles beside short k and v. Of long ones it pays to read k and
/// v more often and to keep the weights of [`QUERIES_HELD`] at a time; not where it is smaller (measured).
const LARGE_CACHE: usize = 2 << 20;
const QUERIES_HELD: usize = 128;
/// The most keys whose moments are summed up in one go: a sum of sums that grow loses a digit for each power of ten.
const IN_ONE_GO: usize = 64;
/// Tasks of all heads of a sequence where they keep numbers per key. Of one head they are few: what waits at the end of a
/// task has not been asked for. With a causal mask the largest of 4 is 7/16 of its head.
const TASKS: usize = 32;
/// The least and the most of one head.
const TASKS_OF_HEAD: [usize; 2] = [4, 8];

/// What all readouts of a run need together.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    pub(super) needs: Needs,
}

impl Plan {
    pub(super) fn new(readouts: &[AtWork]) -> Self {
        let mut needs = Needs::default();
        for readout in readouts {
            let one = readout.needs();
            needs.lanes |= one.lanes;
            needs.moments |= one.moments;
            needs.weights |= one.weights;
            needs.value_norms |= one.value_norms;
            needs.cuts.extend(one.cuts);
        }
        needs.cuts.sort_unstable();
        needs.cuts.dedup();
        Self { needs }
    }

    /// Where the sums of weights on `keys` are cut.
    pub(super) fn cuts(&self, keys: &Range<usize>) -> &[usize] {
        let place = |key: usize| self.needs.cuts.partition_point(|cut| *cut < key);
        &self.needs.cuts[place(keys.start)..place(keys.end)]
    }

    /// Tiles of so many queries per panel, where the numbers of a key and its value take `token` bytes; each panel reads all
    /// of them, or `copies` them.
    pub(super) fn tiles(&self, keys: usize, width: usize, token: usize, copies: bool) -> usize {
        if !self.needs.weights {
            return TILES;
        }
        let tile = keys.max(1) * width;
        let most = (HELD_WEIGHTS / tile).clamp(1, TILES);
        let fit = second_cache() / 4 / size_of::<f32>() / tile;
        match second_cache() {
            size if copies || size < LARGE_CACHE => most,
            size if fit > 1 && keys * token <= size / 2 => fit.min(most),
            _ => (QUERIES_HELD / width).clamp(1, most),
        }
    }

    /// Queries per task: readouts that add up queries keep numbers per key and task.
    pub(super) fn queries_of_task(&self, heads: usize, queries: usize, panel: usize) -> usize {
        if !self.needs.weights {
            return panel;
        }
        let [least, most] = TASKS_OF_HEAD;
        let tasks = (TASKS / heads).clamp(least, most);
        // A sequence may be empty.
        queries.div_ceil(tasks).max(1).next_multiple_of(panel)
    }
}

/// Readouts at work on the queries of a task, and what they need.
pub(super) struct Reading<'a, 'r> {
    pub(super) plan: &'a Plan,
    /// `[keys of the head]`, if readouts need them.
    pub(super) value_norms: &'a [f32],
    pub(super) readouts: &'a mut [AtWork<'r>],
}

/// What is kept of a tile of queries from block to block.
pub(super) struct Kept<'a, S: Simd> {
    /// Σ 2^x · x of the exponents from the running maximum, in step with its sum.
    exponents: [S::F; COLUMNS],
    /// Σ 2^x · |distance|
    distance: [S::F; COLUMNS],
    /// The exponent of the heaviest key, counted from the running maximum, which is rounded.
    heaviest: [S::F; COLUMNS],
    /// What it has visited, and the running maximum of each block, from which its exponents are counted, `[blocks, queries]`.
    blocks: &'a mut Vec<Range<usize>>,
    bases: &'a mut Vec<S::N>,
    /// See [`spans`]: keys of a block on one side of the queries; the sum of each, `[spans, queries]`.
    spans: &'a mut Vec<Range<usize>>,
    sums: &'a mut Vec<S::N>,
    /// See [`crate::readout::Fuse::room`].
    room: &'a mut [S::N],
}

/// A block of keys in a tile of queries, scored.
pub(super) struct Scored<'a, S: Simd> {
    pub(super) unit: S::N,
    pub(super) max: [S::F; COLUMNS],
    pub(super) keys: Range<usize>,
    /// Where its sums are cut; some may lie outside.
    pub(super) cuts: &'a [usize],
    pub(super) queries: Range<usize>,
    /// Whether any of its keys may be hidden from a query.
    pub(super) hides: bool,
    /// Position of the first query minus the first key.
    pub(super) distance: i64,
    pub(super) first_key: usize,
}

/// Where keys stand, seen from the queries of a tile.
#[derive(Clone, Copy)]
enum Side {
    Before,
    /// Behind some queries and before others.
    Among,
    Behind,
}

impl<S: Simd> Scored<'_, S> {
    /// Its keys before all queries, among them, behind them: whole items of so many keys.
    fn sides(&self, depth: usize) -> [(Side, Range<usize>); 3] {
        let Range { start, end } = self.keys;
        let position = |query: usize| self.distance.saturating_add((start + query) as i64);
        let items = |key: i64| key.clamp(start as i64, end as i64) as usize - start;
        let first = start + items(position(0)) / depth * depth;
        let last = end.min(start + items(position(self.queries.len())).next_multiple_of(depth));
        [(Side::Before, start..first), (Side::Among, first..last), (Side::Behind, last..end)]
    }

    /// Σ 2^x · |distance| over `keys`, whose sums are known and whose numbers are `part`. Nothing is subtracted that is
    /// larger than the difference: a distance of 1 far from the start would have lost its digits.
    #[inline(always)]
    fn distances(
        &self,
        simd: S,
        c: usize,
        moments: &Moments<S::F>,
        (side, keys): (Side, &Range<usize>),
        part: &[S::N],
    ) -> S::F {
        let zero = simd.constant(0.0);
        // From the first key of `keys` to the queries.
        let first = self.distance.saturating_sub((keys.start - self.keys.start) as i64);
        let lanes = simd.add(simd.lanes(), simd.constant((c * S::LANES) as f64));
        let to_first = simd.add(simd.constant(first as f64), lanes);
        let nearest = match side {
            Side::Before => {
                let last = first.saturating_sub(keys.len() as i64 - 1);
                simd.add(simd.constant(last as f64), lanes)
            }
            Side::Behind => simd.sub(zero, to_first),
            Side::Among => {
                let mut total = zero;
                for (row, part) in part.chunks_exact(COLUMNS * S::LANES).enumerate() {
                    let far = simd.sub(to_first, simd.constant(row as f64));
                    let far = simd.max(far, simd.sub(zero, far));
                    total = simd.mul_add(simd.load(&part[c * S::LANES..]), far, total);
                }
                return total;
            }
        };
        simd.mul_add(nearest, moments.sum[c], moments.after[c])
    }
}

impl<'a, S: Simd> Kept<'a, S> {
    /// For the next tile; and where its weights go, if readouts need them all.
    pub(super) fn new(simd: S, reading: &Reading, room: &'a mut Room<S::N>) -> (Self, &'a mut Backlog<S::N>) {
        let zero = simd.constant(0.0);
        room.blocks.clear();
        room.spans.clear();
        room.sums.clear();
        room.bases.clear();
        let kept = Self {
            exponents: [zero; COLUMNS],
            distance: [zero; COLUMNS],
            heaviest: [zero; COLUMNS],
            blocks: &mut room.blocks,
            bases: &mut room.bases,
            spans: &mut room.spans,
            sums: &mut room.sums,
            room: room.own.get(room_len::<S>(reading.readouts)),
        };
        let mut own_room = &mut *kept.room;
        for readout in &*reading.readouts {
            let own;
            (own, own_room) = own_room.split_at_mut(readout.room() * COLUMNS * S::LANES);
            readout.start_tile(simd, own);
        }
        (kept, &mut room.backlog)
    }

    /// How many keys have been visited before this one.
    pub(super) fn keys_before(&self, key: usize) -> usize {
        key - self.blocks.first().map_or(key, |block| block.start)
    }

    /// Shows a block to the readouts and turns it into items, returned; `p [keys, queries]` holds scores.
    #[inline(always)]
    pub(super) fn see<'b, D: Dot<S>>(
        &mut self,
        simd: S,
        reading: &mut Reading,
        scored: &Scored<S>,
        p: &'b mut [S::N],
        items: &'b mut Lines<S::N>,
        running: &mut [Running<S::F>; COLUMNS],
    ) -> (&'b [S::N], [S::F; COLUMNS]) {
        let width = COLUMNS * S::LANES;
        let Scored { unit, max, ref keys, cuts, ref queries, .. } = *scored;
        let block = Block {
            scores: p,
            max,
            keys: keys.clone(),
            queries: queries.clone(),
            position: scored.distance.saturating_add(keys.start as i64),
            first_key: scored.first_key,
            unit,
            value_norms: reading.value_norms,
        };
        let mut room = &mut *self.room;
        for readout in &mut *reading.readouts {
            let own;
            (own, room) = room.split_at_mut(readout.room() * width);
            readout.see_block(simd, &block, own);
        }

        let before = [running[0].max, running[1].max];
        let summed = [running[0].sum, running[1].sum];
        let (base, shrink) = raise(simd, unit, max, running);
        let Plan { needs } = reading.plan;
        if needs.moments {
            for c in 0..COLUMNS {
                // From the new maximum on, every exponent is smaller by as much as the maximum has grown; as
                // long as there was none, there is nothing to correct.
                let grown = simd.sub(before[c], base[c]);
                let grown =
                    simd.select_less(simd.constant(f64::from(f32::MIN)), grown, grown, simd.constant(0.0));
                let moved = simd.mul_add(summed[c], grown, self.exponents[c]);
                self.exponents[c] = simd.mul(moved, shrink[c]);
                self.distance[c] = simd.mul(self.distance[c], shrink[c]);
            }
        }
        if needs.lanes {
            for c in 0..COLUMNS {
                let own = simd.mul_add_once(max[c], simd.splat(unit), simd.sub(simd.constant(0.0), base[c]));
                let both = simd.max(self.heaviest[c], own);
                self.heaviest[c] = simd.select_less(before[c], base[c], own, both);
            }
        }
        self.blocks.push(keys.clone());
        // −∞ as long as a query has seen nothing, not the 0 that its exponents are counted from: that may lie so far above the
        // last maximum that its power is ∞, and 0 · ∞ is NaN.
        add_row(simd, self.bases, [running[0].max, running[1].max]);

        let parts = match needs.moments {
            true => scored.sides(D::DEPTH),
            false => [(Side::Before, keys.clone()), (Side::Among, 0..0), (Side::Behind, 0..0)],
        };
        // Items are made on the way where no span begins within one; the numbers stay beside them where readouts need
        // them.
        let mut inner = cuts.iter().filter(|cut| keys.contains(cut));
        let made = D::DEPTH == 1 || inner.all(|cut| (cut - keys.start).is_multiple_of(D::DEPTH));
        let [_, (_, among), _] = &parts;
        let apart = D::DEPTH > 1 && (!made || needs.weights || !among.is_empty());
        let mut items = apart.then(|| items.get(p.len()));
        // Block by block: additions to a sum that grows lose digits, and spans can be many.
        let mut all = [simd.constant(0.0); COLUMNS];
        let most = if needs.moments { IN_ONE_GO } else { usize::MAX };
        for (side, part) in parts {
            for span in spans(part, cuts, most) {
                let own = (span.start - keys.start) * width..(span.end - keys.start) * width;
                let p = &mut p[own.clone()];
                let items = items.as_deref_mut().map(|items| &mut items[own]);
                let sum = if needs.moments {
                    let moments = match made {
                        true => moments::<S, D>(simd, unit, base, p, items, (side, scored.hides)),
                        false => moments::<S, Single>(simd, unit, base, p, None, (side, scored.hides)),
                    };
                    for c in 0..COLUMNS {
                        self.exponents[c] = simd.add(self.exponents[c], moments.exponents[c]);
                        let far = scored.distances(simd, c, &moments, (side, &span), p);
                        self.distance[c] = simd.add(self.distance[c], far);
                    }
                    moments.sum
                } else {
                    let Sum(sum) = match made {
                        true => exponentiate::<S, D, _>(simd, unit, base, p, items),
                        false => exponentiate::<S, Single, _>(simd, unit, base, p, None),
                    };
                    sum
                };
                for (all, sum) in all.iter_mut().zip(sum) {
                    *all = simd.add(*all, sum);
                }
                add_row(simd, self.sums, sum);
                self.spans.push(span);
            }
        }
        for (running, all) in running.iter_mut().zip(all) {
            running.sum = simd.add(running.sum, all);
        }
        let Some(items) = items else { return (p, shrink) };
        if !made {
            join::<S, D>(simd, p, items);
        }
        (items, shrink)
    }

    /// Shows the finished tile to the readouts. `row` is called for each lane that the pass can't vouch for: the
    /// readouts are to see its row instead.
    #[inline(always)]
    pub(super) fn finish(
        &mut self,
        simd: S,
        reading: &mut Reading,
        end: &End<S>,
        backlog: &mut Backlog<S::N>,
        mut row: impl FnMut(usize, &mut [AtWork]),
    ) {
        let width = COLUMNS * S::LANES;
        let zero = simd.constant(0.0);
        let (mut top, mut share) = ([zero; COLUMNS], [zero; COLUMNS]);
        let mut lanes = PerLane::default();
        let Reading { plan, ref mut readouts, value_norms } = *reading;
        for c in 0..COLUMNS {
            let closed = end.running[c].close(simd, end.sink);
            (top[c], share[c]) = (closed.top, simd.div(simd.constant(1.0), closed.total));
            if plan.needs.lanes {
                self.take_lanes(simd, c, &end.running[c], &closed, &mut lanes);
            }
        }
        for (lse, known) in lanes.lse.iter_mut().zip(end.lse) {
            *lse = known.unwrap_or(*lse);
        }
        let mut sums = self.spans.iter().zip(self.sums.chunks_exact_mut(width)).peekable();
        for (block, bases) in self.blocks.iter().zip(self.bases.chunks_exact_mut(width)) {
            let mut factors = [zero; COLUMNS];
            for (c, factor) in factors.iter_mut().enumerate() {
                let base = &mut bases[c * S::LANES..];
                *factor = simd.mul(exp2(simd, simd.sub(simd.load(base), top[c])), share[c]);
                simd.store(*factor, base);
            }
            while let Some((_, sums)) = sums.next_if(|(span, _)| span.end <= block.end) {
                for (c, factor) in factors.into_iter().enumerate() {
                    let sums = &mut sums[c * S::LANES..];
                    simd.store(simd.mul(simd.load(sums), factor), sums);
                }
            }
        }
        let keys = match (self.blocks.first(), self.blocks.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        };
        let weights = if plan.needs.weights { backlog.at::<S>(0..keys.len()) } else { &mut [] };
        let count = end.queries.len();
        let mut vouched = *end.vouched;
        if plan.needs.moments {
            // Where nothing is hidden, a score of −∞ is one too large for the type: 0 · −∞ is in the entropy then.
            let entropies = vouched.iter_mut().zip(&lanes.entropy);
            entropies.for_each(|(vouched, entropy)| *vouched &= !entropy.is_nan());
        }
        for lane in (0..width).filter(|lane| *lane >= count || !vouched[*lane]) {
            for array in [&mut self.sums[..], &mut self.bases[..], &mut weights[..]] {
                array.iter_mut().skip(lane).step_by(width).for_each(|x| *x = S::N::default());
            }
        }
        let tile = Tile {
            head: end.head,
            queries: end.queries.clone(),
            unit: end.unit,
            top,
            share,
            lanes: &lanes,
            spans: self.spans,
            sums: self.sums,
            value_norms,
        };
        let mut room = &mut *self.room;
        for readout in readouts.iter_mut() {
            let own;
            (own, room) = room.split_at_mut(readout.room() * width);
            readout.finish_tile(simd, &tile, own);
        }
        let mut lane = 0;
        while lane < count {
            if !vouched[lane] {
                row(lane, readouts);
                lane += 1;
                continue;
            }
            let sure = vouched[lane..count].iter().take_while(|vouched| **vouched).count();
            let mut room = &*self.room;
            for readout in readouts.iter_mut() {
                let own;
                (own, room) = room.split_at(readout.room() * width);
                readout.see_lanes(&tile, lane..lane + sure, own);
            }
            lane += sure;
        }
        if plan.needs.weights {
            backlog.wait(simd, reading, end, self.blocks, self.bases);
        }
    }

    /// The numbers of the queries in column `c`.
    #[inline(always)]
    fn take_lanes(
        &self,
        simd: S,
        c: usize,
        running: &Running<S::F>,
        closed: &Closed<S::F>,
        lanes: &mut PerLane,
    ) {
        let Running { max, sum } = *running;
        let Closed { top, grow, sink, total } = *closed;
        let mut numbers = [[S::N::default(); MAX_LANES]; 9];
        let heaviest = exp2(simd, self.heaviest[c]);
        let vectors = [max, top, sum, grow, sink, total, self.exponents[c], self.distance[c], heaviest];
        for (numbers, x) in numbers.iter_mut().zip(vectors) {
            simd.store(x, numbers);
        }
        for lane in c * S::LANES..(c + 1) * S::LANES {
            let [max, top, sum, grow, sink, total, exponents, distance, heaviest] =
                std::array::from_fn(|n| numbers[n][lane % S::LANES].to_f64());
            let log = total.log2();
            lanes.lse[lane] = (top + log) * std::f64::consts::LN_2;
            lanes.sink_weight[lane] = sink / total;
            lanes.max_weight[lane] = heaviest * grow / total;
            lanes.distance[lane] = distance * grow / total;
            let logs = exponents + sum * (max - top - log);
            let entropy = -std::f64::consts::LN_2 * logs * grow / total;
            // Rounding may leave a certain row a hair below 0.
            lanes.entropy[lane] = if entropy < 0.0 { 0.0 } else { entropy };
        }
    }
}

/// `keys` cut at `cuts`, which ascend, and where more than `most` would lie together.
fn spans(keys: Range<usize>, mut cuts: &[usize], most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut from = keys.start;
    std::iter::from_fn(move || {
        while let [cut, rest @ ..] = cuts
            && *cut <= from
        {
            cuts = rest;
        }
        let end = cuts.first().map_or(keys.end, |cut| keys.end.min(*cut));
        let span = from..end.min(from.saturating_add(most));
        from = span.end;
        (!span.is_empty()).then_some(span)
    })
}

/// Adds a row to `rows [.., queries]`.
#[inline(always)]
fn add_row<S: Simd>(simd: S, rows: &mut Vec<S::N>, row: [S::F; COLUMNS]) {
    let at = rows.len();
    rows.resize(at + COLUMNS * S::LANES, S::N::default());
    for (to, row) in rows[at..].chunks_exact_mut(S::LANES).zip(row) {
        simd.store(row, to);
    }
}

/// [`exponentiate`], with the keys nearest to the queries taken last.
#[inline(always)]
fn moments<S: Simd, D: Dot<S>>(
    simd: S,
    unit: S::N,
    base: [S::F; COLUMNS],
    p: &mut [S::N],
    items: Option<&mut [S::N]>,
    (side, hides): (Side, bool),
) -> Moments<S::F> {
    macro_rules! in_order {
        ($backward:literal, $hides:literal) => {{
            let InOrder::<_, $backward, $hides>(moments) =
                exponentiate::<S, D, _>(simd, unit, base, p, items);
            moments
        }};
    }
    match (side, hides) {
        (Side::Before | Side::Among, true) => in_order!(false, true),
        (Side::Before | Side::Among, false) => in_order!(false, false),
        (Side::Behind, true) => in_order!(true, true),
        (Side::Behind, false) => in_order!(true, false),
    }
}

/// A tile of queries at its end.
pub(super) struct End<'a, S: Simd> {
    /// Batch element and head.
    pub(super) head: [usize; 2],
    pub(super) queries: Range<usize>,
    pub(super) unit: S::N,
    pub(super) running: [Running<S::F>; COLUMNS],
    pub(super) sink: Option<f32>,
    pub(super) vouched: &'a [bool; MAX_WIDTH],
    /// Where the pass has counted from another score than that of the equation.
    pub(super) lse: &'a [Option<f64>; MAX_WIDTH],
}

fn room_len<S: Simd>(readouts: &[AtWork]) -> usize {
    readouts.iter().map(AtWork::room).sum::<usize>() * COLUMNS * S::LANES
}
