//! AVX2 with FMA and F16C.

use std::{
    arch::{asm, x86_64::*},
    sync::atomic::{Ordering, compiler_fence},
};

use half::{bf16, f16};

use super::{Kernel, Lanes, Number, Simd, Single};

/// By how much exponents are lower than they are written: the lowest one is written as 0, which makes the number 0.
const LIFTED: i32 = 127 + f32::LEAST_POWER;

/// Proof that this CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn new() -> Option<Self> {
        let here = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        here.then_some(Self(()))
    }

    /// Runs a kernel with these vectors, compiled for this set.
    pub(super) fn enter<S: Simd, K: Kernel<S::N>>(self, simd: S, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn trampoline<S: Simd, K: Kernel<S::N>>(simd: S, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: the token proves that the CPU has the features.
        unsafe { trampoline(simd, kernel) }
    }
}

impl Simd for Avx2 {
    type N = f32;
    type F = __m256;
    type Bf16 = Single;
    const LANES: usize = 8;
    const ROWS: usize = 6;
    const WIDE: usize = 4;
    // Where there is no AVX-512, second caches are often of 512 KiB.
    const BLOCK: usize = 128 << 10;
    const LIFT: f64 = 1.0 / (1u64 << LIFTED) as f64;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves AVX2; so below.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn lanes(self) -> Self::F {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0) }
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: AVX2 by the token; the caller promises 8 readable numbers.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_f16_at(self, from: *const u16) -> Self::F {
        // SAFETY: F16C by the token; the caller promises 8 readable numbers.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const u16) -> Self::F {
        // SAFETY: AVX2 by the token; the caller promises 8 readable numbers.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn prefetch<A>(self, from: *const A) {
        // SAFETY: a hint touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32]) {
        // SAFETY: AVX2 by the token; the slice index proves 8 writable numbers.
        unsafe { _mm256_storeu_ps(to[..8].as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [f16]) {
        // SAFETY: F16C by the token; the slice index proves 8 writable values.
        unsafe {
            _mm_storeu_si128(to[..8].as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x))
        }
    }
    #[inline(always)]
    fn store_bf16(self, x: Self::F, to: &mut [bf16]) {
        // SAFETY: AVX2 by the token; the slice index proves 8 writable values.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let high = _mm256_srli_epi32::<16>(rounded);
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(high, high));
            _mm_storeu_si128(to[..8].as_mut_ptr().cast(), _mm256_castsi256_si128(packed));
        }
    }
    #[inline(always)]
    unsafe fn transpose_at<L: Lanes<Number = f32>>(
        self,
        from: *const L,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
    ) {
        let mut rows = [self.splat(0.0); 8];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise
            *row = unsafe { L::load_at(self, from.add(i * from_stride)) };
        }
        // SAFETY: the token proves AVX2.
        let columns: [__m256; 8] = unsafe {
            // Half c of group g then holds column c (low half) and 4 + c (high half) of rows 4g to 4g + 3.
            let mut halves = [rows[0]; 8];
            for g in [0, 4] {
                let low = _mm256_unpacklo_ps(rows[g], rows[g + 1]);
                let high = _mm256_unpackhi_ps(rows[g], rows[g + 1]);
                let next_low = _mm256_unpacklo_ps(rows[g + 2], rows[g + 3]);
                let next_high = _mm256_unpackhi_ps(rows[g + 2], rows[g + 3]);
                halves[g] = _mm256_shuffle_ps::<0x44>(low, next_low);
                halves[g + 1] = _mm256_shuffle_ps::<0xee>(low, next_low);
                halves[g + 2] = _mm256_shuffle_ps::<0x44>(high, next_high);
                halves[g + 3] = _mm256_shuffle_ps::<0xee>(high, next_high);
            }
            let mut columns = halves;
            for c in 0..4 {
                columns[c] = _mm256_permute2f128_ps::<0x20>(halves[c], halves[4 + c]);
                columns[4 + c] = _mm256_permute2f128_ps::<0x31>(halves[c], halves[4 + c]);
            }
            columns
        };
        for (j, column) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm256_storeu_ps(to.add(j * to_stride), column) };
        }
    }
    instructions! {
        add(a, b) = _mm256_add_ps;
        sub(a, b) = _mm256_sub_ps;
        mul(a, b) = _mm256_mul_ps;
        div(a, b) = _mm256_div_ps;
        mul_add(a, b, c) = _mm256_fmadd_ps;
        max(a, b) = _mm256_max_ps;
        min(a, b) = _mm256_min_ps;
    }
    #[inline(always)]
    fn any_less(self, a: Self::F, b: Self::F) -> bool {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) != 0 }
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        // SAFETY: the token proves AVX2.
        unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn split(self, x: Self::F) -> (Self::F, Self::F) {
        // Adding 1.5 · 2²³ leaves no room for a fraction, and n − LIFTED in the lowest bits as exponents are written, counted
        // from 127. max lets NaN through.
        let x = self.max(self.splat(f32::LEAST_POWER as f32), x);
        let rounder = self.splat((3 << 22) as f32 - f32::LEAST_POWER as f32);
        let n = self.add(x, rounder);
        (n, self.sub(x, self.sub(n, rounder)))
    }
    #[inline(always)]
    fn mul_pow2(self, x: Self::F, n: Self::F) -> Self::F {
        // SAFETY: the token proves AVX2.
        unsafe { self.mul(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(n)))) }
    }
    apart!("avx2,fma,f16c");
    #[inline(always)]
    fn end_step(self) {
        compiler_fence(Ordering::SeqCst);
    }
    #[inline(always)]
    fn abreast<const V: usize>(self, mut x: [Self::F; V]) -> [Self::F; V] {
        if let [a, b, c, d] = &mut x[..] {
            // SAFETY: the token proves AVX2.
            unsafe { hold(a, b, c, d) };
        }
        x
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        // SAFETY: the token proves AVX2.
        unsafe {
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            // Both halves then hold a, b, c, d.
            let all = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
            let sums = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }
}

/// Nothing, but the compiler does not know: what makes these four stays before what is made of them.
///
/// # Safety
/// The CPU has AVX2.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn hold(a: &mut __m256, b: &mut __m256, c: &mut __m256, d: &mut __m256) {
    // SAFETY: no instruction at all.
    unsafe {
        asm!(
            "/* {0} {1} {2} {3} */",
            inout(ymm_reg) * a,
            inout(ymm_reg) * b,
            inout(ymm_reg) * c,
            inout(ymm_reg) * d,
            options(nomem, nostack, preserves_flags)
        );
    }
}
