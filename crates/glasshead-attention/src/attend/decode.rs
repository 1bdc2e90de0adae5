//! The fused path for few queries and many keys, which is bound by reading k and v: both are read once per
//! key head for all its query heads, and the keys are cut into chunks that threads share out.
//!
//! Dims lie in the vector lanes for q·k, keys for the exponentials, dims again for the values. Chunks are cut
//! at multiples of [`CHUNK`] whatever the number of threads, and merged in order:
//!
//! ```text
//! m = max mᵢ,  l = Σ lᵢ·exp(mᵢ − m),  o = Σ oᵢ·exp(mᵢ − m),  out = o / l
//! ```

use std::{f64::consts::LN_2, ops::Range};

use super::{
    Problem,
    ahead::{Ahead, Share, pairs},
    pack::{Rows, Source},
    score::{Running, Seen, Terms, doubt, with_sink},
    workspace::Workspace,
};
use crate::{
    Element,
    isa::{Dot, Grid, Kernel, Lanes, MAX_LANES, Number, Simd, Single, Stored, UNROLL, dots, product},
    reference::Normalizer,
    softmax::exp2,
};

/// Keys per chunk: what one thread reads at a time.
pub(super) const CHUNK: usize = 512;
/// Keys per block within a chunk: memory gives k and v in turns, and long turns cost less.
const BLOCK: usize = 256;
/// Keys whose values stay in the first cache while one row of q after the other uses them.
const PART: usize = 32;
/// Rows of q that share a key in registers.
const TILE: usize = 4;

/// Rows of q of the key heads that are read together: their scores share the second cache with keys and values.
const ROWS_TOGETHER: usize = 64;

/// Bytes of k and v from which on they come from memory, and asking for them ahead gives more than it costs.
const FROM_MEMORY: usize = 1 << 24;

/// One chunk of the keys of some key heads, and all queries of a sequence in their query heads. More than one where the
/// heads of a token lie side by side: they are read in the order in which they lie.
pub(super) struct Chunk<'a, 'p, T: Element> {
    pub(super) problem: &'a Problem<'p, T>,
    pub(super) batch: usize,
    pub(super) key_heads: Range<usize>,
    pub(super) queries: Range<usize>,
    /// Those that some query sees.
    pub(super) keys: Range<usize>,
    /// For each key head its rows, see [`Layout`], and after them, if readouts want them, their scores, `[rows, CHUNK]`.
    pub(super) partial: &'a mut [T::Number],
    pub(super) workspace: &'a mut Workspace<T::Number>,
}

/// How many key heads are read together, each with so many rows of q.
pub(super) fn most_heads(rows: usize) -> usize {
    (ROWS_TOGETHER / rows).clamp(1, BLOCK / PART)
}

/// A partial result: per row the weighted values `[padded]`, the maximum and the sum.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// value_dim, padded to whole vectors.
    padded: usize,
}

impl Layout {
    pub(super) fn new(value_dim: usize, lanes: usize) -> Self {
        Self { padded: value_dim.next_multiple_of(lanes) }
    }

    pub(super) fn row(self) -> usize {
        self.padded + 2
    }
}

impl<T: Element> Kernel<T::Number> for Chunk<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) {
        self.attend::<S, T::Dot<S>>(simd);
    }
}

