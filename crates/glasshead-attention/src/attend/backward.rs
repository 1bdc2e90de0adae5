//! The backward pass, fused: weights are made again from scores and their logarithm of the sum, and dropped.
//!
//! ```text
//! for each panel of queries:                     (go: the gradient of the output, and so on)
//!     mean = Σ go·out,  gq = 0
//!     for each block of keys that the panel may see:
//!         for each tile of the panel's queries:  (queries in the lanes, as in the forward pass)
//!             s  = k·qᵀ · scale, softcap, −slope·distance, + mask;  hidden → −∞
//!             p  = exp(s − lse)
//!             gs = p · (v·goᵀ − mean)
//!             gq = gq + kᵀ·gs
//!         gv = gv + p·go,  gk = gk + gs·q        (dims in the lanes, sums over all tiles at once)
//!     gq = gq · scale
//! ```
//!
//! (Dao et al. 2022, algorithm 4; Dao 2023 for the order of the loops, which is turned around here: what is
//! written again and again is the gradient of few key heads instead of many query heads.) All types are
//! computed in [`Element`]'s number, f32 or f64. A hidden key with a NaN gives 0 · NaN: such heads are left to
//! the reference, see [`super::gradients`].

use std::{f64::consts::LOG2_E, ops::Range};

use super::{
    Problem,
    ahead::Ahead,
    pack::{MaskBlock, Rows, Source, pack_queries, pack_rows, unpack},
    prefill::TILES,
    ranges::{MAX_WIDTH, Ranges, union},
    score::{Depth, Running, Terms},
    tile::{Scores, Sum, exponentiate, mix, raise, worth},
    workspace::{Lines, Workspace},
};
use crate::{
    Element, TensorView,
    isa::{COLUMNS, Grid, Kernel, MAX_LANES, Number, Simd, Single, add_product, product},
    mask::{Cover, Reach},
    softmax::exp2,
};

/// Queries per panel where [`TILES`] tiles hold them: how many terms a sum over queries has before it goes to
/// memory. Their weights and gradients, for [`BLOCK`] keys, stay in the second cache.
const QUERIES: usize = 128;
/// Keys per block.
const BLOCK: usize = 128;

/// How many queries a panel has whose tiles are so wide.
pub(super) fn queries_of_panel(width: usize) -> usize {
    QUERIES.min(TILES * width)
}

/// Whether a logarithm of a sum says exactly enough what to count from: rounded to f32 it is off by no more than 2⁻¹⁵, by
/// which share all weights of its query would be.
fn is_sharp(lse: f32) -> bool {
    lse.abs() < 1024.0 || lse == f32::NEG_INFINITY
}

/// What the forward pass has left, and the gradient that comes in.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a, T> {
    pub(super) out: TensorView<'a, T>,
    pub(super) grad_out: TensorView<'a, T>,
    /// `[batch, heads, queries]`; computed again where there is none.
    pub(super) lse: Option<&'a [f32]>,
}

/// Gradients of some keys and values of a head, before k's is multiplied with the scale.
pub(super) struct KeySums<N> {
    pub(super) keys: Range<usize>,
    /// `[keys, dim]`, dims padded to whole vectors
    pub(super) k: Vec<N>,
    /// `[keys, value_dim]`, padded too
    pub(super) v: Vec<N>,
}

/// `to [keys, dim]` = factor · Σ parts.
pub(super) struct AddUp<'a, T: Element> {
    pub(super) parts: &'a [&'a KeySums<T::Number>],
    /// Which sums of a part
    pub(super) of: fn(&KeySums<T::Number>) -> &[T::Number],
    pub(super) factor: f64,
    pub(super) keys: usize,
    pub(super) to: &'a mut [T],
}

