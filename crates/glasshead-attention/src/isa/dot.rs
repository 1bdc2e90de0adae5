//! How products multiply and add up: number by number, or two neighbours at a time.

use super::{Lanes, Simd, Stored};

/// The largest [`Dot::DEPTH`].
pub(crate) const MOST_DEPTH: usize = 2;

/// What one multiplication of a product takes: [`Single`] numbers, or pairs where a set has an instruction
/// for them.
pub trait Dot<S: Simd>: 'static {
    /// Neighbours in depth that an item holds.
    const DEPTH: usize;
    /// As they lie in an array; one is broadcast to all lanes.
    type Item: Lanes<Number = S::N>;
    /// The same item in every lane.
    fn splat(simd: S, item: Self::Item) -> S::F;
    /// `a · b + c` for items in the lanes of a and b.
    fn mul_add(simd: S, a: S::F, b: S::F, c: S::F) -> S::F;
    /// Items of numbers; `second` is for those that hold two.
    fn join(simd: S, first: S::F, second: S::F) -> S::F;
    /// As [`Dot::join`], of one lane.
    fn item(first: S::N, second: S::N) -> S::N;
    /// What [`Dot::join`] and [`Dot::item`] have made.
    fn items(numbers: &[S::N]) -> &[Self::Item];
    /// Values side by side that can be multiplied as they lie.
    fn in_place<T: Stored<Number = S::N>>(values: &[T]) -> Option<&[Self::Item]>;
}

/// Number by number.
pub struct Single;

impl<S: Simd> Dot<S> for Single {
    const DEPTH: usize = 1;
    type Item = S::N;

    #[inline(always)]
    fn splat(simd: S, item: S::N) -> S::F {
        simd.splat(item)
    }
    #[inline(always)]
    fn mul_add(simd: S, a: S::F, b: S::F, c: S::F) -> S::F {
        simd.mul_add(a, b, c)
    }
    #[inline(always)]
    fn join(_: S, first: S::F, _: S::F) -> S::F {
        first
    }
    #[inline(always)]
    fn item(first: S::N, _: S::N) -> S::N {
        first
    }
    #[inline(always)]
    fn items(numbers: &[S::N]) -> &[S::N] {
        numbers
    }
    #[inline(always)]
    fn in_place<T: Stored<Number = S::N>>(values: &[T]) -> Option<&[S::N]> {
        T::as_numbers(values)
    }
}