impl<T: Element> Chunk<'_, '_, T> {
    #[inline(always)]
    fn attend<S: Simd<N = T::Number>, D: Dot<S>>(self, simd: S) {
        let Self { problem, batch, key_heads, queries, keys, partial, workspace } = self;
        let layout = Layout::new(problem.value_dim, S::LANES);
        let heads = key_heads.len();
        let rows = problem.group * queries.len();
        let depth = problem.dim.div_ceil(D::DEPTH).next_multiple_of(S::LANES);
        // Row r of a key head is query r / group of its query head r % group: rows of one query see the same keys.
        let row_at = |n: usize, r: usize| {
            let head = (key_heads.start + n) * problem.group + r % problem.group;
            (head, queries.start + r / problem.group)
        };

        let q = workspace.q.get(heads * rows * depth);
        for (r, q) in q.chunks_exact_mut(depth).enumerate() {
            let (head, query) = row_at(r / rows, r % rows);
            let source = Source::new(problem.q, batch, head, depth * D::DEPTH);
            source.copy::<S, D>(simd, query..query + 1, depth, q);
        }
        let lowest = T::Number::from_f64(f64::NEG_INFINITY);
        let unit = partial.len() / heads;
        for partial in partial.chunks_exact_mut(unit) {
            for partial in partial[..rows * layout.row()].chunks_exact_mut(layout.row()) {
                partial.fill(T::Number::default());
                partial[layout.padded] = lowest;
            }
        }

        let tokens = problem.batch.saturating_mul(problem.heads / problem.group).saturating_mul(problem.keys);
        let far = tokens.saturating_mul((problem.dim + problem.value_dim) * size_of::<T>()) >= FROM_MEMORY;
        let each = if far { pairs(problem.k).max(pairs(problem.v)) } else { 0 };
        // A part of the keys: so that what is asked for ahead is as much for many heads as for one, and the second
        // cache holds it.
        let len = BLOCK / heads / PART * PART;
        for start in keys.clone().step_by(BLOCK) {
            let block = start..keys.end.min(start + BLOCK);
            let part = |start: usize| start..block.end.min(start + len);
            let parts = || block.clone().step_by(len).map(part);
            let p = workspace.p.get(heads * rows * BLOCK);
            p.fill(lowest);
            // While keys are multiplied the next ones come into the second cache, and at last their values; while
            // values are, the next, and at last the keys of the next block: memory never waits for sums.
            for keys in parts() {
                let next = part(keys.end);
                let (view, next) = if next.is_empty() { (problem.v, part(start)) } else { (problem.k, next) };
                let mut ahead = Ahead::nothing(heads * keys.len(), each);
                ahead.tokens(view, batch, key_heads.clone(), next);
                for (n, (q, p)) in
                    q.chunks_exact(rows * depth).zip(p.chunks_exact_mut(rows * BLOCK)).enumerate()
                {
                    let (p, len) = (&mut p[keys.start - start..], keys.len());
                    let k = Source::new(problem.k, batch, key_heads.start + n, depth * D::DEPTH);
                    match k.unpadded() {
                        // Widened in registers, for a key is read once.
                        Some(k) if D::DEPTH == 1 => {
                            score::<S, D, T>(simd, k.skip(keys.start), len, q, depth, p, &mut ahead);
                        }
                        _ => {
                            let k = k.block::<S, D>(simd, keys.clone(), &mut workspace.k);
                            score::<S, D, D::Item>(simd, k, len, q, depth, p, &mut ahead);
                        }
                    }
                }
            }
            for (n, (p, partial)) in
                p.chunks_exact_mut(rows * BLOCK).zip(partial.chunks_exact_mut(unit)).enumerate()
            {
                let (partial, stash) = partial.split_at_mut(rows * layout.row());
                for (r, (p, partial)) in
                    p.chunks_exact_mut(BLOCK).zip(partial.chunks_exact_mut(layout.row())).enumerate()
                {
                    let (head, query) = row_at(n, r);
                    let row = Row { problem, batch, head, query };
                    let p = &mut p[..block.len().next_multiple_of(S::LANES)];
                    row.score(simd, p, block.clone());
                    if !stash.is_empty() {
                        stash[r * CHUNK + start - keys.start..][..block.len()]
                            .copy_from_slice(&p[..block.len()]);
                    }
                    row.weigh(simd, p, partial, layout);
                }
            }
            for keys in parts() {
                let next = part(keys.end);
                let after = block.end..problem.keys.min(block.end + len);
                let (view, next) = if next.is_empty() { (problem.k, after) } else { (problem.v, next) };
                let mut ahead = Ahead::nothing(heads * keys.len().div_ceil(PART), PART * each);
                ahead.tokens(view, batch, key_heads.clone(), next);
                for (n, (p, partial)) in
                    p.chunks_exact(rows * BLOCK).zip(partial.chunks_exact_mut(unit)).enumerate()
                {
                    let (p, size) = (&p[keys.start - start..], [rows, keys.len()]);
                    let v = Source::new(problem.v, batch, key_heads.start + n, layout.padded);
                    match v.unpadded() {
                        Some(v) => {
                            mix(simd, p, v.skip(keys.start), size, partial, layout, &mut ahead);
                        }
                        None => {
                            let v = v.block::<S, Single>(simd, keys.clone(), &mut workspace.v);
                            mix(simd, p, v, size, partial, layout, &mut ahead);
                        }
                    }
                }
            }
        }
    }
}