impl<T: Element> Kernel<T::Number> for AddUp<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) {
        let Self { parts, of, factor, keys, to } = self;
        let dim = to.len() / keys;
        let padded = dim.next_multiple_of(S::LANES);
        let factor = simd.constant(factor);
        for (key, to) in to.chunks_exact_mut(dim).enumerate() {
            for d in (0..dim).step_by(S::LANES) {
                let mut sum = simd.constant(0.0);
                for part in parts.iter().filter(|part| part.keys.contains(&key)) {
                    sum = simd.add(sum, simd.load(&of(part)[(key - part.keys.start) * padded + d..]));
                }
                let sum = simd.mul(sum, factor);
                if d + S::LANES <= dim {
                    T::store(simd, sum, &mut to[d..]);
                    continue;
                }
                let mut lanes = [T::Number::default(); MAX_LANES];
                simd.store(sum, &mut lanes);
                to[d..].iter_mut().zip(lanes).for_each(|(to, sum)| *to = T::from_number(sum));
            }
        }
    }
}

/// Queries of one head, as many as [`queries_of_panel`] says or fewer.
pub(super) struct BackwardPanel<'a, 'p, T: Element> {
    pub(super) problem: &'a Problem<'p, T>,
    pub(super) forward: &'a Forward<'p, T>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The first query.
    pub(super) first: usize,
    /// `[queries of the panel, dim]`
    pub(super) gq: &'a mut [T],
    pub(super) sums: &'a mut KeySums<T::Number>,
    pub(super) workspace: &'a mut Workspace<T::Number>,
}

impl<T: Element> Kernel<T::Number> for BackwardPanel<'_, '_, T> {
    /// The gradient of the head's sink.
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) -> f64 {
        match S::ROWS {
            8 => self.differentiate::<S, 8>(simd),
            6 => self.differentiate::<S, 6>(simd),
            _ => self.differentiate::<S, 4>(simd),
        }
    }
}

