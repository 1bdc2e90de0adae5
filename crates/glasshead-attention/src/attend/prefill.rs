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

use std::cell::RefCell;

use super::{
    Problem,
    pack::{Lines, Rows, pack_bias, pack_queries, pack_values, unpack, widen},
    ranges::{MAX_WIDTH, Ranges},
    rowwise,
    tile::{Running, Scores, mix},
};
use crate::{
    Element,
    isa::{InstructionSet, Kernel, Simd},
    reference::Row,
    softmax::exp,
    threads,
};

/// Keys per block: its scores (16 KiB with AVX-512) stay in the first cache.
pub(super) const KEYS: usize = 128;
/// Vectors of queries per tile.
pub(super) const COLUMNS: usize = 2;
/// Tiles per panel: how often a block of k and v is used once it is in the second cache.
const TILES: usize = 8;

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
        for (tile, q) in q.chunks_exact_mut(dim * width).enumerate() {
            let start = first + tile * width;
            pack_queries(simd, problem.q, [batch, head, start], (count - tile * width).min(width), q);
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
