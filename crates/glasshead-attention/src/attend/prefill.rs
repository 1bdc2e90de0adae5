//! The fused path: many queries, one pass over the keys, no matrix of weights.
//!
//! Queries lie in the vector lanes, so k and v rows are only broadcast and every sum over keys is a
//! vertical operation:
//!
//! ```text
//! for each panel of queries:                     (panels are independent: they are what threads share out)
//!     m = −∞, l = 0, o = 0
//!     for each block of keys that the panel may see:
//!         for each tile of the panel's queries:  (the block stays in the second cache meanwhile)
//!             s  = k·qᵀ · scale, softcap, −slope·distance, + mask;  hidden → −∞
//!             m' = max(m, max s),  c = exp(m − m')
//!             p  = exp(s − m'),  l = l·c + Σ p,  o = o·c + vᵀ·p,  m = m'
//!     out = o / l
//! ```
//!
//! (Milakov and Gimelshein 2018; Rabe and Staats 2021; Dao et al. 2022.) The exponential is
//! one of 2: scale and log₂e are one factor, applied when max is subtracted, so that a score rounds no more
//! often than in the plain computation. A row whose result cannot be
//! vouched for (NaN, or no key with a weight) is computed again by the reference: there a hidden NaN is
//! never touched, while here 0 · NaN would leak it.

use std::ops::Range;

use super::{
    Problem,
    ahead::Ahead,
    copies::Stay,
    pack::{MaskBlock, Source, pack_queries, unpack},
    ranges::{MAX_WIDTH, Ranges, union},
    reading::{End, Kept, Reading, Scored},
    rowwise,
    score::{Closed, Depth, Running, Terms, doubt},
    tile::{Scores, Sum, exponentiate, mix, raise},
    workspace::Workspace,
};
use crate::{
    Element,
    isa::{COLUMNS, Dot, Kernel, MAX_LANES, MOST_DEPTH, Number, Simd, UNROLL, second_cache},
    mask::{Cover, Reach},
    reference::Row,
};

/// Tiles per panel: how often a block of k and v is used once it is in the second cache.
pub(super) const TILES: usize = 8;

/// Bytes of k and v that the second cache holds from one panel to the next.
const HELD: usize = 512 << 10;

/// The most keys per block: their weights (32 KiB with AVX-512, 16 with AVX2 or as bf16) are read from the first cache
/// for every few dims. The least: each block has its own start and end.
const BLOCK_KEYS: [usize; 2] = [128, 256];

/// Keys per block, a power of 2.
fn block_keys<S: Simd>(dim: usize, value_dim: usize) -> usize {
    let [least, most] = BLOCK_KEYS;
    let fit = S::BLOCK / ((dim + value_dim) * size_of::<S::N>());
    1 << fit.clamp(least, most).ilog2()
}

/// Up to [`TILES`] tiles of queries of one head.
pub(super) struct Panel<'a, 'p, 'r, T: Element> {
    pub(super) problem: &'a Problem<'p, T>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The first query.
    pub(super) first: usize,
    /// Whether the panel before, on the same thread, has likely read the same head.
    pub(super) again: bool,
    /// The panel that is likely to come after this one on the same thread: batch element, head, first query.
    pub(super) next: Option<[usize; 3]>,
    /// Whether it is the last panel that `reading` sees.
    pub(super) last: bool,
    /// `[queries of the panel, value_dim]`
    pub(super) out: &'a mut [T],
    pub(super) reading: Option<Reading<'a, 'r>>,
    pub(super) workspace: &'a mut Workspace<T::Number>,
}

impl<T: Element> Kernel<T::Number> for Panel<'_, '_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) {
        // ROWS is a constant of S: two arms are left after compilation.
        match (S::ROWS, self.reading.is_some()) {
            (8, false) => self.attend::<S, T::Dot<S>, 8, false>(simd),
            (8, true) => self.attend::<S, T::Dot<S>, 8, true>(simd),
            (6, false) => self.attend::<S, T::Dot<S>, 6, false>(simd),
            (6, true) => self.attend::<S, T::Dot<S>, 6, true>(simd),
            (_, false) => self.attend::<S, T::Dot<S>, 4, false>(simd),
            (_, true) => self.attend::<S, T::Dot<S>, 4, true>(simd),
        }
    }
}