impl<T: Element> BackwardPanel<'_, '_, T> {
    #[inline(always)]
    fn differentiate<S: Simd<N = T::Number>, const ROWS: usize>(self, simd: S) -> f64 {
        let Self { problem, forward, batch, head, first, gq, sums, workspace } = self;
        let (dim, value_dim) = (problem.dim, problem.value_dim);
        let width = COLUMNS * S::LANES;
        let count = gq.len() / dim;
        let tiles = count.div_ceil(width);
        let terms = Terms::new(problem, head);
        let unit = terms.unit();
        let reach = problem.visibility.reach(batch, first);
        let Workspace { q, p, bias, o, k: k_room, v: v_room, backward: room, .. } = workspace;

        let q = q.get(tiles * dim * width);
        let go = room.grad.get(tiles * value_dim * width);
        for tile in 0..tiles {
            let (start, count) = ([batch, head, first + tile * width], (count - tile * width).min(width));
            let q = &mut q[tile * dim * width..][..dim * width];
            pack_queries::<S, Single, T>(simd, problem.q, start, count, q);
            let go = &mut go[tile * value_dim * width..][..value_dim * width];
            pack_queries::<S, Single, T>(simd, forward.grad_out, start, count, go);
        }
        let padded = |dim: usize| dim.next_multiple_of(S::LANES);
        let q_rows = room.q_rows.get(tiles * width * padded(dim));
        pack_rows(simd, problem.q, [batch, head, first], count, tiles * width, q_rows);
        let go_rows = room.grad_rows.get(tiles * width * padded(value_dim));
        pack_rows(simd, forward.grad_out, [batch, head, first], count, tiles * width, go_rows);

        let ranges: [Ranges; TILES] = std::array::from_fn(|tile| match tile < tiles {
            true => Ranges::new(&reach, first + tile * width..first + count.min((tile + 1) * width)),
            false => Ranges::NONE,
        });
        let keys = union(&ranges);
        let key_head = head / problem.group;
        let k_source = Source::new(problem.k, batch, key_head, dim).gathered();
        let v_source = Source::new(problem.v, batch, key_head, value_dim);
        let weigh = Weigh { problem, terms, reach: &reach, batch, head, first, count };

        // What exponents of 2 are counted from, and the mean gradient of the weights, query by query.
        let own = (batch * problem.heads + head) * problem.queries + first;
        let known = forward.lse.filter(|_| size_of::<T::Number>() == size_of::<f32>());
        let known =
            known.map(|lse| &lse[own..own + count]).filter(|lse| lse.iter().all(|lse| is_sharp(*lse)));
        let mut bases = [[T::Number::default(); MAX_WIDTH]; TILES];
        let mut running = [[Running::new(simd); COLUMNS]; TILES];
        if known.is_none() {
            for start in keys.clone().step_by(BLOCK) {
                let block = start..keys.end.min(start + BLOCK);
                let k = k_source.block::<S, Single>(simd, block.clone(), k_room);
                for (tile, ranges) in ranges[..tiles].iter().enumerate() {
                    let span = ranges.start.max(block.start)..ranges.end.min(block.end);
                    if span.is_empty() {
                        continue;
                    }
                    let p = &mut p.get(BLOCK * width)[..span.len() * width];
                    let q = &q[tile * dim * width..][..dim * width];
                    let k = k.skip(span.start - block.start);
                    let max = weigh.scores::<S, ROWS>(simd, tile, ranges, span, q, k, p, None, bias);
                    let Some(max) = max else { continue };
                    let (base, _) = raise(simd, unit, max, &mut running[tile]);
                    let Sum(sum) = exponentiate::<S, Single, _>(simd, unit, base, p, None);
                    for (running, sum) in running[tile].iter_mut().zip(sum) {
                        running.sum = simd.add(running.sum, sum);
                    }
                }
            }
        }
        let sink = problem.sinks.map(|sinks| sinks[head]);
        let mut means = bases;
        let mut rests = bases;
        let mut sink_gradient = 0.0;
        for tile in 0..tiles {
            let own = (count - tile * width).min(width);
            // Of a query's sum: the exponent that powers were counted from, and how much the sum adds to it.
            let mut exponents = [[0.0; 2]; MAX_WIDTH];
            for (c, running) in running[tile].into_iter().enumerate().filter(|_| known.is_none()) {
                let closed = running.close(simd, sink);
                let mut lanes = [[T::Number::default(); MAX_LANES]; 3];
                for (lanes, x) in lanes.iter_mut().zip([running.max, closed.top, closed.total]) {
                    simd.store(x, lanes);
                }
                for (lane, exponent) in exponents[c * S::LANES..(c + 1) * S::LANES].iter_mut().enumerate() {
                    let [max, top, total] = lanes.map(|lanes| lanes[lane].to_f64());
                    *exponent = [top, total.log2()];
                    let query = first + tile * width + (c * S::LANES + lane).min(own - 1);
                    if let Depth::Unclear = terms.depth(problem, &reach, [batch, head, query], max) {
                        // Not a number in the head: it is left to the reference.
                        *exponent = [f64::NAN; 2];
                    }
                }
            }
            for (lane, exponent) in exponents[..width].iter_mut().enumerate() {
                let query = first + tile * width + lane.min(own - 1);
                if let Some(lse) = known {
                    *exponent = [f64::from(lse[query - first]) * LOG2_E, 0.0];
                }
                // A query that sees nothing has scores of −∞ alone, and −∞ − −∞ would be NaN.
                if exponent.contains(&f64::NEG_INFINITY) {
                    *exponent = [0.0; 2];
                }
                let [top, log] = *exponent;
                bases[tile][lane] = T::Number::from_f64(top);
                rests[tile][lane] = T::Number::from_f64(top - bases[tile][lane].to_f64() + log);
                if lane < own {
                    let mean = dot_of(simd, forward.out, forward.grad_out, [batch, head, query]);
                    means[tile][lane] = mean;
                    let weight = sink.map_or(0.0, |sink| (f64::from(sink) * LOG2_E - top - log).exp2());
                    sink_gradient -= weight * mean.to_f64();
                }
            }
        }

        let gq_packed = o.get(tiles * dim * width);
        gq_packed.fill(T::Number::default());
        let p = p.get(tiles * BLOCK * width);
        let gs = room.scores.get(tiles * BLOCK * width);
        let slopes = room.slopes.get(if terms.is_capped() { BLOCK * width } else { 0 });
        for start in keys.clone().step_by(BLOCK) {
            let block = start..keys.end.min(start + BLOCK);
            let k = k_source.block::<S, Single>(simd, block.clone(), k_room);
            let v = v_source.block::<S, Single>(simd, block.clone(), v_room);
            let mut spans: [Range<usize>; TILES] = std::array::from_fn(|_| 0..0);
            for (tile, ranges) in ranges[..tiles].iter().enumerate() {
                let span = ranges.start.max(block.start)..ranges.end.min(block.end);
                if span.is_empty() {
                    continue;
                }
                let at = span.start - block.start..span.end - block.start;
                let own = tile * BLOCK * width..(tile + 1) * BLOCK * width;
                let (p, gs) = (&mut p[own.clone()], &mut gs[own]);
                clear_around::<ROWS, _>(p, at.clone(), width);
                clear_around::<ROWS, _>(gs, at.clone(), width);
                let rows = at.start * width..at.end * width;
                let (p, gs) = (&mut p[rows.clone()], &mut gs[rows]);
                let mut slopes = terms.is_capped().then(|| &mut slopes[..p.len()]);
                let q = &q[tile * dim * width..][..dim * width];
                let (k, v) = (k.skip(at.start), v.skip(at.start));
                let own = slopes.as_deref_mut();
                if weigh.scores::<S, ROWS>(simd, tile, ranges, span, q, k, p, own, bias).is_none() {
                    continue;
                }
                spans[tile] = at;
                let gradients = Gradients {
                    go: &go[tile * value_dim * width..][..value_dim * width],
                    v,
                    value_dim,
                    unit,
                    base: std::array::from_fn(|c| simd.load(&bases[tile][c * S::LANES..])),
                    rest: std::array::from_fn(|c| simd.load(&rests[tile][c * S::LANES..])),
                    mean: std::array::from_fn(|c| simd.load(&means[tile][c * S::LANES..])),
                    slopes: slopes.as_deref(),
                };
                gradients.fill::<S, ROWS>(simd, p, gs);
                let gq = &mut gq_packed[tile * dim * width..][..dim * width];
                mix::<S, Single, ROWS>(simd, gs, k, Some([simd.constant(1.0); COLUMNS]), gq);
            }
            let spans = &spans[..tiles];
            let own = block.start - sums.keys.start..block.end - sums.keys.start;
            let of = |dim: usize| own.start * padded(dim)..own.end * padded(dim);
            add_rows::<S, ROWS>(simd, p, spans, go_rows, &mut sums.v[of(value_dim)], own.len());
            add_rows::<S, ROWS>(simd, gs, spans, q_rows, &mut sums.k[of(dim)], own.len());
        }

        let scale = simd.constant(problem.scale);
        for x in gq_packed.chunks_exact_mut(S::LANES) {
            simd.store(simd.mul(simd.load(x), scale), x);
        }
        for (tile, gq) in gq.chunks_mut(width * dim).enumerate() {
            unpack(simd, &gq_packed[tile * dim * width..][..dim * width], gq, dim, p);
        }
        sink_gradient
    }
}