/// q·k of a block of keys for all rows of q, `p[r · BLOCK + key]`. Keys in the order in which they lie, one in a
/// register tile, for two are two streams, and memory gives a quarter less (measured); two where they are widened, which
/// takes longer than to read them, and where they come from a cache.
#[inline(always)]
fn score<S: Simd, D: Dot<S>, K: Lanes<Number = S::N>>(
    simd: S,
    k: Rows<K>,
    keys: usize,
    q: &[S::N],
    depth: usize,
    p: &mut [S::N],
    ahead: &mut Ahead,
) {
    let mut key = 0;
    while (size_of::<K>() < size_of::<S::N>() || ahead.is_idle()) && keys - key >= 2 {
        ahead.next(q).fetch_all(simd);
        ahead.next(q).fetch_all(simd);
        score_keys::<S, D, K, 2>(simd, k.skip(key), q, depth, &mut p[key..]);
        key += 2;
    }
    while key < keys {
        ahead.next(q).fetch_all(simd);
        score_keys::<S, D, K, 1>(simd, k.skip(key), q, depth, &mut p[key..]);
        key += 1;
    }
}

/// [`score`] of the keys of one register tile.
#[inline(always)]
fn score_keys<S: Simd, D: Dot<S>, K: Lanes<Number = S::N>, const TOGETHER: usize>(
    simd: S,
    k: Rows<K>,
    q: &[S::N],
    depth: usize,
    p: &mut [S::N],
) {
    let rows = q.len() / depth;
    let k: [&[K]; TOGETHER] = std::array::from_fn(|key| &k.skip(key).values[..depth]);
    let mut r = 0;
    while rows - r >= TILE {
        let sums = dots::<S, D, K, TOGETHER, TILE>(simd, k, &q[r * depth..], depth);
        for (key, sums) in sums.into_iter().enumerate() {
            for (i, sum) in simd.sums(sums).into_iter().enumerate() {
                p[(r + i) * BLOCK + key] = sum;
            }
        }
        r += TILE;
    }
    while r < rows {
        let sums = dots::<S, D, K, TOGETHER, 1>(simd, k, &q[r * depth..], depth);
        for (key, [sum]) in sums.into_iter().enumerate() {
            p[r * BLOCK + key] = simd.sum(sum);
        }
        r += 1;
    }
}

/// One query of one head.
struct Row<'a, 'p, T: Element> {
    problem: &'a Problem<'p, T>,
    batch: usize,
    head: usize,
    query: usize,
}

impl<T: Element> Row<'_, '_, T> {
    /// Turns q·k of a block into scores, see [`Terms::unit`], −∞ where a key is hidden and past the end.
    #[inline(always)]
    fn score<S: Simd<N = T::Number>>(&self, simd: S, p: &mut [T::Number], block: Range<usize>) {
        let terms = Terms::new(self.problem, self.head);
        let seen = self.problem.visibility.keys(self.batch, self.query);
        let all = seen.start <= block.start && block.end <= seen.end;
        if !(terms.plain && all && self.problem.mask().is_none()) {
            self.finish(simd, p, &block, seen, &terms);
        }
    }