impl<T: Element> Panel<'_, '_, '_, T> {
    #[inline(always)]
    fn attend<S: Simd<N = T::Number>, D: Dot<S>, const ROWS: usize, const READ: bool>(self, simd: S) {
        const { assert!(D::DEPTH <= MOST_DEPTH) };
        let Self { problem, batch, head, first, again, next, last, out, mut reading, workspace } = self;
        let (dim, value_dim) = (problem.dim, problem.value_dim);
        let width = COLUMNS * S::LANES;
        let block_keys = block_keys::<S>(dim, value_dim);
        let count = out.len() / value_dim;
        let tiles = count.div_ceil(width);
        // Lanes without a query of their own repeat the last one.
        let query_at = |tile: usize, lane: usize| first + (tile * width + lane).min(count - 1);
        let queries_of = |tile: usize| first + tile * width..first + count.min((tile + 1) * width);
        let terms = Terms::new(problem, head);
        // A panel lies in one sequence.
        let reach = problem.visibility.reach(batch, first);
        let sink = problem.sinks.map(|sinks| sinks[head]);
        let place = Place { problem, batch, head, terms, reach, sink };
        let reach = &place.reach;

        let depth = dim.div_ceil(D::DEPTH);
        let q = workspace.q.get(tiles * depth * width);
        for (tile, q) in q.chunks_exact_mut(depth * width).enumerate() {
            let start = first + tile * width;
            pack_queries::<S, D, T>(
                simd,
                problem.q,
                [batch, head, start],
                (count - tile * width).min(width),
                q,
            );
        }
        let o = workspace.o.get(tiles * value_dim * width);
        let ranges: [Ranges; TILES] = std::array::from_fn(|tile| match tile < tiles {
            true => Ranges::new(reach, queries_of(tile)),
            false => Ranges::NONE,
        });
        let mut running = [[Running::new(simd); COLUMNS]; TILES];
        let mut mixed = [false; TILES];
        let Range { start, end } = union(&ranges);
        let several = again || problem.group > 1 || next.is_some_and(|next| next[..2] == [batch, head]);
        let sources = |batch: usize, head: usize, first_key: usize| {
            let key_head = head / problem.group;
            let stay = Stay::new(problem, [batch, key_head], first_key);
            let mut k = Source::new(problem.k, batch, key_head, depth * D::DEPTH).staying(stay);
            // A panel reads keys in one go: copies are worth it where other panels find them.
            if several && k.stays() {
                k = k.gathered();
            }
            let v = Source::new(problem.v, batch, key_head, value_dim).staying(stay).gathered();
            [k, v]
        };
        let [k_source, v_source] = sources(batch, head, reach.first_key());

        let (mut kept, mut backlogs) = (Vec::new(), Vec::new());
        if let Some(reading) = reading.as_ref().filter(|_| READ) {
            for room in &mut workspace.rooms[..tiles] {
                let (tile, backlog) = Kept::new(simd, reading, room);
                kept.push(tile);
                backlogs.push(backlog);
            }
        }

        // What the second cache holds since the panel before needs no fetching.
        let in_place = k_source.in_place::<S, D>().is_some() && v_source.pairs_in_place::<S, D>().is_some();
        let number = if in_place { size_of::<T>() } else { size_of::<S::N>() };
        let stays = again && (in_place || k_source.stays());
        let held = stays && problem.keys * (dim + value_dim) * number <= HELD;
        // Blocks are counted from the first key of the sequence, items too: how many queries make a panel, and what else
        // they see, changes no bit of a query.
        let origin = reach.first_key();
        let begin = origin + start.saturating_sub(origin) / D::DEPTH * D::DEPTH;
        // Whether there are weights, and they come from farther than the second cache.
        let token = (dim + value_dim + tiles * width) * size_of::<S::N>();
        let waits = reading.as_ref().is_some_and(|reading| READ && reading.plan.needs.weights);
        let far = waits && end.saturating_sub(begin) * token > second_cache() / 4 * 3;
        let blocks =
            (origin + start.saturating_sub(origin) / block_keys * block_keys..end).step_by(block_keys);
        for block in blocks.map(|start| start.max(begin)..end.min(start + block_keys)) {
            let mut ahead = Ahead::nothing(tiles * (block.len() / ROWS), depth / UNROLL);
            let mut ask = |ahead: &mut Ahead, [k, v]: [&Source<T>; 2], keys: Range<usize>| {
                k.ask(ahead, keys.clone(), &mut workspace.k);
                v.ask(ahead, keys, &mut workspace.v);
            };
            let after = block.end..end.min(block.end + block_keys);
            // The weights of one tile while the one before it multiplies.
            for (tile, backlog) in backlogs.iter_mut().enumerate().filter(|_| far) {
                let keys = match tile {
                    0 if after.is_empty() => begin..begin + block_keys,
                    0 => after.clone(),
                    _ => block.clone(),
                };
                backlog.ask::<S>(&mut ahead, keys.start - begin..keys.end - begin);
            }
            ahead.mask(problem.mask(), [batch, head], first..first + count, after.clone());
            if !after.is_empty() {
                if !held {
                    ask(&mut ahead, [&k_source, &v_source], after);
                }
            } else {
                ahead.slice(out);
                if let Some([batch, head, query]) = next {
                    let queries = query..problem.queries.min(query + count);
                    ahead.tokens(problem.q, batch, head..head + 1, queries);
                    let [k, v] = sources(batch, head, problem.visibility.first_key(query));
                    let start = problem.visibility.keys(batch, query).start;
                    if !held || !k.is_same(&k_source) {
                        ask(&mut ahead, [&k, &v], start..problem.keys.min(start + block_keys));
                    }
                }
            }
            let k = k_source.block::<S, D>(simd, block.clone(), &mut workspace.k);
            let v = v_source.pairs::<S, D>(simd, block.clone(), &mut workspace.v);
            let cuts = reading.as_ref().filter(|_| READ).map_or(&[][..], |reading| reading.plan.cuts(&block));
            for (tile, ranges) in ranges[..tiles].iter().enumerate() {
                let from = ranges.start.max(block.start);
                let to = ranges.end.min(block.end);
                if from >= to {
                    continue;
                }
                // Items of v hold keys from a multiple of DEPTH on.
                let item = (from - block.start) / D::DEPTH;
                let from = block.start + item * D::DEPTH;
                let p = match reading.as_mut().filter(|_| waits) {
                    Some(reading) => {
                        let before = kept[tile].keys_before(from);
                        backlogs[tile].block(simd, reading, before..before + to - from)
                    }
                    None => &mut workspace.p.get(block_keys * width)[..(to - from) * width],
                };
                let scores = Scores {
                    q: &q[tile * depth * width..(tile + 1) * depth * width],
                    k: k.skip(from - block.start),
                    depth,
                    terms,
                    distance: reach.position(first + tile * width).saturating_sub(from as i64),
                    bounds: ranges.bounds(simd, reach, from, to - from),
                    open: ranges.open(from, to - from),
                };
                let queries = query_at(tile, 0)..=query_at(tile, width - 1);
                let mask = MaskBlock::new(problem.mask(), [batch, head], queries, from..to);
                let max = match mask.cover {
                    Cover::Hidden if !READ => continue,
                    Cover::Hidden => {
                        p.fill(T::Number::from_f64(f64::NEG_INFINITY));
                        [simd.constant(f64::NEG_INFINITY); COLUMNS]
                    }
                    Cover::Open | Cover::Mixed => {
                        let max = scores.multiply::<S, D, ROWS>(simd, p, &mut ahead);
                        scores.score(simd, p, max, mask.pack(simd, &mut workspace.bias))
                    }
                };
                let unit = terms.unit();
                let (p, shrink) = match reading.as_mut().filter(|_| READ) {
                    None => {
                        let (base, shrink) = raise(simd, unit, max, &mut running[tile]);
                        let Sum(sum) = exponentiate::<S, D, _>(simd, unit, base, p, None);
                        for c in 0..COLUMNS {
                            running[tile][c].sum = simd.add(running[tile][c].sum, sum[c]);
                        }
                        (&*p, shrink)
                    }
                    Some(reading) => {
                        let queries = queries_of(tile);
                        let distance = scores.distance;
                        let first_key = reach.first_key();
                        let hides = scores.bounds.is_some() || mask.cover != Cover::Open;
                        let keys = from..to;
                        let scored = Scored { unit, max, keys, cuts, queries, hides, distance, first_key };
                        let running = &mut running[tile];
                        kept[tile].see::<D>(simd, reading, &scored, p, &mut workspace.items, running)
                    }
                };
                if mask.cover != Cover::Hidden {
                    let o = &mut o[tile * value_dim * width..(tile + 1) * value_dim * width];
                    mix::<S, D, ROWS>(simd, p, v.skip(item), mixed[tile].then_some(shrink), o);
                    mixed[tile] = true;
                }
            }
        }

        for (tile, out) in out.chunks_mut(width * value_dim).enumerate() {
            let o = &mut o[tile * value_dim * width..(tile + 1) * value_dim * width];
            let queries = queries_of(tile);
            let square = workspace.p.get(block_keys * width);
            let row = &mut workspace.row;
            let Sure { vouched, lse } =
                place.write_out(simd, queries.start, running[tile], o, out, square, row);
            if let Some(reading) = reading.as_mut().filter(|_| READ) {
                let end = End {
                    head: [batch, head],
                    queries,
                    unit: terms.unit(),
                    running: running[tile],
                    sink: place.sink,
                    vouched: &vouched,
                    lse: &lse,
                };
                let value_norms = reading.value_norms;
                kept[tile].finish(simd, reading, &end, backlogs[tile], |lane, readouts| {
                    row.compute(problem, batch, head, query_at(tile, lane));
                    row.measure(value_norms);
                    readouts.iter_mut().for_each(|readout| readout.see(row));
                });
            }
        }
        if let Some(reading) = reading.as_mut().filter(|_| waits && last) {
            for room in &mut workspace.rooms {
                room.backlog.show(simd, reading, usize::MAX);
            }
        }
    }
}

