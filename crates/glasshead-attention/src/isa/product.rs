//! The register tiles: sums over many steps that never leave the registers. Bounds are checked once per
//! tile; inside, pointers go where the check has proved that numbers are.

use super::{Dot, Lanes, Simd};

/// Vectors side by side in the register tiles of many queries.
pub(crate) const COLUMNS: usize = 2;

/// Numbers on a grid: `values[r · row + t · step]`.
#[derive(Clone, Copy)]
pub(crate) struct Grid<'a, N> {
    pub(crate) values: &'a [N],
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// How many steps run between two looks at the counter: fewer would leave the ends of loops to be guessed
/// wrongly, more would not fit the cache of decoded instructions.
pub(crate) const UNROLL: usize = 4;

/// `sums[r][c] = Σ_t a[r, t] · b[t · b_step + c · LANES ..]` over `depth` steps, for `ROWS` rows of the grid of
/// items that `D` multiplies; `b` fills the other side's lanes. `beside` is called every [`UNROLL`] steps.
///
/// # Panics
/// When a step lies outside its slice.
#[inline(always)]
pub(crate) fn product<S: Simd, D: Dot<S>, B: Lanes<Number = S::N>, const ROWS: usize, const COLS: usize>(
    simd: S,
    a: Grid<D::Item>,
    b: &[B],
    b_step: usize,
    depth: usize,
    beside: impl FnMut(),
) -> [[S::F; COLS]; ROWS] {
    let sums = [[simd.constant(0.0); COLS]; ROWS];
    add_product::<S, D, B, ROWS, COLS>(simd, sums, a, b, b_step, depth, beside)
}

/// As [`product`], added to `sums`.
#[inline(always)]
pub(crate) fn add_product<
    S: Simd,
    D: Dot<S>,
    B: Lanes<Number = S::N>,
    const ROWS: usize,
    const COLS: usize,
>(
    simd: S,
    mut sums: [[S::F; COLS]; ROWS],
    a: Grid<D::Item>,
    b: &[B],
    b_step: usize,
    depth: usize,
    mut beside: impl FnMut(),
) -> [[S::F; COLS]; ROWS] {
    if depth == 0 {
        return sums;
    }
    let last = |row: usize, step: usize| {
        (ROWS - 1).saturating_mul(row).saturating_add((depth - 1).saturating_mul(step))
    };
    assert!(last(a.row, a.step) < a.values.len(), "the grid lies in its slice");
    let end = (depth - 1).saturating_mul(b_step).saturating_add(COLS * S::LANES);
    assert!(end <= b.len(), "the steps lie in their slice");
    let (row, step) = (a.row, a.step);
    let (mut a, mut b) = (a.values.as_ptr(), b.as_ptr());
    // SAFETY: both asserts above; in each of the `depth` steps the last row and the last vector are the
    // farthest reads. `wrapping_add` because the pointers end one step past the last.
    unsafe {
        let mut left = depth;
        while left >= UNROLL {
            beside();
            for u in 0..UNROLL {
                step_of::<S, D, B, ROWS, COLS>(simd, a.add(u * step), row, b.add(u * b_step), &mut sums);
                simd.end_step();
            }
            a = a.wrapping_add(UNROLL * step);
            b = b.wrapping_add(UNROLL * b_step);
            left -= UNROLL;
        }
        while left > 0 {
            step_of::<S, D, B, ROWS, COLS>(simd, a, row, b, &mut sums);
            a = a.wrapping_add(step);
            b = b.wrapping_add(b_step);
            left -= 1;
        }
    }
    sums
}

/// One step of [`product`].
///
/// # Safety
/// `ROWS` items, `row` apart, are readable at `a`, and `COLS` vectors at `b`.
#[inline(always)]
unsafe fn step_of<S: Simd, D: Dot<S>, B: Lanes<Number = S::N>, const ROWS: usize, const COLS: usize>(
    simd: S,
    a: *const D::Item,
    row: usize,
    b: *const B,
    sums: &mut [[S::F; COLS]; ROWS],
) {
    let mut columns = [simd.constant(0.0); COLS];
    for (c, column) in columns.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *column = unsafe { B::load_at(simd, b.add(c * S::LANES)) };
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        let x = D::splat(simd, unsafe { *a.add(r * row) });
        for (sum, column) in sums.iter_mut().zip(columns) {
            *sum = D::mul_add(simd, x, column, *sum);
        }
    }
}

/// `sums[key][r]`, to be added up over its lanes: a[key] · b[r] for vectors of items, or of values that are widened to
/// them, where row r of b starts at `r · b_row`.
///
/// # Panics
/// When a row lies outside its slice, or the keys differ in length.
#[inline(always)]
pub(crate) fn dots<S: Simd, D: Dot<S>, A: Lanes<Number = S::N>, const KEYS: usize, const ROWS: usize>(
    simd: S,
    a: [&[A]; KEYS],
    b: &[S::N],
    b_row: usize,
) -> [[S::F; ROWS]; KEYS] {
    let mut sums = [[simd.constant(0.0); ROWS]; KEYS];
    let len = a[0].len() / S::LANES * S::LANES;
    assert!(a.iter().all(|key| key.len() == a[0].len()), "the keys are alike");
    assert!((ROWS - 1).saturating_mul(b_row).saturating_add(len) <= b.len(), "the rows lie in their slice");
    let b = b.as_ptr();
    for at in (0..len).step_by(S::LANES) {
        let mut rows = [simd.constant(0.0); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            // SAFETY: the assert on b above, at + LANES ≤ len.
            *row = unsafe { simd.load_at(b.add(r * b_row + at)) };
        }
        for (key, sums) in a.iter().zip(&mut sums) {
            // SAFETY: at + LANES ≤ len ≤ key.len().
            let x = unsafe { A::load_at(simd, key.as_ptr().add(at)) };
            for (row, sum) in rows.into_iter().zip(sums) {
                *sum = D::mul_add(simd, x, row, *sum);
            }
        }
    }
    sums
}