    /// Turns the scores of a block into exp(score − max), and takes them into the partial result.
    #[inline(always)]
    fn weigh<S: Simd<N = T::Number>>(
        &self,
        simd: S,
        p: &mut [T::Number],
        partial: &mut [T::Number],
        layout: Layout,
    ) {
        let terms = Terms::new(self.problem, self.head);
        let mut max = simd.constant(f64::NEG_INFINITY);
        for p in p.chunks_exact(S::LANES) {
            max = simd.max(max, simd.load(p));
        }
        let mut lanes = [T::Number::default(); MAX_LANES];
        simd.store(max, &mut lanes);
        let lanes = &lanes[..S::LANES];
        let largest = lanes[1..].iter().fold(lanes[0], |max, &x| if x > max { x } else { max });
        let unit = simd.splat(terms.unit());
        let (o, running) = partial.split_at_mut(layout.padded);
        let mut row = Running { max: simd.splat(running[0]), sum: simd.splat(running[1]) };
        let (base, shrink) = row.raise(simd, simd.mul(simd.splat(largest), unit));
        let base = simd.sub(simd.constant(0.0), base);
        let mut sum = simd.constant(0.0);
        for p in p.chunks_exact_mut(S::LANES) {
            let e = exp2(simd, simd.mul_add_once(simd.load(p), unit, base));
            sum = simd.add(sum, e);
            simd.store(e, p);
        }
        let total = simd.add(row.sum, simd.splat(simd.sum(sum)));
        let mut lanes = [T::Number::default(); MAX_LANES];
        simd.store(row.max, &mut lanes);
        running[0] = lanes[0];
        simd.store(total, &mut lanes);
        running[1] = lanes[0];
        for o in o.chunks_exact_mut(S::LANES) {
            simd.store(simd.mul(simd.load(o), shrink), o);
        }
    }

    /// From raw scores to those of the equation, see [`Terms::finish`], some hidden.
    #[inline(always)]
    fn finish<S: Simd<N = T::Number>>(
        &self,
        simd: S,
        p: &mut [T::Number],
        block: &Range<usize>,
        seen: Range<usize>,
        terms: &Terms<T::Number>,
    ) {
        let mask = self.problem.mask();
        let distance = self.problem.visibility.position(self.query).saturating_sub(block.start as i64);
        let clamp = |key: usize| key.saturating_sub(block.start).min(block.len());
        let (start, end) = (clamp(seen.start), clamp(seen.end));
        let mut bias = [T::Number::default(); BLOCK];
        if let Some(mask) = mask {
            bias.fill(T::Number::from_f64(f64::NEG_INFINITY));
            let keys = block.start + start..block.start + end;
            mask.row([self.batch, self.head, self.query], keys, &mut bias[start..end]);
        }
        for (n, p) in p.chunks_exact_mut(S::LANES).enumerate() {
            let key = simd.add(simd.lanes(), simd.constant((n * S::LANES) as f64));
            let seen = Seen { key, start: simd.constant(start as f64), end: simd.constant(end as f64) };
            let distance = || simd.sub(simd.constant(distance as f64), key);
            let bias = mask.map(|_| simd.load(&bias[n * S::LANES..]));
            let s = terms.finish(simd, simd.load(p), distance, bias);
            simd.store(seen.hide(simd, s), p);
        }
    }
}

/// o + p·v for all rows. Two rows of p take as many vectors of a value at once as the registers hold beside them, so
/// that values too are read in the order in which they lie; four rows half as many, for then each is loaded, or widened,
/// once for all of them.
#[inline(always)]
fn mix<S: Simd, V: Stored<Number = S::N>>(
    simd: S,
    p: &[S::N],
    v: Rows<V>,
    [rows, keys]: [usize; 2],
    partial: &mut [S::N],
    layout: Layout,
    ahead: &mut Ahead,
) {
    for start in (0..keys).step_by(PART) {
        let keys = PART.min(keys - start);
        let share = ahead.next(p);
        mix_part(simd, &p[start..], v.skip(start), [rows, keys], partial, layout, share);
    }
}

