//! AVX-512 with products of bf16 pairs.

use std::arch::x86_64::*;

use half::bf16;

use super::{Dot, Kernel, Lanes, Simd, Stored, avx512::Avx512, cpu};

/// Proof that this CPU has AVX-512F, BW, DQ and BF16, and multiplies pairs faster than numbers.
#[derive(Clone, Copy)]
pub(super) struct Avx512Bf16(Avx512);

impl Avx512Bf16 {
    pub(super) fn new() -> Option<Self> {
        let numbers = Avx512::new()?;
        let here = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
        // Xeons take as long for a product of pairs as for four of numbers (measured): there widening wins.
        (here && cpu::is_amd()).then_some(Self(numbers))
    }

    /// Runs a kernel with these vectors, compiled for this set.
    pub(super) fn enter<K: Kernel<f32>>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16")]
        fn trampoline<K: Kernel<f32>>(simd: Avx512Bf16, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: the token proves that the CPU has the features.
        unsafe { trampoline(self, kernel) }
    }
}

/// Two bf16 at a time, multiplied and added up by one instruction, which takes subnormal numbers for 0.
pub(super) struct Pairs;

impl Dot<Avx512Bf16> for Pairs {
    const DEPTH: usize = 2;
    type Item = [bf16; 2];

    #[inline(always)]
    fn splat(_: Avx512Bf16, [first, second]: [bf16; 2]) -> __m512 {
        let bits = u32::from(first.to_bits()) | u32::from(second.to_bits()) << 16;
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(bits as i32)) }
    }
    #[inline(always)]
    fn mul_add(_: Avx512Bf16, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512BF16; vectors of 64 bytes, any bits of which are bf16.
        unsafe {
            let (a, b) =
                (std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b));
            _mm512_dpbf16_ps(c, a, b)
        }
    }
    #[inline(always)]
    fn join(_: Avx512Bf16, first: __m512, second: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512BF16 and BW; vectors of 64 bytes.
        unsafe {
            // Lane i of the first is number i, of the second 16 + i.
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
            let order = _mm512_add_epi32(
                _mm512_set1_epi32(16 << 16),
                _mm512_mullo_epi32(
                    _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                    _mm512_set1_epi32(0x0001_0001),
                ),
            );
            _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both))
        }
    }
    #[inline(always)]
    fn item(first: f32, second: f32) -> f32 {
        let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
        f32::from_bits(bits(first) | bits(second) << 16)
    }
    #[inline(always)]
    fn items(numbers: &[f32]) -> &[[bf16; 2]] {
        // SAFETY: two bf16 are four bytes of any bits, and need no more alignment than a number.
        unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
    }
    #[inline(always)]
    fn in_place<T: Stored<Number = f32>>(values: &[T]) -> Option<&[[bf16; 2]]> {
        Some(T::as_bf16(values)?.as_chunks().0)
    }
}

impl Lanes for [bf16; 2] {
    type Number = f32;
    #[inline(always)]
    unsafe fn load_at<S: Simd<N = f32>>(simd: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise; a lane is the bits of two bf16.
        unsafe { simd.load_at(from.cast()) }
    }
}

macro_rules! forward {
    ($($(#[$unsafe:ident])? fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        forward!(@ $($unsafe)? fn $name($($arg: $type),*) $(-> $out)?);
    )*};
    (@ unsafe fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        #[inline(always)]
        unsafe fn $name(self, $($arg: $type),*) $(-> $out)? {
            // SAFETY: the caller's promise.
            unsafe { self.0.$name($($arg),*) }
        }
    };
    (@ fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        #[inline(always)]
        fn $name(self, $($arg: $type),*) $(-> $out)? {
            self.0.$name($($arg),*)
        }
    };
}

impl Simd for Avx512Bf16 {
    type N = f32;
    type F = __m512;
    type Bf16 = Pairs;
    const LANES: usize = Avx512::LANES;
    const ROWS: usize = Avx512::ROWS;
    const WIDE: usize = Avx512::WIDE;

    forward! {
        fn splat(x: f32) -> __m512;
        fn lanes() -> __m512;
        #[unsafe] fn load_at(from: *const f32) -> __m512;
        #[unsafe] fn load_f16_at(from: *const u16) -> __m512;
        #[unsafe] fn load_bf16_at(from: *const u16) -> __m512;
        fn store(x: __m512, to: &mut [f32]);
        fn store_f16(x: __m512, to: &mut [half::f16]);
        fn store_bf16(x: __m512, to: &mut [bf16]);
        fn add(a: __m512, b: __m512) -> __m512;
        fn sub(a: __m512, b: __m512) -> __m512;
        fn mul(a: __m512, b: __m512) -> __m512;
        fn div(a: __m512, b: __m512) -> __m512;
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512;
        fn max(a: __m512, b: __m512) -> __m512;
        fn min(a: __m512, b: __m512) -> __m512;
        fn any_less(a: __m512, b: __m512) -> bool;
        fn select_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512;
        fn split(x: __m512) -> (__m512, __m512);
        fn mul_pow2(x: __m512, n: __m512) -> __m512;
        fn sum(x: __m512) -> f32;
        fn sums(x: [__m512; 4]) -> [f32; 4];
    }
    apart!("avx512f,avx512dq,avx512bw,avx512bf16");
    #[inline(always)]
    fn prefetch<A>(self, from: *const A) {
        self.0.prefetch(from);
    }
    #[inline(always)]
    unsafe fn transpose_at<L: Lanes<Number = f32>>(
        self,
        from: *const L,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.0.transpose_at(from, from_stride, to, to_stride) }
    }
}
