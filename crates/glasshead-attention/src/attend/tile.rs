//! One tile of queries and one block of keys, queries in the lanes: scores, exponentials, weighted values.
//! Both products run through the same register tile, [`product`].

use super::{
    ahead::Ahead,
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
    /// How many keys at the start of the block are visible to all queries.
    pub(super) open: usize,
}

impl<N: Number, F: Copy, I: Copy> Scores<'_, N, F, I> {
    /// Fills `p [keys, queries]` with q·k; the largest.
    #[inline(always)]
    pub(super) fn multiply<S: Simd<N = N, F = F>, D: Dot<S, Item = I>, const ROWS: usize>(
        &self,
        simd: S,
        p: &mut [N],
        ahead: &mut Ahead,
    ) -> [F; COLUMNS] {
        let keys = p.len() / (COLUMNS * S::LANES);
        let mut max = [simd.constant(f64::NEG_INFINITY); COLUMNS];
        let mut key = 0;
        simd.apart(|| {
            while worth(keys - key, ROWS) {
                let mut share = ahead.next(self.q);
                self.multiply_rows::<S, D, ROWS>(simd, key, p, &mut max, || share.fetch(simd));
                key += ROWS;
            }
        });
        while keys - key >= 4 {
            self.multiply_rows::<S, D, 4>(simd, key, p, &mut max, || ());
            key += 4;
        }
        while key < keys {
            self.multiply_rows::<S, D, 1>(simd, key, p, &mut max, || ());
            key += 1;
        }
        max
    }

    /// Turns q·k, of which `max` is the largest, into scores, of which the exponential is to be taken with
    /// [`Terms::unit`], and hides keys; the largest. `bias` is the mask's share of the scores, `[keys, queries]`.
    #[inline(always)]
    pub(super) fn score<S: Simd<N = N, F = F>>(
        &self,
        simd: S,
        p: &mut [N],
        max: [F; COLUMNS],
        bias: Option<&[N]>,
    ) -> [F; COLUMNS] {
        let raw = self.terms.plain;
        if raw && self.bounds.is_none() {
            return max;
        }
        let mut max = max;
        simd.apart(|| max = self.finish(simd, p, bias, raw));
        max
    }

    /// q·k of `ROWS` keys from `key` on, for all queries of the tile; raises `max` to the largest.
    #[inline(always)]
    fn multiply_rows<S: Simd<N = N, F = F>, D: Dot<S, Item = I>, const ROWS: usize>(
        &self,
        simd: S,
        key: usize,
        p: &mut [N],
        max: &mut [F; COLUMNS],
        beside: impl FnMut(),
    ) {
        let width = COLUMNS * S::LANES;
        let keys = self.k.skip(key);
        let grid = Grid { values: keys.values, row: keys.stride, step: 1 };
        let sums = product::<S, D, N, ROWS, COLUMNS>(simd, grid, self.q, width, self.depth, beside);
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
        let done = if raw { self.open } else { 0 };
        for p in p.chunks_exact(width).take(done) {
            for c in 0..COLUMNS {
                max[c] = simd.max(max[c], simd.load(&p[c * S::LANES..]));
            }
        }
        for (row, p) in p.chunks_exact_mut(width).enumerate().skip(done) {
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

/// Takes a block whose largest scores are `max` into the running maximum: what exponents of 2 are counted
/// from, and what everything before the block shrinks by.
#[inline(always)]
pub(super) fn raise<S: Simd>(
    simd: S,
    unit: S::N,
    max: [S::F; COLUMNS],
    running: &mut [Running<S::F>; COLUMNS],
) -> ([S::F; COLUMNS], [S::F; COLUMNS]) {
    let mut base = [simd.constant(0.0); COLUMNS];
    let mut shrink = base;
    for c in 0..COLUMNS {
        (base[c], shrink[c]) = running[c].raise(simd, simd.mul(max[c], simd.splat(unit)));
    }
    (base, shrink)
}

/// Turns scores `p [keys, queries]` into items of 2^(score · unit − base), each where its first key was; their
/// sums.
#[inline(always)]
pub(super) fn exponentiate<S: Simd, D: Dot<S>>(
    simd: S,
    unit: S::N,
    base: [S::F; COLUMNS],
    p: &mut [S::N],
) -> [S::F; COLUMNS] {
    let width = COLUMNS * S::LANES;
    let unit = simd.splat(unit);
    let zero = simd.constant(0.0);
    let base = [simd.sub(zero, base[0]), simd.sub(zero, base[1])];
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
    sum
}

/// Sums over some keys of a tile.
#[derive(Clone, Copy)]
pub(super) struct Moments<F> {
    /// Σ 2^x
    pub(super) sum: [F; COLUMNS],
    /// Σ 2^x · x
    pub(super) exponents: [F; COLUMNS],
    /// Σ 2^x · row
    pub(super) rows: [F; COLUMNS],
}

impl<F: Copy> Moments<F> {
    /// Takes in a row's exponents x of the queries in column `c`: 2^x.
    #[inline(always)]
    fn add<S: Simd<F = F>>(&mut self, simd: S, c: usize, row: F, x: F) -> F {
        // A hidden key has the exponent −∞, and 0 · −∞ would be NaN. NaN itself passes through this max.
        let x = simd.max(simd.constant(-1100.0), x);
        let e = exp2(simd, x);
        self.sum[c] = simd.add(self.sum[c], e);
        self.exponents[c] = simd.mul_add(e, x, self.exponents[c]);
        self.rows[c] = simd.mul_add(e, row, self.rows[c]);
        e
    }
}

/// As [`exponentiate`], with more sums; rows are counted from `row` on.
#[inline(always)]
pub(super) fn exponentiate_with_moments<S: Simd, D: Dot<S>>(
    simd: S,
    unit: S::N,
    base: [S::F; COLUMNS],
    row: usize,
    p: &mut [S::N],
) -> Moments<S::F> {
    let width = COLUMNS * S::LANES;
    let unit = simd.splat(unit);
    let zero = simd.constant(0.0);
    let base = [simd.sub(zero, base[0]), simd.sub(zero, base[1])];
    let mut moments = Moments { sum: [zero; COLUMNS], exponents: [zero; COLUMNS], rows: [zero; COLUMNS] };
    let (mut row, step) = (simd.constant(row as f64), simd.constant(1.0));
    let mut items = p.chunks_exact_mut(D::DEPTH * width);
    for item in &mut items {
        let (first, second) = item.split_at_mut(width);
        let after = simd.add(row, step);
        for c in 0..COLUMNS {
            let first = &mut first[c * S::LANES..][..S::LANES];
            let e = moments.add(simd, c, row, simd.mul_add_once(simd.load(first), unit, base[c]));
            let mut next = zero;
            if D::DEPTH == 2 {
                let x = simd.mul_add_once(simd.load(&second[c * S::LANES..]), unit, base[c]);
                next = moments.add(simd, c, after, x);
            }
            simd.store(D::join(simd, e, next), first);
        }
        row = if D::DEPTH == 2 { simd.add(after, step) } else { after };
    }
    for (c, p) in items.into_remainder().chunks_exact_mut(S::LANES).enumerate() {
        let e = moments.add(simd, c, row, simd.mul_add_once(simd.load(p), unit, base[c]));
        simd.store(D::join(simd, e, zero), p);
    }
    moments
}

/// Turns numbers `p [keys, queries]` into items, as [`exponentiate`] leaves them.
#[inline(always)]
pub(super) fn join<S: Simd, D: Dot<S>>(simd: S, p: &[S::N], items: &mut [S::N]) {
    let width = COLUMNS * S::LANES;
    for (p, item) in p.chunks(2 * width).zip(items.chunks_mut(2 * width)) {
        for at in (0..width).step_by(S::LANES) {
            let second = if p.len() > width { simd.load(&p[width + at..]) } else { simd.constant(0.0) };
            simd.store(D::join(simd, simd.load(&p[at..]), second), &mut item[at..]);
        }
    }
}

/// Whether a tile of so many rows is the best start on what is left, where tiles of 4 and of 1 do the rest.
#[inline(always)]
pub(super) fn worth(left: usize, rows: usize) -> bool {
    left >= 2 * rows || left >= rows && (left - rows) % 4 <= left % 4
}

/// o·shrink + vᵀ·p: `p [keys, queries]` as [`exponentiate`] leaves it, items of values, `o [dim, queries]`.
#[inline(always)]
pub(super) fn mix<S: Simd, D: Dot<S>, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<D::Item>,
    shrink: [S::F; COLUMNS],
    o: &mut [S::N],
) {
    let width = COLUMNS * S::LANES;
    let dim = o.len() / width;
    let mut shrink = shrink;
    for (turn, p) in p.chunks(S::TURN.saturating_mul(width)).enumerate() {
        let v = v.skip(turn * S::TURN / D::DEPTH);
        let mut d = 0;
        simd.apart(|| {
            while worth(dim - d, ROWS) {
                mix_rows::<S, D, ROWS>(simd, p, v, shrink, o, d);
                d += ROWS;
            }
        });
        while dim - d >= 4 {
            mix_rows::<S, D, 4>(simd, p, v, shrink, o, d);
            d += 4;
        }
        while d < dim {
            mix_rows::<S, D, 1>(simd, p, v, shrink, o, d);
            d += 1;
        }
        shrink = [simd.constant(1.0); COLUMNS];
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
    let sums = product::<S, D, S::N, ROWS, COLUMNS>(simd, grid, p, D::DEPTH * width, items, || ());
    let o = &mut o[d * width..][..ROWS * width];
    for r in 0..ROWS {
        for c in 0..COLUMNS {
            let o = &mut o[r * width + c * S::LANES..][..S::LANES];
            simd.store(simd.mul_add(simd.load(o), shrink[c], sums[r][c]), o);
        }
    }
}
