//! One tile of queries and one block of keys, queries in the lanes: scores, exponentials, weighted values.
//! Both products run through the same register tile, [`product`].

use super::{
    ahead::Ahead,
    pack::Rows,
    score::{Running, Seen, Terms},
};
use crate::{
    isa::{COLUMNS, Dot, Grid, Number, Simd, product},
    softmax::exp2_of,
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
        if self.terms.plain && self.bounds.is_none() && bias.is_none() {
            return max;
        }
        let mut max = max;
        simd.apart(|| max = self.finish(simd, p, bias));
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

    /// Turns raw scores into those of the equation, see [`Terms::finish`], and hides some; the largest.
    #[inline(always)]
    fn finish<S: Simd<N = N, F = F>>(&self, simd: S, p: &mut [N], bias: Option<&[N]>) -> [F; COLUMNS] {
        let width = COLUMNS * S::LANES;
        let mut max = [simd.constant(f64::NEG_INFINITY); COLUMNS];
        let done = if self.terms.plain && bias.is_none() { self.open } else { 0 };
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
                let mut s = self.terms.finish(simd, simd.load(p), distance, bias);
                if bias.is_some() {
                    s = self.terms.lift(simd, s);
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

/// What is summed over the keys of a tile while exponentials are taken.
pub(super) trait Sums<S: Simd>: Copy {
    /// Whether keys are taken from the last to the first.
    const BACKWARD: bool = false;
    /// Of no key.
    fn none(simd: S) -> Self;
    /// Takes in the exponents x `[keys, COLUMNS]` of some keys: 2^x.
    fn take<const V: usize>(&mut self, simd: S, x: [S::F; V]) -> [S::F; V];
}

/// Σ 2^x
#[derive(Clone, Copy)]
pub(super) struct Sum<F>(pub(super) [F; COLUMNS]);

impl<S: Simd> Sums<S> for Sum<S::F> {
    #[inline(always)]
    fn none(simd: S) -> Self {
        Self([simd.constant(0.0); COLUMNS])
    }
    #[inline(always)]
    fn take<const V: usize>(&mut self, simd: S, x: [S::F; V]) -> [S::F; V] {
        let e = exp2_of(simd, x);
        for (c, sum) in self.0.iter_mut().enumerate() {
            // First among themselves: a sum that grows loses digits with every addition.
            let mut own = e[c];
            for v in (c + COLUMNS..V).step_by(COLUMNS) {
                own = simd.add(own, e[v]);
            }
            *sum = simd.add(*sum, own);
        }
        e
    }
}

/// More sums.
#[derive(Clone, Copy)]
pub(super) struct Moments<F> {
    /// Σ 2^x
    pub(super) sum: [F; COLUMNS],
    /// Σ 2^x · x
    pub(super) exponents: [F; COLUMNS],
    /// Σ 2^x · n, where n more keys are taken after this one
    pub(super) after: [F; COLUMNS],
}

/// [`Moments`] of keys from the first to the last, or the other way round; whether some may be hidden.
#[derive(Clone, Copy)]
pub(super) struct InOrder<F, const BACKWARD: bool, const HIDES: bool>(pub(super) Moments<F>);

impl<S: Simd, const BACKWARD: bool, const HIDES: bool> Sums<S> for InOrder<S::F, BACKWARD, HIDES> {
    const BACKWARD: bool = BACKWARD;

    #[inline(always)]
    fn none(simd: S) -> Self {
        let zero = [simd.constant(0.0); COLUMNS];
        Self(Moments { sum: zero, exponents: zero, after: zero })
    }
    #[inline(always)]
    fn take<const V: usize>(&mut self, simd: S, mut x: [S::F; V]) -> [S::F; V] {
        // A hidden key has the exponent −∞, and 0 · −∞ would be NaN. NaN itself passes through this max.
        if HIDES {
            for x in &mut x {
                *x = simd.max(simd.constant(-1100.0), *x);
            }
        }
        let e = exp2_of(simd, x);
        // A key counts once more for every one that comes after it: nothing is multiplied with its number.
        let Self(Moments { sum, exponents, after }) = self;
        for n in 0..V / COLUMNS {
            let key = if BACKWARD { V / COLUMNS - 1 - n } else { n };
            for c in 0..COLUMNS {
                let (x, e) = (x[key * COLUMNS + c], e[key * COLUMNS + c]);
                after[c] = simd.add(after[c], sum[c]);
                sum[c] = simd.add(sum[c], e);
                exponents[c] = simd.mul_add(e, x, exponents[c]);
            }
        }
        e
    }
}

/// Turns scores `p [keys, queries]` into items of 2^(score · unit − base), each where its first key was; their
/// sums. Where there is room for `items` they go there, and `p` becomes the numbers.
#[inline(always)]
pub(super) fn exponentiate<S: Simd, D: Dot<S>, T: Sums<S>>(
    simd: S,
    unit: S::N,
    base: [S::F; COLUMNS],
    p: &mut [S::N],
    mut items: Option<&mut [S::N]>,
) -> T {
    let pair = 2 * COLUMNS * S::LANES;
    let zero = simd.constant(0.0);
    let base = [simd.sub(zero, base[0]), simd.sub(zero, base[1])];
    let unit = simd.splat(unit);
    let mut sums = T::none(simd);
    let whole = p.len() - p.len() % pair;
    let (pairs, last) = p.split_at_mut(whole);
    // Not a closure: the compiler would call it, without vectors, for every block.
    if T::BACKWARD && !last.is_empty() {
        let items = items.as_deref_mut().map(|items| &mut items[whole..]);
        powers::<S, D, T, COLUMNS>(simd, unit, base, &mut sums, last, items);
    }
    let count = pairs.len() / pair;
    for n in 0..count {
        let at = if T::BACKWARD { count - 1 - n } else { n } * pair;
        let items = items.as_deref_mut().map(|items| &mut items[at..]);
        powers::<S, D, T, { 2 * COLUMNS }>(simd, unit, base, &mut sums, &mut pairs[at..at + pair], items);
    }
    if !T::BACKWARD && !last.is_empty() {
        let items = items.map(|items| &mut items[whole..]);
        powers::<S, D, T, COLUMNS>(simd, unit, base, &mut sums, last, items);
    }
    sums
}

/// [`exponentiate`] of the few keys that `V` vectors hold.
#[inline(always)]
fn powers<S: Simd, D: Dot<S>, T: Sums<S>, const V: usize>(
    simd: S,
    unit: S::F,
    base: [S::F; COLUMNS],
    sums: &mut T,
    keys: &mut [S::N],
    mut items: Option<&mut [S::N]>,
) {
    let mut x = [unit; V];
    for (v, x) in x.iter_mut().enumerate() {
        *x = simd.mul_add_once(simd.load(&keys[v * S::LANES..]), unit, base[v % COLUMNS]);
    }
    let e = sums.take(simd, x);
    for v in (0..V).filter(|v| (v / COLUMNS).is_multiple_of(D::DEPTH)) {
        // The last key of an odd number has no second.
        let second = if v + COLUMNS < V { e[v + COLUMNS] } else { simd.constant(0.0) };
        let item = D::join(simd, e[v], second);
        simd.store(item, &mut items.as_deref_mut().unwrap_or(keys)[v * S::LANES..]);
    }
    if items.is_some() {
        for v in 0..V {
            simd.store(e[v], &mut keys[v * S::LANES..]);
        }
    }
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

/// o·shrink + vᵀ·p, or vᵀ·p alone: `p [keys, queries]` as [`exponentiate`] leaves it, items of values, `o [dim, queries]`.
#[inline(always)]
pub(super) fn mix<S: Simd, D: Dot<S>, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<D::Item>,
    shrink: Option<[S::F; COLUMNS]>,
    o: &mut [S::N],
) {
    let width = COLUMNS * S::LANES;
    let dim = o.len() / width;
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
}

/// [`mix`] for `ROWS` dims from `d` on.
#[inline(always)]
fn mix_rows<S: Simd, D: Dot<S>, const ROWS: usize>(
    simd: S,
    p: &[S::N],
    v: Rows<D::Item>,
    shrink: Option<[S::F; COLUMNS]>,
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
            let sum = match shrink {
                Some(shrink) => simd.mul_add(simd.load(o), shrink[c], sums[r][c]),
                None => sums[r][c],
            };
            simd.store(sum, o);
        }
    }
}