/// What the tiles of a panel have in common.
struct Place<'a, 'p, T: Element> {
    problem: &'a Problem<'p, T>,
    batch: usize,
    head: usize,
    terms: Terms<T::Number>,
    reach: Reach,
    sink: Option<f32>,
}

/// What is known of each query of a tile at its end.
struct Sure {
    /// Whether the pass can vouch for it.
    vouched: [bool; MAX_WIDTH],
    /// Where the pass has counted from another score than that of the equation.
    lse: [Option<f64>; MAX_WIDTH],
}

impl<T: Element> Place<'_, '_, T> {
    /// Writes the output of the queries from `first` on: `o [dim, queries]` over the sum, turned around. A query that the
    /// pass can't vouch for comes from the reference. `square` is room for one square of lanes.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // The sums of a tile, and rooms of one workspace.
    fn write_out<S: Simd<N = T::Number>>(
        &self,
        simd: S,
        first: usize,
        running: [Running<S::F>; COLUMNS],
        o: &mut [S::N],
        out: &mut [T],
        square: &mut [S::N],
        row: &mut Row,
    ) -> Sure {
        let &Self { problem, batch, head, ref terms, ref reach, sink } = self;
        let Normalized { mut vouched, max } = normalize(simd, running, sink, o);
        let mut lse = [None; MAX_WIDTH];
        unpack(simd, o, out, problem.value_dim, square);
        if problem.mask().is_none() && vouched == [true; MAX_WIDTH] {
            return Sure { vouched, lse };
        }
        for (lane, out) in out.chunks_exact_mut(problem.value_dim).enumerate() {
            let query = first + lane;
            match terms.depth(problem, reach, [batch, head, query], max[lane].to_f64()) {
                Depth::Clear => {}
                Depth::Empty => {
                    vouched[lane] = false;
                    out.fill(T::default());
                    continue;
                }
                Depth::Sunk(score) => lse[lane] = sink.is_none().then_some(score),
                Depth::Unclear => vouched[lane] = false,
            }
            if !vouched[lane] {
                rowwise::one(problem, batch, head, query, row, out);
            }
        }
        Sure { vouched, lse }
    }
}

