//! Plain Rust: four numbers in an array, which compilers turn into whatever the target always has.

use super::Simd;

/// Needs no proof: every CPU has it.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// 1.5 · 2²³: adding it leaves no room for a fraction.
const ROUNDER: f32 = 12_582_912.0;

impl Simd for Scalar {
    type F = [f32; 4];
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; 4]
    }
    #[inline(always)]
    fn lanes(self) -> Self::F {
        [0.0, 1.0, 2.0, 3.0]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        [from[0], from[1], from[2], from[3]]
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32]) {
        to[..4].copy_from_slice(&x);
    }
    #[inline(always)]
    fn transpose(self, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        for i in 0..4 {
            for j in 0..4 {
                to[j * to_stride + i] = from[i * from_stride + j];
            }
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // f32::mul_add would be a library call on targets without FMA.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        x.map(|x| (x + ROUNDER) - ROUNDER)
    }
    #[inline(always)]
    fn mul_pow2(self, x: Self::F, n: Self::F) -> Self::F {
        std::array::from_fn(|i| {
            // Two halves, because 2ⁿ itself may be too small for a float while the product is not.
            let n = n[i] as i32;
            let half = n >> 1;
            let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
            x[i] * power(half) * power(n - half)
        })
    }
}