/// What makes the scores of a panel.
struct Weigh<'a, 'p, T: Element> {
    problem: &'a Problem<'p, T>,
    terms: Terms<T::Number>,
    reach: &'a Reach,
    batch: usize,
    head: usize,
    first: usize,
    count: usize,
}

impl<T: Element> Weigh<'_, '_, T> {
    /// Fills `p [keys, queries]` with the scores of one tile and the keys of `span`, see [`Scores::score`], and
    /// `slopes` with what a softcap leaves of their gradients; the largest, or None where a mask hides them all.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // Both passes over the keys hand over what they hold.
    fn scores<S: Simd<N = T::Number>, const ROWS: usize>(
        &self,
        simd: S,
        tile: usize,
        ranges: &Ranges,
        span: Range<usize>,
        q: &[T::Number],
        k: Rows<T::Number>,
        p: &mut [T::Number],
        slopes: Option<&mut [T::Number]>,
        bias_room: &mut Lines<T::Number>,
    ) -> Option<[S::F; COLUMNS]> {
        let &Self { problem, terms, reach, batch, head, first, count } = self;
        let width = COLUMNS * S::LANES;
        let scores = Scores {
            q,
            k,
            depth: problem.dim,
            terms,
            distance: reach.position(first + tile * width).saturating_sub(span.start as i64),
            bounds: ranges.bounds(simd, self.reach, span.start, span.len()),
            open: ranges.open(span.start, span.len()),
        };
        let query_at = |lane: usize| first + (tile * width + lane).min(count - 1);
        let queries = query_at(0)..=query_at(width - 1);
        let mask = MaskBlock::new(problem.mask(), [batch, head], queries, span.clone());
        if mask.cover == Cover::Hidden {
            return None;
        }
        let max = scores.multiply::<S, Single, ROWS>(simd, p, &mut Ahead::nothing(0, 0));
        for (slope, p) in slopes
            .into_iter()
            .flat_map(|slopes| slopes.chunks_exact_mut(S::LANES).zip(p.chunks_exact(S::LANES)))
        {
            simd.store(terms.slope_of_cap(simd, simd.load(p)), slope);
        }
        Some(scores.score(simd, p, max, mask.pack(simd, bias_room)))
    }
}

