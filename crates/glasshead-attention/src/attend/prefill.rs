//! The fused path: many queries, one pass over the keys, no matrix of weights.
//!
//! Queries lie in the vector lanes, so k and v rows are only broadcast and every sum over keys is a
//! vertical operation:
//!
//! ```text
//! for each tile of queries:                      (tiles are independent: they are what threads share out)
//!     m = −∞, l = 0, o = 0
//!     for each block of keys that the tile may see:
//!         s  = k·qᵀ · scale, softcap, −slope·distance, + mask;  hidden → −∞
//!         m' = max(m, max s),  c = exp(m − m')
//!         p  = exp(s − m'),  l = l·c + Σ p,  o = o·c + vᵀ·p,  m = m'
//!     out = o / l
//! ```
//!
//! (Milakov and Gimelshein 2018; Rabe and Staats 2021; Dao et al. 2022.) The scale is applied to the
//! score, not folded into q, so scores round as in the plain computation. A row whose result cannot be
//! vouched for (NaN, or no key with a weight) is computed again by the reference: there a hidden NaN is
//! never touched, while here 0 · NaN would leak it.

use super::{Problem, rowwise};
use crate::{
    Element,
    isa::{InstructionSet, Kernel, Simd},
    mask::Mask,
    reference::Row,
    softmax::{exp, tanh},
    threads,
};

/// Keys per block: its scores (16 KiB with AVX-512) stay in the first cache.
const KEYS: usize = 128;
/// Vectors of queries per tile.
const COLUMNS: usize = 2;
/// Bytes of a cache line, and of the largest vector.
const LINE: usize = 64;

/// Computes `out [batch, heads, queries, value_dim]`.
pub(crate) fn run<T: Element>(problem: &Problem<T>, isa: InstructionSet, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let queries = COLUMNS * isa.lanes();
    let head_len = problem.queries * problem.value_dim;
    let tiles_per_head = problem.queries.div_ceil(queries);
    let mut tiles: Vec<&mut [T]> =
        out.chunks_mut(head_len).flat_map(|head| head.chunks_mut(queries * problem.value_dim)).collect();
    threads::for_each_chunk(&mut tiles, 1, Workspace::default, |workspace, index, tiles| {
        let (batch_head, tile) = (index / tiles_per_head, index % tiles_per_head);
        let (batch, head) = (batch_head / problem.heads, batch_head % problem.heads);
        let out = &mut *tiles[0];
        isa.dispatch(Tile { problem, batch, head, first: tile * queries, out, workspace });
    });
}

/// Memory of one worker: O(tile · dim), whatever the number of keys.
#[derive(Default)]
struct Workspace {
    /// qᵀ `[dim, queries]`
    q: Lines,
    /// s, then p `[KEYS, queries]`
    p: Lines,
    /// The mask's share of the scores `[KEYS, queries]`
    bias: Lines,
    /// oᵀ `[value_dim, queries]`
    o: Lines,
    /// Rows of k and v as f32, where they do not lie so.
    k: Lines,
    v: Lines,
    row: Row,
}

/// Numbers that start on a cache line, so that no vector straddles two.
#[derive(Default)]
struct Lines(Vec<f32>);

impl Lines {
    fn get(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + LINE {
            self.0.resize(len + LINE, 0.0);
        }
        let start = self.0.as_ptr().align_offset(LINE).min(LINE);
        &mut self.0[start..start + len]
    }
}

/// Rows of f32, `stride` apart.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
}

/// One tile of queries of one head.
struct Tile<'a, 'p, T> {
    problem: &'a Problem<'p, T>,
    batch: usize,
    head: usize,
    /// The first query.
    first: usize,
    /// `[queries of the tile, value_dim]`
    out: &'a mut [T],
    workspace: &'a mut Workspace,
}

impl<T: Element> Kernel for Tile<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // ROWS is a constant of S: one arm is left after compilation.
        match S::ROWS {
            8 => self.attend::<S, 8>(simd),
            6 => self.attend::<S, 6>(simd),
            _ => self.attend::<S, 4>(simd),
        }
    }
}

impl<T: Element> Tile<'_, '_, T> {
    #[inline(always)]
    fn attend<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { problem, batch, head, first, out, workspace } = self;
        let (dim, value_dim) = (problem.dim, problem.value_dim);
        let width = COLUMNS * S::LANES;
        let count = out.len() / value_dim;
        let query_at = |lane: usize| first + lane.min(count - 1);

