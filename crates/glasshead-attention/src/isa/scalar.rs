//! Plain Rust: a few numbers in an array, which compilers turn into whatever vectors the target has.

use std::marker::PhantomData;

use half::{bf16, f16};

use super::{Lanes, Number, Simd, Single};

/// Needs no proof: every CPU has it. `FMA` says that a fused multiply-add is an instruction here; where it
/// is not, it would be a library call.
#[derive(Clone, Copy)]
pub(super) struct Scalar<N, const LANES: usize, const FMA: bool>(PhantomData<N>);

impl<N, const LANES: usize, const FMA: bool> Scalar<N, LANES, FMA> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

macro_rules! scalar {
    ($number:ident, $bits:ident, $int:ident, mantissa = $mantissa:literal, bias = $bias:literal) => {
        impl<const LANES: usize, const FMA: bool> Simd for Scalar<$number, LANES, FMA> {
            type N = $number;
            type F = [$number; LANES];
            type Bf16 = Single;
            const LANES: usize = LANES;
            const ROWS: usize = 4;
            const WIDE: usize = 4;

            #[inline(always)]
            fn splat(self, x: $number) -> Self::F {
                [x; LANES]
            }
            #[inline(always)]
            fn lanes(self) -> Self::F {
                let mut lanes = [0.0; LANES];
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane = i as $number;
                }
                lanes
            }
            #[inline(always)]
            unsafe fn load_at(self, from: *const $number) -> Self::F {
                // SAFETY: the caller's promise.
                unsafe { from.cast::<Self::F>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn load_f16_at(self, from: *const u16) -> Self::F {
                // SAFETY: the caller's promise.
                let from = unsafe { from.cast::<[u16; LANES]>().read() };
                let mut lanes = [0.0; LANES];
                for (lane, from) in lanes.iter_mut().zip(&from) {
                    *lane = $number::from(half::f16::from_bits(*from).to_f32());
                }
                lanes
            }
            #[inline(always)]
            unsafe fn load_bf16_at(self, from: *const u16) -> Self::F {
                // SAFETY: the caller's promise.
                let from = unsafe { from.cast::<[u16; LANES]>().read() };
                let mut lanes = [0.0; LANES];
                for (lane, from) in lanes.iter_mut().zip(&from) {
                    *lane = $number::from(f32::from_bits(u32::from(*from) << 16));
                }
                lanes
            }
            #[inline(always)]
            fn store(self, x: Self::F, to: &mut [$number]) {
                to[..LANES].copy_from_slice(&x);
            }
            #[inline(always)]
            fn store_f16(self, x: Self::F, to: &mut [f16]) {
                for (to, x) in to[..LANES].iter_mut().zip(x) {
                    *to = f16::from_f64(x.into());
                }
            }
            #[inline(always)]
            fn store_bf16(self, x: Self::F, to: &mut [bf16]) {
                for (to, x) in to[..LANES].iter_mut().zip(x) {
                    *to = bf16::from_f64(x.into());
                }
            }
            #[inline(always)]
            unsafe fn transpose_at<L: Lanes<Number = $number>>(
                self,
                from: *const L,
                from_stride: usize,
                to: *mut $number,
                to_stride: usize,
            ) {
                for i in 0..LANES {
                    // SAFETY: the caller's promise.
                    let row = unsafe { L::load_at(self, from.add(i * from_stride)) };
                    for j in 0..LANES {
                        // SAFETY: the caller's promise.
                        unsafe { *to.add(j * to_stride + i) = row[j] };
                    }
                }
            }
            #[inline(always)]
            fn add(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] += b[i];
                }
                a
            }
            #[inline(always)]
            fn sub(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] -= b[i];
                }
                a
            }
            #[inline(always)]
            fn mul(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] *= b[i];
                }
                a
            }
            #[inline(always)]
            fn div(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] /= b[i];
                }
                a
            }
            #[inline(always)]
            fn mul_add(self, mut a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] = if FMA { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
                }
                a
            }
            #[inline(always)]
            fn mul_add_once(self, mut a: Self::F, b: Self::F, c: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] = (f64::from(a[i]) * f64::from(b[i]) + f64::from(c[i])) as $number;
                }
                a
            }
            #[inline(always)]
            fn max(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] = if a[i] > b[i] { a[i] } else { b[i] };
                }
                a
            }
            #[inline(always)]
            fn min(self, mut a: Self::F, b: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] = if a[i] < b[i] { a[i] } else { b[i] };
                }
                a
            }
            #[inline(always)]
            fn any_less(self, a: Self::F, b: Self::F) -> bool {
                let mut any = false;
                for i in 0..LANES {
                    any |= a[i] < b[i];
                }
                any
            }
            #[inline(always)]
            fn select_less(self, mut a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
                for i in 0..LANES {
                    a[i] = if a[i] < b[i] { yes[i] } else { no[i] };
                }
                a
            }
            #[inline(always)]
            fn split(self, x: Self::F) -> (Self::F, Self::F) {
                // Adding 1.5 · 2^mantissa leaves no room for a fraction; max lets NaN through.
                let rounder = 1.5 * (1u64 << $mantissa) as $number;
                let x = self.max(self.splat($number::LEAST_POWER as $number), x);
                let n = self.sub(self.add(x, self.splat(rounder)), self.splat(rounder));
                (n, self.sub(x, n))
            }
            #[inline(always)]
            fn mul_pow2(self, mut x: Self::F, n: Self::F) -> Self::F {
                for i in 0..LANES {
                    // Lower by so much that the bits of the lowest power are 0.
                    let lower = $bias + $number::LEAST_POWER as $int;
                    let power = $number::from_bits(((n[i] as $int + $bias - lower) as $bits) << $mantissa);
                    x[i] = x[i] * ((1u64 << lower) as $number) * power;
                }
                x
            }
            #[inline(always)]
            fn sum(self, mut x: Self::F) -> $number {
                let mut len = LANES;
                while len > 1 {
                    len /= 2;
                    for i in 0..len {
                        x[i] += x[i + len];
                    }
                }
                x[0]
            }
        }
    };
}
scalar!(f32, u32, i32, mantissa = 23, bias = 127);
scalar!(f64, u64, i64, mantissa = 52, bias = 1023);
