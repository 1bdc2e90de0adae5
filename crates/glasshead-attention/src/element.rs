//! The number types that q, k and v may have.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::isa::{Number, Simd};

mod sealed {
    use super::{Number, Simd};

    pub trait Sealed: Copy {
        /// What kernels compute in.
        type Number: Number;
        /// Exact.
        fn to_number(self) -> Self::Number;
        /// Rounded to nearest, ties to even.
        fn from_number(number: Self::Number) -> Self;
        /// The slice itself where it holds numbers that kernels compute in: such rows are used where they lie.
        fn as_numbers(_: &[Self]) -> Option<&[Self::Number]> {
            None
        }
        /// As [`Sealed::as_numbers`].
        fn as_numbers_mut(_: &mut [Self]) -> Option<&mut [Self::Number]> {
            None
        }
        /// The first values, widened, as many as a vector holds.
        fn load<S: Simd<N = Self::Number>>(simd: S, values: &[Self]) -> S::F;
    }
}
pub(crate) use sealed::Sealed as Stored;

/// A number type of q, k, v and the output: `f32`, `f64`, `f16` or `bf16`.
///
/// Half types are widened and computed in `f32`; `f64` is computed in `f64`.
pub trait Element: Stored + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// To `f64`, exact for all four types.
    fn to_f64(self) -> f64;
    /// To `f32`, exact for all but `f64`.
    fn to_f32(self) -> f32;
    /// From `f64`, rounded to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($type:ty) => {
        impl Element for $type {
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn from_f64(value: f64) -> Self {
                value as Self
            }
        }
        impl Stored for $type {
            type Number = $type;
            #[inline(always)]
            fn to_number(self) -> $type {
                self
            }
            #[inline(always)]
            fn from_number(number: $type) -> Self {
                number
            }
            #[inline(always)]
            fn as_numbers(values: &[Self]) -> Option<&[$type]> {
                Some(values)
            }
            #[inline(always)]
            fn as_numbers_mut(values: &mut [Self]) -> Option<&mut [$type]> {
                Some(values)
            }
            #[inline(always)]
            fn load<S: Simd<N = $type>>(simd: S, values: &[Self]) -> S::F {
                simd.load(values)
            }
        }
    };
}
element!(f32);
element!(f64);

macro_rules! half_element {
    ($type:ty, $load:ident) => {
        impl Element for $type {
            fn to_f64(self) -> f64 {
                <$type>::to_f64(self)
            }
            fn to_f32(self) -> f32 {
                <$type>::to_f32(self)
            }
            fn from_f64(value: f64) -> Self {
                <$type>::from_f64(value)
            }
        }
        impl Stored for $type {
            type Number = f32;
            #[inline(always)]
            fn to_number(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn from_number(number: f32) -> Self {
                <$type>::from_f32(number)
            }
            #[inline(always)]
            fn load<S: Simd<N = f32>>(simd: S, values: &[Self]) -> S::F {
                simd.$load(values.reinterpret_cast())
            }
        }
    };
}
half_element!(f16, load_f16);
half_element!(bf16, load_bf16);