/// A finished tile.
struct Normalized<N> {
    /// Whether a query has a weight and finite numbers alone, none of them far; true in lanes beyond the tile.
    vouched: [bool; MAX_WIDTH],
    /// Its largest exponent, the sink's left out.
    max: [N; MAX_WIDTH],
}

/// o / l, with the sink's share in l.
#[inline(always)]
fn normalize<S: Simd>(
    simd: S,
    running: [Running<S::F>; COLUMNS],
    sink: Option<f32>,
    o: &mut [S::N],
) -> Normalized<S::N> {
    let [zero, one] = [simd.constant(0.0), simd.constant(1.0)];
    let mut share = [zero; COLUMNS];
    // 0 in the lanes of queries that can be vouched for, else 1 or NaN.
    let mut check = [zero; COLUMNS];
    let mut max = [S::N::default(); MAX_WIDTH];
    for c in 0..COLUMNS {
        simd.store(running[c].max, &mut max[c * S::LANES..]);
        let Closed { top, grow, total, .. } = running[c].close(simd, sink);
        share[c] = simd.div(grow, total);
        check[c] = doubt(simd, running[c].max, top);
    }
    for o in o.chunks_exact_mut(COLUMNS * S::LANES) {
        for c in 0..COLUMNS {
            let o = &mut o[c * S::LANES..(c + 1) * S::LANES];
            let x = simd.mul(simd.load(o), share[c]);
            // 0 · NaN and 0 · ∞ are NaN, and stay.
            check[c] = simd.mul_add(x, zero, check[c]);
            simd.store(x, o);
        }
    }
    let mut vouched = [true; MAX_WIDTH];
    for c in 0..COLUMNS {
        // NaN is not less than 1.
        let sure = simd.select_less(check[c], one, zero, one);
        if simd.any_less(zero, sure) {
            let mut lanes = [S::N::default(); MAX_LANES];
            simd.store(sure, &mut lanes);
            for (vouched, sure) in vouched[c * S::LANES..].iter_mut().zip(&lanes[..S::LANES]) {
                *vouched = *sure == S::N::default();
            }
        }
    }
    Normalized { vouched, max }
}
