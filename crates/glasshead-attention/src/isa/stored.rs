//! The types in which arrays are stored, and how vectors of numbers are loaded from them.

use half::{bf16, f16};

use super::{Number, Simd};

/// What an array holds. Not to be implemented elsewhere.
pub trait Stored: Copy {
    /// What kernels compute in.
    type Number: Number;
    /// Exact.
    fn to_number(self) -> Self::Number;
    /// Rounded to nearest, ties to even.
    fn from_number(number: Self::Number) -> Self;
    /// The slice itself where it holds numbers that kernels compute in.
    fn as_numbers(_: &[Self]) -> Option<&[Self::Number]> {
        None
    }
    /// As [`Stored::as_numbers`].
    fn as_numbers_mut(_: &mut [Self]) -> Option<&mut [Self::Number]> {
        None
    }
    /// The values at `from`, widened, as many as a vector holds.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_at<S: Simd<N = Self::Number>>(simd: S, from: *const Self) -> S::F;
    /// The first values, widened, as many as a vector holds.
    #[inline(always)]
    fn load<S: Simd<N = Self::Number>>(simd: S, values: &[Self]) -> S::F {
        // SAFETY: the slice index proves that they are readable.
        unsafe { Self::load_at(simd, values[..S::LANES].as_ptr()) }
    }
}

macro_rules! number {
    ($type:ty) => {
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
            unsafe fn load_at<S: Simd<N = $type>>(simd: S, from: *const Self) -> S::F {
                // SAFETY: the caller's promise.
                unsafe { simd.load_at(from) }
            }
        }
    };
}
number!(f32);
number!(f64);

macro_rules! half {
    ($type:ty, $load:ident) => {
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
            unsafe fn load_at<S: Simd<N = f32>>(simd: S, from: *const Self) -> S::F {
                // SAFETY: the caller's promise; both types are their 16 bits.
                unsafe { simd.$load(from.cast()) }
            }
        }
    };
}
half!(f16, load_f16_at);
half!(bf16, load_bf16_at);