/// What turns the scores of one tile and some keys into weights and gradients.
struct Gradients<'a, N, F> {
    /// `[value_dim, queries]`
    go: &'a [N],
    v: Rows<'a, N>,
    value_dim: usize,
    unit: N,
    /// What exponents of 2 are counted from: a number, and what is missing there, by which all weights of a query would be
    /// off.
    base: [F; COLUMNS],
    rest: [F; COLUMNS],
    mean: [F; COLUMNS],
    slopes: Option<&'a [N]>,
}

impl<N: Number, F: Copy> Gradients<'_, N, F> {
    /// Scores `p [keys, queries]` become weights, `gs` their gradients.
    #[inline(always)]
    fn fill<S: Simd<N = N, F = F>, const ROWS: usize>(&self, simd: S, p: &mut [N], gs: &mut [N]) {
        let keys = p.len() / (COLUMNS * S::LANES);
        let mut key = 0;
        simd.apart(|| {
            while worth(keys - key, ROWS) {
                self.fill_rows::<S, ROWS>(simd, key, p, gs);
                key += ROWS;
            }
        });
        while keys - key >= 4 {
            self.fill_rows::<S, 4>(simd, key, p, gs);
            key += 4;
        }
        while key < keys {
            self.fill_rows::<S, 1>(simd, key, p, gs);
            key += 1;
        }
    }

    #[inline(always)]
    fn fill_rows<S: Simd<N = N, F = F>, const ROWS: usize>(
        &self,
        simd: S,
        key: usize,
        p: &mut [N],
        gs: &mut [N],
    ) {
        let width = COLUMNS * S::LANES;
        let v = self.v.skip(key);
        let grid = Grid { values: v.values, row: v.stride, step: 1 };
        let sums = product::<S, Single, N, ROWS, COLUMNS>(simd, grid, self.go, width, self.value_dim, || ());
        let zero = simd.constant(0.0);
        let own = key * width..(key + ROWS) * width;
        let (p, gs) = (&mut p[own.clone()], &mut gs[own]);
        for (r, sums) in sums.into_iter().enumerate() {
            for (c, gw) in sums.into_iter().enumerate() {
                let at = r * width + c * S::LANES;
                let score = simd.load(&p[at..]);
                let x = simd.mul_add_once(score, simd.splat(self.unit), simd.sub(zero, self.base[c]));
                let x = simd.sub(x, self.rest[c]);
                let weight = exp2(simd, x);
                // Where there is no weight there is no gradient either, whatever a hidden value is.
                let mut g = simd.mul(weight, simd.sub(gw, self.mean[c]));
                g = simd.select_less(zero, weight, g, weight);
                if let Some(slopes) = self.slopes {
                    g = simd.mul(g, simd.load(&slopes[key * width + at..]));
                }
                simd.store(weight, &mut p[at..]);
                simd.store(g, &mut gs[at..]);
            }
        }
    }
}