        let q = workspace.q.get(dim * width);
        for lane in 0..width {
            let vector = problem.q.vector(batch, head, query_at(lane));
            for (d, value) in vector.iter().enumerate() {
                q[d * width + lane] = value.to_f32();
            }
        }
        let o = workspace.o.get(value_dim * width);
        o.fill(0.0);
        let ranges = Ranges::new(problem, batch, (0..width).map(query_at));
        let lowest = simd.splat(f32::NEG_INFINITY);
        let zero = simd.splat(0.0);
        let mut max = [lowest; COLUMNS];
        let mut sum = [zero; COLUMNS];
        let key_head = head / problem.group;
        let k_rows = problem.k.f32_rows(batch, key_head);
        let v_rows = problem.v.f32_rows(batch, key_head);

        for start in (ranges.start..ranges.end).step_by(KEYS) {
            let len = KEYS.min(ranges.end - start);
            let k = match k_rows {
                Some((values, stride)) => Rows { values: &values[start * stride..], stride },
                None => widen(
                    workspace.k.get(KEYS * dim),
                    dim,
                    (start..start + len).map(|key| problem.k.vector(batch, key_head, key)),
                ),
            };
            let p = workspace.p.get(KEYS * width);
            let mut scores = Scores {
                q,
                k,
                p,
                dim,
                scale: problem.scale as f32,
                softcap: problem.softcap as f32,
                slope: problem.slope(head),
                distance: problem.visibility.position(first).saturating_sub(start as i64),
                bounds: ranges.bounds(simd, start, len),
                bias: problem.mask().map(|mask| {
                    let bias = workspace.bias.get(KEYS * width);
                    pack_bias(mask, [batch, head, first, start], count, &ranges, bias, width);
                    &*bias
                }),
                max: [lowest; COLUMNS],
            };
            let whole = len - len % ROWS;
            for key in (0..whole).step_by(ROWS) {
                scores.compute::<S, ROWS>(simd, key);
            }
            for key in whole..len {
                scores.compute::<S, 1>(simd, key);
            }
            let block_max = scores.max;

            let mut shrink = [zero; COLUMNS];
            let mut base = [zero; COLUMNS];
            for c in 0..COLUMNS {
                let new = simd.max(max[c], block_max[c]);
                // While nothing is visible the maximum is −∞, and −∞ − −∞ would be NaN.
                base[c] = simd.select_less(lowest, new, new, zero);
                shrink[c] = exp(simd, simd.sub(max[c], base[c]));
                max[c] = new;
            }
            let mut block_sum = [zero; COLUMNS];
            for p in p[..len * width].chunks_exact_mut(width) {
                for (c, p) in p.chunks_exact_mut(S::LANES).enumerate() {
                    let e = exp(simd, simd.sub(simd.load(p), base[c]));
                    block_sum[c] = simd.add(block_sum[c], e);
                    simd.store(e, p);
                }
            }
            for c in 0..COLUMNS {
                sum[c] = simd.mul_add(sum[c], shrink[c], block_sum[c]);
            }

            let p = &p[..len * width];
            let v = match v_rows {
                Some((values, stride)) => Rows { values: &values[start * stride..], stride },
                None => {
                    let rows = (start..start + len).map(|key| problem.v.vector(batch, key_head, key));
                    widen(workspace.v.get(KEYS * value_dim), value_dim, rows)
                }
            };
            let whole = value_dim - value_dim % ROWS;
            for d in (0..whole).step_by(ROWS) {
                mix::<S, ROWS>(simd, p, v, d, shrink, &mut o[d * width..(d + ROWS) * width]);
            }
            for d in whole..value_dim {
                mix::<S, 1>(simd, p, v, d, shrink, &mut o[d * width..(d + 1) * width]);
            }
        }

