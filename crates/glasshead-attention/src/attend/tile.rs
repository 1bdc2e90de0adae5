//! One tile of queries and one block of keys, queries in the lanes: scores, exponentials, weighted values.
//! Both products run through the same register tile, [`product`].

use super::{
    pack::Rows,
    score::{Running, Seen, Terms},
};
use crate::{
    isa::{COLUMNS, Dot, Grid, Number, Simd, product},
    softmax::exp2,
};

/// What makes the scores of one tile of queries and one block of keys.
pub(super) struct Scores<'a, N, F, I> {
    /// Items of queries, `[depth, queries]`
    pub(super) q: &'a [N],
    /// Items of keys
    pub(super) k: Rows<'a, I>,
    /// Items of a key
    pub(super) depth: usize,
    pub(super) terms: Terms<N>,
    /// Position of the first query minus the first key of the block.
    pub(super) distance: i64,
    pub(super) bounds: Option<[[F; 2]; COLUMNS]>,
}

impl<N: Number, F: Copy, I: Copy> Scores<'_, N, F, I> {
    /// Fills `p [keys, queries]` with q·k; the largest. `ahead` is called with a key now and then.
    #[inline(always)]
    pub(super) fn multiply<S: Simd<N = N, F = F>, D: Dot<S, Item = I>, const ROWS: usize>(
        &self,
        simd: S,
        p: &mut [N],
        ahead: impl Fn(usize),
    ) -> [F; COLUMNS] {
        let keys = p.len() / (COLUMNS * S::LANES);
        let mut max = [simd.constant(f64::NEG_INFINITY); COLUMNS];
        let mut key = 0;
        while worth(keys - key, ROWS) {
            ahead(key);
            simd.apart(|| self.multiply_rows::<S, D, ROWS>(simd, key, p, &mut max));
            key += ROWS;
        }
        while keys - key >= 4 {
            self.multiply_rows::<S, D, 4>(simd, key, p, &mut max);
            key += 4;
        }
        while key < keys {
            self.multiply_rows::<S, D, 1>(simd, key, p, &mut max);
            key += 1;
        }
        max
    }

    /// Turns q·k, of which `max` is the largest, into items of exp(score − max), each where its first key was,
    /// and takes the block into the running maximum and sum. `bias` is the mask's share of the scores,
    /// `[keys, queries]`. Returns what everything before this block shrinks by.
    #[inline(always)]
    pub(super) fn weigh<S: Simd<N = N, F = F>, D: Dot<S>>(
        &self,
        simd: S,
        p: &mut [N],
        mut max: [F; COLUMNS],
        bias: Option<&[N]>,
        running: &mut [Running<F>; COLUMNS],
    ) -> [F; COLUMNS] {
        let width = COLUMNS * S::LANES;
        let raw = self.terms.plain;
        if !raw || self.bounds.is_some() {
            max = self.finish(simd, p, bias, raw);
        }
        let unit = simd.splat(self.terms.unit(raw));
        let zero = simd.constant(0.0);
        let mut shrink = [zero; COLUMNS];
        let mut base = [zero; COLUMNS];
        for c in 0..COLUMNS {
            let (from, by) = running[c].raise(simd, simd.mul(max[c], unit));
            base[c] = simd.sub(zero, from);
            shrink[c] = by;
        }
        let mut sum = [zero; COLUMNS];
        let mut items = p.chunks_exact_mut(D::DEPTH * width);
        for item in &mut items {
            let (first, second) = item.split_at_mut(width);
            for c in 0..COLUMNS {
                let first = &mut first[c * S::LANES..][..S::LANES];
                let e = exp2(simd, simd.mul_add_once(simd.load(first), unit, base[c]));
                sum[c] = simd.add(sum[c], e);
                let mut next = zero;
                if D::DEPTH == 2 {
                    next = exp2(simd, simd.mul_add_once(simd.load(&second[c * S::LANES..]), unit, base[c]));
                    sum[c] = simd.add(sum[c], next);
                }
                simd.store(D::join(simd, e, next), first);
            }
        }
        // The last key of an odd number has no second.
        for (c, p) in items.into_remainder().chunks_exact_mut(S::LANES).enumerate() {
            let e = exp2(simd, simd.mul_add_once(simd.load(p), unit, base[c]));
            sum[c] = simd.add(sum[c], e);
            simd.store(D::join(simd, e, zero), p);
        }
        for c in 0..COLUMNS {
            running[c].sum = simd.add(running[c].sum, sum[c]);
        }
        shrink
    }

    /// q·k of `ROWS` keys from `key` on, for all queries of the tile; raises `max` to the largest.
    #[inline(always)]
    fn multiply_rows<S: Simd<N = N, F = F>, D: Dot<S, Item = I>, const ROWS: usize>(
        &self,
        simd: S,
        key: usize,
        p: &mut [N],
        max: &mut [F; COLUMNS],
    ) {
        let width = COLUMNS * S::LANES;
        let keys = self.k.skip(key);
        let grid = Grid { values: keys.values, row: keys.stride, step: 1 };
        let sums = product::<S, D, N, ROWS, COLUMNS>(simd, grid, self.q, width, self.depth);
        let p = &mut p[key * width..][..ROWS * width];
        for r in 0..ROWS {
            for c in 0..COLUMNS {
                max[c] = simd.max(max[c], sums[r][c]);
                simd.store(sums[r][c], &mut p[r * width + c * S::LANES..]);
            }
        }
    }

    /// Turns raw scores into those of the equation, or hides some and leaves the rest `raw`; the largest.
    #[inline(always)]
    fn finish<S: Simd<N = N, F = F>>(
        &self,
        simd: S,
        p: &mut [N],
        bias: Option<&[N]>,
        raw: bool,
    ) -> [F; COLUMNS] {
        let width = COLUMNS * S::LANES;
        let mut max = [simd.constant(f64::NEG_INFINITY); COLUMNS];
        for (row, p) in p.chunks_exact_mut(width).enumerate() {
            let key = simd.constant(row as f64);
            for (c, p) in p.chunks_exact_mut(S::LANES).enumerate() {
                let distance = || {
                    let lanes = simd.add(simd.lanes(), simd.constant((c * S::LANES) as f64));
                    simd.add(simd.constant((self.distance - row as i64) as f64), lanes)
                };
                let bias = match bias {
                    Some(bias) => Some(simd.load(&bias[row * width + c * S::LANES..])),
                    None => None,
                };
                let seen = self.bounds.map(|bounds| Seen { key, start: bounds[c][0], end: bounds[c][1] });
                let mut s = simd.load(p);
                if !raw {
                    s = self.terms.finish(simd, s, distance, bias);
                }
                if let Some(seen) = seen {
                    s = seen.hide(simd, s);
                }
                max[c] = simd.max(max[c], s);
                simd.store(s, p);
            }
        }
        max
    }
}