/// [`mix`] for some keys.
#[inline(always)]
fn mix_part<S: Simd, V: Stored<Number = S::N>>(
    simd: S,
    p: &[S::N],
    v: Rows<V>,
    [rows, keys]: [usize; 2],
    partial: &mut [S::N],
    layout: Layout,
    mut share: Share,
) {
    let wide = if rows < TILE { S::WIDE } else { S::WIDE / 2 };
    // Memory is asked a little in every register tile: for what is asked in one go all wait.
    let tiles =
        (rows / TILE + (rows % TILE).count_ones() as usize) * (layout.padded / S::LANES).div_ceil(wide);
    let each = share.len().div_ceil(tiles * (PART / UNROLL));
    // The largest power of 2 that is not more than either.
    let most = |left: usize, limit: usize| 1 << left.min(limit).ilog2();
    let mut d = 0;
    while d < layout.padded {
        let left = (layout.padded - d) / S::LANES;
        let v = Rows { values: &v.values[d..], ..v };
        let columns = most(left, wide);
        let mut r = 0;
        while r < rows {
            let p = &p[r * BLOCK..];
            let o = &mut partial[r * layout.row() + d..];
            let mut fetch = || share.fetch_some(simd, each);
            let together = most(rows - r, TILE);
            match (together, columns) {
                (4, 4) => mix_rows::<S, V, 4, 4>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (4, 2) => mix_rows::<S, V, 4, 2>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (4, _) => mix_rows::<S, V, 4, 1>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (2, 8) => mix_rows::<S, V, 2, 8>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (2, 4) => mix_rows::<S, V, 2, 4>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (2, 2) => mix_rows::<S, V, 2, 2>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (2, _) => mix_rows::<S, V, 2, 1>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (_, 8) => mix_rows::<S, V, 1, 8>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (_, 4) => mix_rows::<S, V, 1, 4>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (_, 2) => mix_rows::<S, V, 1, 2>(simd, p, v, keys, o, layout.row(), &mut fetch),
                (_, _) => mix_rows::<S, V, 1, 1>(simd, p, v, keys, o, layout.row(), &mut fetch),
            }
            r += together;
        }
        d += columns * S::LANES;
    }
}

/// [`mix`] for some rows and vectors.
#[inline(always)]
fn mix_rows<S: Simd, V: Stored<Number = S::N>, const ROWS: usize, const COLS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<V>,
    keys: usize,
    o: &mut [S::N],
    o_stride: usize,
    beside: impl FnMut(),
) {
    let grid = Grid { values: p, row: BLOCK, step: 1 };
    let sums = product::<S, Single, V, ROWS, COLS>(simd, grid, v.values, v.stride, keys, beside);
    for r in 0..ROWS {
        for c in 0..COLS {
            let o = &mut o[r * o_stride + c * S::LANES..][..S::LANES];
            simd.store(simd.add(simd.load(o), sums[r][c]), o);
        }
    }
}

/// One row of the output from its partial results.
pub(super) struct Merge<'a, T: Element> {
    /// Partial results of the chunks in order.
    pub(super) partials: &'a [T::Number],
    /// From one chunk to the next.
    pub(super) stride: usize,
    pub(super) value_dim: usize,
    pub(super) sink: Option<f32>,
    /// `[value_dim]`
    pub(super) out: &'a mut [T],
    pub(super) workspace: &'a mut Workspace<T::Number>,
}