/// Zeros before and after the rows of `span`, as far as a register tile of `ROWS` can reach.
#[inline(always)]
fn clear_around<const ROWS: usize, N: Number>(p: &mut [N], span: Range<usize>, width: usize) {
    let len = p.len();
    p[span.start.saturating_sub(ROWS) * width..span.start * width].fill(N::default());
    p[span.end * width..len.min((span.end + ROWS) * width)].fill(N::default());
}

/// `to [keys, dims] += p · rows`: p lies tile by tile, `[BLOCK, queries]` each, of which the rows in `spans` count,
/// and rows as [`pack_rows`] leaves them.
#[inline(always)]
fn add_rows<S: Simd, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    spans: &[Range<usize>],
    rows: &[S::N],
    to: &mut [S::N],
    keys: usize,
) {
    let width = COLUMNS * S::LANES;
    let (queries, padded) = (spans.len() * width, to.len() / keys);
    for column in (0..padded).step_by(width) {
        let rows = &rows[queries * column..];
        let to = &mut to[column..];
        if padded - column >= width {
            add_columns::<S, ROWS, COLUMNS>(simd, p, spans, rows, to, [keys, padded]);
        } else {
            add_columns::<S, ROWS, 1>(simd, p, spans, rows, to, [keys, padded]);
        }
    }
}

#[inline(always)]
fn add_columns<S: Simd, const ROWS: usize, const COLS: usize>(
    simd: S,
    p: &[S::N],
    spans: &[Range<usize>],
    rows: &[S::N],
    to: &mut [S::N],
    [keys, stride]: [usize; 2],
) {
    let mut key = 0;
    simd.apart(|| {
        while worth(keys - key, ROWS) {
            add_tile::<S, ROWS, COLS>(simd, p, spans, rows, key, to, stride);
            key += ROWS;
        }
    });
    while keys - key >= 4 {
        add_tile::<S, 4, COLS>(simd, p, spans, rows, key, to, stride);
        key += 4;
    }
    while key < keys {
        add_tile::<S, 1, COLS>(simd, p, spans, rows, key, to, stride);
        key += 1;
    }
}

/// [`add_columns`] for `ROWS` keys from `key` on.
#[inline(always)]
fn add_tile<S: Simd, const ROWS: usize, const COLS: usize>(
    simd: S,
    p: &[S::N],
    spans: &[Range<usize>],
    rows: &[S::N],
    key: usize,
    to: &mut [S::N],
    stride: usize,
) {
    let (width, columns) = (COLUMNS * S::LANES, COLS * S::LANES);
    let mut sums = [[simd.constant(0.0); COLS]; ROWS];
    for (tile, span) in spans.iter().enumerate() {
        if span.start < key + ROWS && key < span.end {
            let grid = Grid { values: &p[(tile * BLOCK + key) * width..], row: width, step: 1 };
            let rows = &rows[tile * width * columns..];
            sums = add_product::<S, Single, S::N, ROWS, COLS>(simd, sums, grid, rows, columns, width, || ());
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let to = &mut to[(key + r) * stride..][..columns];
        for (c, sum) in sums.into_iter().enumerate() {
            let to = &mut to[c * S::LANES..];
            simd.store(simd.add(simd.load(to), sum), to);
        }
    }
}

/// a·b of one token.
#[inline(always)]
fn dot_of<S: Simd<N = T::Number>, T: Element>(
    simd: S,
    a: TensorView<T>,
    b: TensorView<T>,
    [batch, head, token]: [usize; 3],
) -> T::Number {
    let (a, b) = (a.vector(batch, head, token), b.vector(batch, head, token));
    let mut sum = simd.constant(0.0);
    let mut done = 0;
    if let (Some(a), Some(b)) = (a.as_slice(), b.as_slice()) {
        while done + S::LANES <= a.len() {
            sum = simd.mul_add(T::load(simd, &a[done..]), T::load(simd, &b[done..]), sum);
            done += S::LANES;
        }
    }
    let rest: f64 = a.iter().zip(b.iter()).skip(done).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
    T::Number::from_f64(simd.sum(sum).to_f64() + rest)
}