        let lanes = workspace.p.get(KEYS * width);
        let mut vouched = [true; MAX_WIDTH];
        for c in 0..COLUMNS {
            let mut grow = simd.splat(1.0);
            if let Some(sinks) = problem.sinks {
                let sink = simd.splat(sinks[head]);
                let new = simd.max(max[c], sink);
                grow = exp(simd, simd.sub(max[c], new));
                sum[c] = simd.mul_add(sum[c], grow, exp(simd, simd.sub(sink, new)));
            }
            simd.store(max[c], &mut lanes[c * S::LANES..]);
            for o in o.chunks_exact_mut(width) {
                let o = &mut o[c * S::LANES..(c + 1) * S::LANES];
                simd.store(simd.div(simd.mul(simd.load(o), grow), sum[c]), o);
            }
        }
        for (vouched, max) in vouched.iter_mut().zip(lanes) {
            *vouched = *max > f32::NEG_INFINITY;
        }
        for (lane, out) in out.chunks_exact_mut(value_dim).enumerate() {
            let mut nan = false;
            for (d, out) in out.iter_mut().enumerate() {
                let value = o[d * width + lane];
                nan |= value.is_nan();
                *out = T::from_f32(value);
            }
            if nan || !vouched[lane] {
                rowwise::one(problem, batch, head, first + lane, &mut workspace.row, out);
            }
        }
    }
}

/// The most queries of a tile, over all sets.
const MAX_WIDTH: usize = COLUMNS * 16;

/// The keys that each query of a tile may see, before any mask array.
struct Ranges {
    /// The union: what is visited.
    start: usize,
    end: usize,
    /// The intersection: what needs no look per query.
    common: std::ops::Range<usize>,
    starts: [usize; MAX_WIDTH],
    ends: [usize; MAX_WIDTH],
}

impl Ranges {
    #[inline(always)]
    fn new<T: Element>(problem: &Problem<T>, batch: usize, queries: impl Iterator<Item = usize>) -> Self {
        let mut ranges = Self {
            start: usize::MAX,
            end: 0,
            common: 0..usize::MAX,
            starts: [0; MAX_WIDTH],
            ends: [0; MAX_WIDTH],
        };
        for (lane, query) in queries.enumerate() {
            let keys = problem.visibility.keys(batch, query);
            (ranges.starts[lane], ranges.ends[lane]) = (keys.start, keys.end);
            ranges.common.start = ranges.common.start.max(keys.start);
            ranges.common.end = ranges.common.end.min(keys.end);
            if !keys.is_empty() {
                ranges.start = ranges.start.min(keys.start);
                ranges.end = ranges.end.max(keys.end);
            }
        }
        ranges.start = ranges.start.min(ranges.end);
        ranges
    }

    /// From which to before which key of this block each lane may look; `None` where all see all.
    #[inline(always)]
    fn bounds<S: Simd>(&self, simd: S, start: usize, len: usize) -> Option<[[S::F; 2]; COLUMNS]> {
        if self.common.start <= start && start + len <= self.common.end {
            return None;
        }
        Some(std::array::from_fn(|c| {
            let mut lanes = [[0.0; 16]; 2];
            for (lanes, edges) in lanes.iter_mut().zip([&self.starts, &self.ends]) {
                for (lane, edge) in lanes.iter_mut().zip(&edges[c * S::LANES..(c + 1) * S::LANES]) {
                    *lane = edge.saturating_sub(start).min(len) as f32;
                }
            }
            [simd.load(&lanes[0]), simd.load(&lanes[1])]
        }))
    }
}

/// Copies rows that are not f32, or not dense, as f32 into the workspace.
fn widen<'a, T: Element>(
    to: &'a mut [f32],
    dim: usize,
    rows: impl Iterator<Item = crate::Vector<'a, T>>,
) -> Rows<'a> {
    for (to, row) in to.chunks_exact_mut(dim).zip(rows) {
        for (to, value) in to.iter_mut().zip(row.iter()) {
            *to = value.to_f32();
        }
    }
    Rows { values: to, stride: dim }
}

/// Turns a block of the mask around, `[keys, queries]`; −∞ where a key is hidden.
fn pack_bias(
    mask: &Mask,
    [batch, head, first, start]: [usize; 4],
    count: usize,
    ranges: &Ranges,
    bias: &mut [f32],
    width: usize,
) {
    bias.fill(f32::NEG_INFINITY);
    for lane in 0..width {
        let query = first + lane.min(count - 1);
        // Keys outside the range may lie outside the mask too.
        let from = ranges.starts[lane].clamp(start, start + KEYS);
        let to = ranges.ends[lane].clamp(start, start + KEYS);
        for key in from..to {
            if let Some(value) = mask.bias(batch, head, query, key) {
                bias[(key - start) * width + lane] = value as f32;
            }
        }
    }
}