impl<T: Element> Kernel<T::Number> for Merge<'_, T> {
    /// What normalises the row, if it has a weight and finite numbers alone, none of them far.
    type Out = Option<Normalizer>;

    #[inline(always)]
    fn run<S: Simd<N = T::Number>>(self, simd: S) -> Option<Normalizer> {
        let Self { partials, stride, value_dim, sink, out, workspace } = self;
        let layout = Layout::new(value_dim, S::LANES);
        let zero = simd.constant(0.0);
        let lowest = T::Number::from_f64(f64::NEG_INFINITY);
        let chunks = || partials.chunks(stride).map(|chunk| chunk[..layout.row()].split_at(layout.padded));
        let larger = |max, x| if x > max { x } else { max };
        let max = chunks().map(|(_, running)| running[0]).fold(lowest, larger);
        let (top, sink) = match sink {
            Some(sink) => with_sink(simd, simd.splat(max), sink),
            None => (simd.splat(max), zero),
        };
        let o = workspace.o.get(layout.padded);
        o.fill(T::Number::default());
        let mut sum = sink;
        for (part, running) in chunks() {
            let shrink = exp2(simd, simd.sub(simd.splat(running[0]), top));
            sum = simd.mul_add(simd.splat(running[1]), shrink, sum);
            for (o, part) in o.chunks_exact_mut(S::LANES).zip(part.chunks_exact(S::LANES)) {
                simd.store(simd.mul_add(simd.load(part), shrink, simd.load(o)), o);
            }
        }
        let share = simd.div(simd.constant(1.0), sum);
        let mut check = doubt(simd, simd.splat(max), top);
        for o in o.chunks_exact_mut(S::LANES) {
            let x = simd.mul(simd.load(o), share);
            // 0 · NaN and 0 · ∞ are NaN, and stay.
            check = simd.mul_add(x, zero, check);
            simd.store(x, o);
        }
        for (out, o) in out.iter_mut().zip(&*o) {
            *out = T::from_number(*o);
        }
        let mut lanes = [[T::Number::default(); MAX_LANES]; 3];
        for (lanes, x) in lanes.iter_mut().zip([top, sum, sink]) {
            simd.store(x, lanes);
        }
        let [top, sum, sink] = lanes.map(|lanes| lanes[0]);
        let vouched = simd.sum(check) == T::Number::default();
        vouched.then(|| Normalizer {
            lse: (top.to_f64() + sum.to_f64().log2()) * LN_2,
            sink_weight: sink.to_f64() / sum.to_f64(),
        })
    }
}

/// [`softmax`](crate::reference::softmax) of a row with scores of which the largest is finite, in vectors.
pub(super) struct Softmax<'a> {
    pub(super) scores: &'a [f64],
    pub(super) sink: Option<f64>,
    /// `[scores]`
    pub(super) weights: &'a mut [f64],
}

impl Kernel<f64> for Softmax<'_> {
    type Out = Normalizer;

    #[inline(always)]
    fn run<S: Simd<N = f64>>(self, simd: S) -> Normalizer {
        let Self { scores, sink, weights } = self;
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let log2_e = std::f64::consts::LOG2_E;
        let unit = simd.splat(log2_e);
        let mut sums = simd.constant(0.0);
        let mut lanes = [f64::NEG_INFINITY; MAX_LANES];
        for (scores, weights) in scores.chunks(S::LANES).zip(weights.chunks_mut(S::LANES)) {
            lanes[..S::LANES].fill(f64::NEG_INFINITY);
            lanes[..scores.len()].copy_from_slice(scores);
            let e = exp2(simd, simd.mul(simd.sub(simd.load(&lanes), simd.splat(max)), unit));
            sums = simd.add(sums, e);
            simd.store(e, &mut lanes);
            weights.copy_from_slice(&lanes[..weights.len()]);
        }
        let sink = sink.map_or(0.0, |sink| (sink - max).exp());
        let sum = simd.sum(sums) + sink;
        let share = 1.0 / sum;
        weights.iter_mut().for_each(|weight| *weight *= share);
        Normalizer { lse: max + sum.ln(), sink_weight: sink / sum }
    }
}
