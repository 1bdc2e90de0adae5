//! The types in which arrays are stored, and how vectors of numbers come from them and go back.

use half::{bf16, f16};

use super::{Dot, InstructionSet, Kernel, Number, Simd, Single};

/// What fills the lanes of a vector, one value each.
pub trait Lanes: Copy {
    /// What kernels compute in.
    type Number: Number;
    /// The values at `from`, as many as a vector holds.
    ///
    /// # Safety
    /// They are readable.
    unsafe fn load_at<S: Simd<N = Self::Number>>(simd: S, from: *const Self) -> S::F;
    /// The first values, as many as a vector holds.
    #[inline(always)]
    fn load<S: Simd<N = Self::Number>>(simd: S, values: &[Self]) -> S::F {
        // SAFETY: the slice index proves that they are readable.
        unsafe { Self::load_at(simd, values[..S::LANES].as_ptr()) }
    }
}

/// What an array holds; its lanes are widened. Not to be implemented elsewhere.
pub trait Stored: Lanes {
    /// How products multiply arrays of this type.
    type Dot<S: Simd<N = Self::Number>>: Dot<S>;
    /// Exact.
    fn to_number(self) -> Self::Number;
    /// Rounded to nearest, ties to even.
    fn from_number(number: Self::Number) -> Self;
    /// As [`Stored::from_number`], to the first values of `to`, as many as a vector holds; NaN to anything.
    fn store<S: Simd<N = Self::Number>>(simd: S, x: S::F, to: &mut [Self]);
    /// As [`Number::dispatch`], with the instructions that this CPU has for the type besides.
    fn run<K: Kernel<Self::Number>>(isa: InstructionSet, kernel: K) -> K::Out {
        Self::Number::dispatch(isa, kernel)
    }
    /// The slice itself where it holds numbers that kernels compute in.
    fn as_numbers(_: &[Self]) -> Option<&[Self::Number]> {
        None
    }
    /// As [`Stored::as_numbers`].
    fn as_numbers_mut(_: &mut [Self]) -> Option<&mut [Self::Number]> {
        None
    }
    /// The slice itself where it holds bf16.
    fn as_bf16(_: &[Self]) -> Option<&[bf16]> {
        None
    }
}

macro_rules! number {
    ($type:ty) => {
        impl Lanes for $type {
            type Number = $type;
            #[inline(always)]
            unsafe fn load_at<S: Simd<N = $type>>(simd: S, from: *const Self) -> S::F {
                // SAFETY: the caller's promise.
                unsafe { simd.load_at(from) }
            }
        }
        impl Stored for $type {
            type Dot<S: Simd<N = $type>> = Single;
            #[inline(always)]
            fn to_number(self) -> $type {
                self
            }
            #[inline(always)]
            fn from_number(number: $type) -> Self {
                number
            }
            #[inline(always)]
            fn store<S: Simd<N = $type>>(simd: S, x: S::F, to: &mut [Self]) {
                simd.store(x, to);
            }
            #[inline(always)]
            fn as_numbers(values: &[Self]) -> Option<&[$type]> {
                Some(values)
            }
            #[inline(always)]
            fn as_numbers_mut(values: &mut [Self]) -> Option<&mut [$type]> {
                Some(values)
            }
        }
    };
}
number!(f32);
number!(f64);

macro_rules! half {
    ($type:ty, $dot:ty, $load:ident, $store:ident, { $($more:item)* }) => {
        impl Lanes for $type {
            type Number = f32;
            #[inline(always)]
            unsafe fn load_at<S: Simd<N = f32>>(simd: S, from: *const Self) -> S::F {
                // SAFETY: the caller's promise; both types are their 16 bits.
                unsafe { simd.$load(from.cast()) }
            }
        }
        impl Stored for $type {
            type Dot<S: Simd<N = f32>> = $dot;
            #[inline(always)]
            fn to_number(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn from_number(number: f32) -> Self {
                <$type>::from_f32(number)
            }
            #[inline(always)]
            fn store<S: Simd<N = f32>>(simd: S, x: S::F, to: &mut [Self]) {
                simd.$store(x, to);
            }
            $($more)*
        }
    };
}
half!(f16, Single, load_f16_at, store_f16, {});
half!(bf16, S::Bf16, load_bf16_at, store_bf16, {
    fn run<K: Kernel<f32>>(isa: InstructionSet, kernel: K) -> K::Out {
        #[cfg(target_arch = "x86_64")]
        if isa == InstructionSet::Avx512
            && let Some(token) = super::avx512_bf16::Avx512Bf16::new()
        {
            return token.enter(kernel);
        }
        f32::dispatch(isa, kernel)
    }
    #[inline(always)]
    fn as_bf16(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }
});