/// One block of keys on its way to scores.
struct Scores<'a, F> {
    q: &'a [f32],
    k: Rows<'a>,
    p: &'a mut [f32],
    dim: usize,
    scale: f32,
    softcap: f32,
    slope: f32,
    /// Position of the first query minus the first key of the block.
    distance: i64,
    bounds: Option<[[F; 2]; COLUMNS]>,
    bias: Option<&'a [f32]>,
    max: [F; COLUMNS],
}

impl<F: Copy> Scores<'_, F> {
    /// The scores of `ROWS` keys from `key` on, for all queries of the tile; keeps the maximum.
    #[inline(always)]
    fn compute<S: Simd<F = F>, const ROWS: usize>(&mut self, simd: S, key: usize) {
        let width = COLUMNS * S::LANES;
        let q = &self.q[..self.dim * width];
        let rows: [&[f32]; ROWS] =
            std::array::from_fn(|r| &self.k.values[(key + r) * self.k.stride..][..self.dim]);
        let mut s = [[simd.splat(0.0); COLUMNS]; ROWS];
        for (d, q) in q.chunks_exact(width).enumerate() {
            let q: [F; COLUMNS] = std::array::from_fn(|c| simd.load(&q[c * S::LANES..]));
            for (s, row) in s.iter_mut().zip(&rows) {
                let k = simd.splat(row[d]);
                for (s, q) in s.iter_mut().zip(q) {
                    *s = simd.mul_add(k, q, *s);
                }
            }
        }
        for (r, s) in s.into_iter().enumerate() {
            let at = (key + r) * width;
            for (c, s) in s.into_iter().enumerate() {
                let s = self.finish(simd, s, key + r, c);
                self.max[c] = simd.max(self.max[c], s);
                simd.store(s, &mut self.p[at + c * S::LANES..]);
            }
        }
    }

    /// From q·k to the score: scale, softcap, distance, mask, and −∞ for what is hidden.
    #[inline(always)]
    fn finish<S: Simd<F = F>>(&self, simd: S, dot: F, key: usize, c: usize) -> F {
        let hidden = simd.splat(f32::NEG_INFINITY);
        let mut s = simd.mul(dot, simd.splat(self.scale));
        if self.softcap > 0.0 {
            let cap = simd.splat(self.softcap);
            s = simd.mul(cap, tanh(simd, simd.div(s, cap)));
        }
        if self.slope != 0.0 {
            let lanes = simd.add(simd.lanes(), simd.splat((c * S::LANES) as f32));
            let distance = simd.add(simd.splat((self.distance - key as i64) as f32), lanes);
            let distance = simd.max(distance, simd.sub(simd.splat(0.0), distance));
            s = simd.mul_add(distance, simd.splat(-self.slope), s);
        }
        if let Some(bias) = self.bias {
            let bias = simd.load(&bias[key * COLUMNS * S::LANES + c * S::LANES..]);
            // Only −∞ is below the lowest finite number; NaN is not, and stays.
            s = simd.select_less(bias, simd.splat(f32::MIN), hidden, simd.add(s, bias));
        }
        if let Some(bounds) = &self.bounds {
            let [start, end] = bounds[c];
            let key = simd.splat(key as f32);
            s = simd.select_less(key, start, hidden, s);
            s = simd.select_less(key, end, s, hidden);
        }
        s
    }
}

/// o·shrink + vᵀ·p for `ROWS` dims of the values from `d` on: `o [ROWS, queries]`.
#[inline(always)]
fn mix<S: Simd, const ROWS: usize>(
    simd: S,
    p: &[f32],
    v: Rows,
    d: usize,
    shrink: [S::F; COLUMNS],
    o: &mut [f32],
) {
    let width = COLUMNS * S::LANES;
    let mut sums = [[simd.splat(0.0); COLUMNS]; ROWS];
    for (key, p) in p.chunks_exact(width).enumerate() {
        let p: [S::F; COLUMNS] = std::array::from_fn(|c| simd.load(&p[c * S::LANES..]));
        let row = &v.values[key * v.stride + d..][..ROWS];
        for (sums, v) in sums.iter_mut().zip(row) {
            let v = simd.splat(*v);
            for (sum, p) in sums.iter_mut().zip(p) {
                *sum = simd.mul_add(v, p, *sum);
            }
        }
    }
    for (o, sums) in o.chunks_exact_mut(width).zip(sums) {
        for ((o, sum), shrink) in o.chunks_exact_mut(S::LANES).zip(sums).zip(shrink) {
            simd.store(simd.mul_add(simd.load(o), shrink, sum), o);
        }
    }
}
