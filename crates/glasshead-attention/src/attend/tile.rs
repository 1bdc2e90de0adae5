//! One tile of queries and one block of keys: scores, exponentials, weighted values. Both products run
//! through the same register tile, [`multiply_add`].

use std::hint::black_box;

use super::{pack::Rows, prefill::COLUMNS};
use crate::{
    isa::Simd,
    softmax::{exp, tanh},
};

/// What a tile carries from block to block: the largest score so far, and the sum of the exponentials.
#[derive(Clone, Copy)]
pub(super) struct Running<F> {
    pub(super) max: [F; COLUMNS],
    pub(super) sum: [F; COLUMNS],
}

/// What makes the scores of one tile of queries and one block of keys.
pub(super) struct Scores<'a, F> {
    /// `[dim, queries]`
    pub(super) q: &'a [f32],
    pub(super) k: Rows<'a>,
    pub(super) dim: usize,
    pub(super) scale: f32,
    pub(super) softcap: f32,
    pub(super) slope: f32,
    /// Position of the first query minus the first key of the block.
    pub(super) distance: i64,
    pub(super) bounds: Option<[[F; 2]; COLUMNS]>,
    pub(super) bias: Option<&'a [f32]>,
}

impl<F: Copy> Scores<'_, F> {
    /// Fills `p [keys, queries]` with exp(score − max) and takes the block into the running maximum and sum.
    /// Returns what everything before this block shrinks by.
    #[inline(always)]
    pub(super) fn weigh<S: Simd<F = F>, const ROWS: usize>(
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
pub(super) fn mix<S: Simd, const ROWS: usize>(
    simd: S,
    p: &[f32],
    v: &[f32],
    shrink: [S::F; COLUMNS],
    o: &mut [f32],
) {
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
