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
//! (Milakov and Gimelshein 2018; Rabe and Staats 2021; Dao et al. 2022.) The scale is applied to the
//! score, not folded into q, so scores round as in the plain computation. A row whose result cannot be
//! vouched for (NaN, or no key with a weight) is computed again by the reference: there a hidden NaN is
//! never touched, while here 0 · NaN would leak it.

use std::{cell::RefCell, hint::black_box};

use super::{Problem, rowwise};
use crate::{
    Element, Vector,
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
/// Tiles per panel: how often a block of k and v is used once it is in the second cache.
const TILES: usize = 8;
/// Bytes of a cache line, and of the largest vector.
const LINE: usize = 64;

/// Computes `out [batch, heads, queries, value_dim]`.
pub(crate) fn run<T: Element>(problem: &Problem<T>, isa: InstructionSet, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let queries = TILES * COLUMNS * isa.lanes();
    let head_len = problem.queries * problem.value_dim;
    let panels_per_head = problem.queries.div_ceil(queries);
    let mut panels: Vec<&mut [T]> =
        out.chunks_mut(head_len).flat_map(|head| head.chunks_mut(queries * problem.value_dim)).collect();
    threads::for_each_chunk(
        &mut panels,
        1,
        || (),
        |(), index, panels| {
            let (batch_head, panel) = (index / panels_per_head, index % panels_per_head);
            let (batch, head) = (batch_head / problem.heads, batch_head % problem.heads);
            let out = &mut *panels[0];
            WORKSPACE.with_borrow_mut(|workspace| {
                isa.dispatch(Panel { problem, batch, head, first: panel * queries, out, workspace });
            });
        },
    );
}

thread_local! {
    /// Kept from call to call: small problems must not pay for fresh pages.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Memory of one thread: O(panel · dim), whatever the number of keys.
#[derive(Default)]
struct Workspace {
    /// qᵀ `[tiles, dim, queries]`
    q: Lines,
    /// s, then p `[KEYS, queries]`
    p: Lines,
    /// The mask's share of the scores `[KEYS, queries]`
    bias: Lines,
    /// oᵀ `[tiles, value_dim, queries]`
    o: Lines,
    /// Rows of k as f32, where they do not lie so.
    k: Lines,
    /// A block of v, see [`pack_values`].
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

/// Up to [`TILES`] tiles of queries of one head.
struct Panel<'a, 'p, T> {
    problem: &'a Problem<'p, T>,
    batch: usize,
    head: usize,
    /// The first query.
    first: usize,
    /// `[queries of the panel, value_dim]`
    out: &'a mut [T],
    workspace: &'a mut Workspace,
}

impl<T: Element> Kernel for Panel<'_, '_, T> {
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

/// What a tile carries from block to block: the largest score so far, and the sum of the exponentials.
#[derive(Clone, Copy)]
struct Running<F> {
    max: [F; COLUMNS],
    sum: [F; COLUMNS],
}

impl<T: Element> Panel<'_, '_, T> {
    #[inline(always)]
    fn attend<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { problem, batch, head, first, out, workspace } = self;
        let (dim, value_dim) = (problem.dim, problem.value_dim);
        let width = COLUMNS * S::LANES;
        let count = out.len() / value_dim;
        let tiles = count.div_ceil(width);
        // Lanes without a query of their own repeat the last one.
        let query_at = |tile: usize, lane: usize| first + (tile * width + lane).min(count - 1);
        let key_head = head / problem.group;

        let q = workspace.q.get(tiles * dim * width);
        let q_rows = problem.q.f32_rows(batch, head);
        for (tile, q) in q.chunks_exact_mut(dim * width).enumerate() {
            for lane in (0..width).step_by(S::LANES) {
                let query = tile * width + lane;
                let mut d = 0;
                if let Some((rows, stride)) = q_rows.filter(|_| query + S::LANES <= count) {
                    while d + S::LANES <= dim {
                        simd.transpose(
                            &rows[(first + query) * stride + d..],
                            stride,
                            &mut q[d * width + lane..],
                            width,
                        );
                        d += S::LANES;
                    }
                }
                for lane in lane..lane + S::LANES {
                    let vector = problem.q.vector(batch, head, query_at(tile, lane));
                    for (q, value) in q.chunks_exact_mut(width).zip(vector.iter()).skip(d) {
                        q[lane] = value.to_f32();
                    }
                }
            }
        }
        let o = workspace.o.get(tiles * value_dim * width);
        o.fill(0.0);
        let ranges: [Ranges; TILES] = std::array::from_fn(|tile| match tile < tiles {
            true => Ranges::new(problem, batch, (0..width).map(|lane| query_at(tile, lane))),
            false => Ranges::NONE,
        });
        let mut running =
            [Running { max: [simd.splat(f32::NEG_INFINITY); COLUMNS], sum: [simd.splat(0.0); COLUMNS] };
                TILES];
        let start =
            ranges.iter().filter(|range| range.start < range.end).map(|range| range.start).min().unwrap_or(0);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let k_rows = problem.k.f32_rows(batch, key_head);

        for start in (start..end).step_by(KEYS) {
            let len = KEYS.min(end - start);
            let k = match k_rows {
                Some((values, stride)) => Rows { values: &values[start * stride..], stride },
                None => {
                    let rows = (start..start + len).map(|key| problem.k.vector(batch, key_head, key));
                    widen(workspace.k.get(KEYS * dim), dim, rows)
                }
            };
            let v = workspace.v.get(KEYS * value_dim);
            pack_values::<T, ROWS>(
                v,
                value_dim,
                (start..start + len).map(|key| problem.v.vector(batch, key_head, key)),
            );

            for (tile, ranges) in ranges[..tiles].iter().enumerate() {
                let from = ranges.start.max(start);
                let to = ranges.end.min(start + len);
                if from >= to {
                    continue;
                }
                let p = &mut workspace.p.get(KEYS * width)[..(to - from) * width];
                let skipped = from - start;
                let scores = Scores {
                    q: &q[tile * dim * width..(tile + 1) * dim * width],
                    k: Rows { values: &k.values[skipped * k.stride..], stride: k.stride },
                    dim,
                    scale: problem.scale as f32,
                    softcap: problem.softcap as f32,
                    slope: problem.slope(head),
                    distance: problem.visibility.position(first + tile * width).saturating_sub(from as i64),
                    bounds: ranges.bounds(simd, from, to - from),
                    bias: problem.mask().map(|mask| {
                        let bias = workspace.bias.get(KEYS * width);
                        pack_bias(
                            mask,
                            [batch, head, from],
                            |lane| query_at(tile, lane),
                            ranges,
                            bias,
                            width,
                        );
                        &*bias
                    }),
                };
                let shrink = scores.weigh::<S, ROWS>(simd, p, &mut running[tile]);
                let o = &mut o[tile * value_dim * width..(tile + 1) * value_dim * width];
                let whole = value_dim - value_dim % ROWS;
                for d in (0..whole).step_by(ROWS) {
                    let v = &v[d * KEYS + skipped * ROWS..];
                    mix::<S, ROWS>(simd, p, v, shrink, &mut o[d * width..(d + ROWS) * width]);
                }
                for d in whole..value_dim {
                    mix::<S, 1>(
                        simd,
                        p,
                        &v[d * KEYS + skipped..],
                        shrink,
                        &mut o[d * width..(d + 1) * width],
                    );
                }
            }
        }

        for (tile, out) in out.chunks_mut(width * value_dim).enumerate() {
            let o = &mut o[tile * value_dim * width..(tile + 1) * value_dim * width];
            let vouched = normalize(simd, running[tile], problem.sinks.map(|sinks| sinks[head]), o);
            unpack(simd, o, out, value_dim, workspace.p.get(KEYS * width));
            for (lane, out) in out.chunks_exact_mut(value_dim).enumerate() {
                if !vouched[lane] {
                    rowwise::one(problem, batch, head, query_at(tile, lane), &mut workspace.row, out);
                }
            }
        }
    }
}

/// o / l, with the sink's share in l. True for each lane that has a weight and finite numbers alone.
#[inline(always)]
fn normalize<S: Simd>(
    simd: S,
    running: Running<S::F>,
    sink: Option<f32>,
    o: &mut [f32],
) -> [bool; MAX_WIDTH] {
    let mut vouched = [false; MAX_WIDTH];
    for c in 0..COLUMNS {
        let (max, mut sum, mut grow) = (running.max[c], running.sum[c], simd.splat(1.0));
        if let Some(sink) = sink {
            let sink = simd.splat(sink);
            let new = simd.max(max, sink);
            grow = exp(simd, simd.sub(max, new));
            sum = simd.mul_add(sum, grow, exp(simd, simd.sub(sink, new)));
        }
        let share = simd.div(grow, sum);
        let zero = simd.splat(0.0);
        let mut check = zero;
        for o in o.chunks_exact_mut(COLUMNS * S::LANES) {
            let o = &mut o[c * S::LANES..(c + 1) * S::LANES];
            let x = simd.mul(simd.load(o), share);
            // 0 · NaN and 0 · ∞ are NaN, and stay.
            check = simd.mul_add(x, zero, check);
            simd.store(x, o);
        }
        let mut lanes = [[0.0; 16]; 2];
        simd.store(max, &mut lanes[0]);
        simd.store(check, &mut lanes[1]);
        for (lane, vouched) in vouched[c * S::LANES..(c + 1) * S::LANES].iter_mut().enumerate() {
            *vouched = lanes[0][lane] > f32::NEG_INFINITY && lanes[1][lane] == 0.0;
        }
    }
    vouched
}

/// Turns oᵀ `[dim, queries]` around into `out [queries, dim]`, rounded to its type; `square` is room for one
/// square of lanes.
#[inline(always)]
fn unpack<S: Simd, T: Element>(simd: S, o: &[f32], out: &mut [T], dim: usize, square: &mut [f32]) {
    let width = COLUMNS * S::LANES;
    for (block, out) in out.chunks_mut(S::LANES * dim).enumerate() {
        let lane = block * S::LANES;
        let mut d = 0;
        while d + S::LANES <= dim {
            simd.transpose(&o[d * width + lane..], width, square, S::LANES);
            for (out, row) in out.chunks_exact_mut(dim).zip(square.chunks_exact(S::LANES)) {
                for (out, x) in out[d..d + S::LANES].iter_mut().zip(row) {
                    *out = T::from_f32(*x);
                }
            }
            d += S::LANES;
        }
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            for (d, out) in out.iter_mut().enumerate().skip(d) {
                *out = T::from_f32(o[d * width + lane + i]);
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
    /// Of a tile without queries.
    const NONE: Self =
        Self { start: 0, end: 0, common: 0..usize::MAX, starts: [0; MAX_WIDTH], ends: [0; MAX_WIDTH] };

    #[inline(always)]
    fn new<T: Element>(problem: &Problem<T>, batch: usize, queries: impl Iterator<Item = usize>) -> Self {
        let mut ranges = Self { start: usize::MAX, ..Self::NONE };
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
    rows: impl Iterator<Item = Vector<'a, T>>,
) -> Rows<'a> {
    for (to, row) in to.chunks_exact_mut(dim).zip(rows) {
        match row.as_slice() {
            Some(row) => to.iter_mut().zip(row).for_each(|(to, value)| *to = value.to_f32()),
            None => to.iter_mut().zip(row.iter()).for_each(|(to, value)| *to = value.to_f32()),
        }
    }
    Rows { values: to, stride: dim }
}

/// Copies a block of v as `[value_dim / ROWS, KEYS, ROWS]`, the rest of the dims as `[rest, KEYS]`: the order
/// in which [`mix`] reads it, whatever the strides were. Done once per block and panel.
#[inline(always)]
fn pack_values<'a, T: Element, const ROWS: usize>(
    to: &mut [f32],
    dim: usize,
    rows: impl Iterator<Item = Vector<'a, T>>,
) {
    let whole = dim - dim % ROWS;
    for (key, row) in rows.enumerate() {
        if let Some(row) = row.as_slice() {
            for (to, row) in to.chunks_mut(ROWS * KEYS).zip(row.chunks_exact(ROWS)) {
                for (to, value) in to[key * ROWS..][..ROWS].iter_mut().zip(row) {
                    *to = value.to_f32();
                }
            }
            for (d, value) in (whole..dim).zip(&row[whole..]) {
                to[d * KEYS + key] = value.to_f32();
            }
        } else {
            for (d, value) in row.iter().enumerate() {
                let at =
                    if d < whole { d / ROWS * ROWS * KEYS + key * ROWS + d % ROWS } else { d * KEYS + key };
                to[at] = value.to_f32();
            }
        }
    }
}

/// Turns a block of the mask around, `[keys, queries]`; −∞ where a key is hidden.
fn pack_bias(
    mask: &Mask,
    [batch, head, start]: [usize; 3],
    query_at: impl Fn(usize) -> usize,
    ranges: &Ranges,
    bias: &mut [f32],
    width: usize,
) {
    bias.fill(f32::NEG_INFINITY);
    for lane in 0..width {
        // Keys outside the range may lie outside the mask too.
        let from = ranges.starts[lane].clamp(start, start + KEYS);
        let to = ranges.ends[lane].clamp(start, start + KEYS);
        for key in from..to {
            if let Some(value) = mask.bias(batch, head, query_at(lane), key) {
                bias[(key - start) * width + lane] = value as f32;
            }
        }
    }
}

/// What makes the scores of one tile of queries and one block of keys.
struct Scores<'a, F> {
    /// `[dim, queries]`
    q: &'a [f32],
    k: Rows<'a>,
    dim: usize,
    scale: f32,
    softcap: f32,
    slope: f32,
    /// Position of the first query minus the first key of the block.
    distance: i64,
    bounds: Option<[[F; 2]; COLUMNS]>,
    bias: Option<&'a [f32]>,
}

impl<F: Copy> Scores<'_, F> {
    /// Fills `p [keys, queries]` with exp(score − max) and takes the block into the running maximum and sum.
    /// Returns what everything before this block shrinks by.
    #[inline(always)]
    fn weigh<S: Simd<F = F>, const ROWS: usize>(
        &self,
        simd: S,
        p: &mut [f32],
        running: &mut Running<F>,
    ) -> [F; COLUMNS] {
        let width = COLUMNS * S::LANES;
        let keys = p.len() / width;
        let lowest = simd.splat(f32::NEG_INFINITY);
        let mut max = [lowest; COLUMNS];
        let whole = keys - keys % ROWS;
        for key in (0..whole).step_by(ROWS) {
            self.score::<S, ROWS>(simd, key, p, &mut max);
        }
        for key in whole..keys {
            self.score::<S, 1>(simd, key, p, &mut max);
        }
        let zero = simd.splat(0.0);
        let mut shrink = [zero; COLUMNS];
        let mut base = [zero; COLUMNS];
        for c in 0..COLUMNS {
            let new = simd.max(running.max[c], max[c]);
            // While nothing is visible the maximum is −∞, and −∞ − −∞ would be NaN.
            base[c] = simd.select_less(lowest, new, new, zero);
            shrink[c] = exp(simd, simd.sub(running.max[c], base[c]));
            running.max[c] = new;
        }
        let mut sum = [zero; COLUMNS];
        for p in p.chunks_exact_mut(width) {
            for (c, p) in p.chunks_exact_mut(S::LANES).enumerate() {
                let e = exp(simd, simd.sub(simd.load(p), base[c]));
                sum[c] = simd.add(sum[c], e);
                simd.store(e, p);
            }
        }
        for c in 0..COLUMNS {
            running.sum[c] = simd.mul_add(running.sum[c], shrink[c], sum[c]);
        }
        shrink
    }

    /// The scores of `ROWS` keys from `key` on, for all queries of the tile; keeps the maximum.
    #[inline(always)]
    fn score<S: Simd<F = F>, const ROWS: usize>(
        &self,
        simd: S,
        key: usize,
        p: &mut [f32],
        max: &mut [F; COLUMNS],
    ) {
        let width = COLUMNS * S::LANES;
        // Unless the offsets are hidden from it, the compiler derives one row from the other in every step,
        // with more integer additions than the ports have room for beside the multiply-adds.
        let mut rows = [&self.k.values[..0]; ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = &self.k.values[black_box((key + r) * self.k.stride)..][..self.dim];
        }
        let mut s = [[simd.splat(0.0); COLUMNS]; ROWS];
        let pairs = self.q.chunks_exact(2 * width);
        if !pairs.remainder().is_empty() {
            multiply_add::<S, ROWS>(simd, column(&rows, self.dim - 1), pairs.remainder(), &mut s);
        }
        for (pair, q) in pairs.enumerate() {
            multiply_add::<S, ROWS>(simd, column(&rows, 2 * pair), &q[..width], &mut s);
            multiply_add::<S, ROWS>(simd, column(&rows, 2 * pair + 1), &q[width..], &mut s);
        }
        let scale = simd.splat(self.scale);
        let plain = self.softcap == 0.0 && self.slope == 0.0 && self.bias.is_none() && self.bounds.is_none();
        for ((r, s), p) in s.into_iter().enumerate().zip(p[key * width..].chunks_exact_mut(width)) {
            for (c, (s, p)) in s.into_iter().zip(p.chunks_exact_mut(S::LANES)).enumerate() {
                let mut s = simd.mul(s, scale);
                if !plain {
                    s = self.finish(simd, s, key + r, c);
                }
                max[c] = simd.max(max[c], s);
                simd.store(s, p);
            }
        }
    }

    /// From the scaled q·k to the score: softcap, distance, mask, and −∞ for what is hidden.
    #[inline(always)]
    fn finish<S: Simd<F = F>>(&self, simd: S, mut s: F, key: usize, c: usize) -> F {
        let hidden = simd.splat(f32::NEG_INFINITY);
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

// No `array::from_fn` on the hot path: a closure that the compiler does not inline is compiled without the
// vector instructions of its caller.

/// One number of every row.
#[inline(always)]
fn column<const ROWS: usize>(rows: &[&[f32]; ROWS], at: usize) -> [f32; ROWS] {
    let mut column = [0.0; ROWS];
    for (x, row) in column.iter_mut().zip(rows) {
        *x = row[at];
    }
    column
}

/// The first numbers of a slice.
#[inline(always)]
fn first<const ROWS: usize>(values: &[f32]) -> [f32; ROWS] {
    let mut first = [0.0; ROWS];
    first.copy_from_slice(&values[..ROWS]);
    first
}

/// sums `[ROWS, queries]` += column `[ROWS]` · row `[queries]`: the register tile of both products.
#[inline(always)]
fn multiply_add<S: Simd, const ROWS: usize>(
    simd: S,
    column: [f32; ROWS],
    row: &[f32],
    sums: &mut [[S::F; COLUMNS]; ROWS],
) {
    let row = [simd.load(row), simd.load(&row[S::LANES..])];
    for (sums, x) in sums.iter_mut().zip(column) {
        let x = simd.splat(x);
        for (sum, y) in sums.iter_mut().zip(row) {
            *sum = simd.mul_add(x, y, *sum);
        }
    }
}

/// o·shrink + vᵀ·p for `ROWS` dims of the values: `v [keys, ROWS]`, `o [ROWS, queries]`.
#[inline(always)]
fn mix<S: Simd, const ROWS: usize>(simd: S, p: &[f32], v: &[f32], shrink: [S::F; COLUMNS], o: &mut [f32]) {
    let width = COLUMNS * S::LANES;
    let mut sums = [[simd.splat(0.0); COLUMNS]; ROWS];
    let pairs = p.chunks_exact(2 * width);
    if !pairs.remainder().is_empty() {
        let last = p.len() / width - 1;
        multiply_add::<S, ROWS>(simd, first(&v[last * ROWS..]), pairs.remainder(), &mut sums);
    }
    for (p, v) in pairs.zip(v.chunks_exact(2 * ROWS)) {
        multiply_add::<S, ROWS>(simd, first(v), &p[..width], &mut sums);
        multiply_add::<S, ROWS>(simd, first(&v[ROWS..]), &p[width..], &mut sums);
    }
    for (o, sums) in o.chunks_exact_mut(width).zip(sums) {
        for ((o, sum), shrink) in o.chunks_exact_mut(S::LANES).zip(sums).zip(shrink) {
            simd.store(simd.mul_add(simd.load(o), shrink, sum), o);
        }
    }
}