/// Whether a tile of so many rows is the best start on what is left, where tiles of 4 and of 1 do the rest.
#[inline(always)]
fn worth(left: usize, rows: usize) -> bool {
    left >= 2 * rows || left >= rows && (left - rows) % 4 <= left % 4
}

/// o·shrink + vᵀ·p: `p [keys, queries]` as [`Scores::weigh`] leaves it, items of values, `o [dim, queries]`.
#[inline(always)]
pub(super) fn mix<S: Simd, D: Dot<S>, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<D::Item>,
    shrink: [S::F; COLUMNS],
    o: &mut [S::N],
) {
    let dim = o.len() / (COLUMNS * S::LANES);
    let mut d = 0;
    while worth(dim - d, ROWS) {
        simd.apart(|| mix_rows::<S, D, ROWS>(simd, p, v, shrink, o, d));
        d += ROWS;
    }
    while dim - d >= 4 {
        mix_rows::<S, D, 4>(simd, p, v, shrink, o, d);
        d += 4;
    }
    while d < dim {
        mix_rows::<S, D, 1>(simd, p, v, shrink, o, d);
        d += 1;
    }
}

/// [`mix`] for `ROWS` dims from `d` on.
#[inline(always)]
fn mix_rows<S: Simd, D: Dot<S>, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<D::Item>,
    shrink: [S::F; COLUMNS],
    o: &mut [S::N],
    d: usize,
) {
    let width = COLUMNS * S::LANES;
    let grid = Grid { values: &v.values[d..], row: 1, step: v.stride };
    let items = (p.len() / width).div_ceil(D::DEPTH);
    let sums = product::<S, D, S::N, ROWS, COLUMNS>(simd, grid, p, D::DEPTH * width, items);
    let o = &mut o[d * width..][..ROWS * width];
    for r in 0..ROWS {
        for c in 0..COLUMNS {
            let o = &mut o[r * width + c * S::LANES..][..S::LANES];
            simd.store(simd.mul_add(simd.load(o), shrink[c], sums[r][c]), o);
        }
    }
}
