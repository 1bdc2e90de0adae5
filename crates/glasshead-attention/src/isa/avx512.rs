//! AVX-512F and DQ: what every CPU with AVX-512 has but the first Xeon Phi.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Lanes, Number, Simd, Single};

/// Proof that this CPU has AVX-512F and DQ.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")).then_some(Self(()))
    }

    /// Runs a kernel with these vectors, compiled for this set.
    pub(super) fn enter<S: Simd, K: Kernel<S::N>>(self, simd: S, kernel: K) -> K::Out {
        #[target_feature(enable = "avx512f,avx512dq")]
        fn trampoline<S: Simd, K: Kernel<S::N>>(simd: S, kernel: K) -> K::Out {
            kernel.run(simd)
        }
        // SAFETY: the token proves that the CPU has the features.
        unsafe { trampoline(simd, kernel) }
    }
}

impl Simd for Avx512 {
    type N = f32;
    type F = __m512;
    type Bf16 = Single;
    const LANES: usize = 16;
    const ROWS: usize = 8;
    const WIDE: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves AVX-512F; so below.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn lanes(self) -> Self::F {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            _mm512_setr_ps(
                0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
            )
        }
    }
    #[inline(always)]
    unsafe fn load_at(self, from: *const f32) -> Self::F {
        // SAFETY: AVX-512F by the token; the caller promises 16 readable numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_f16_at(self, from: *const u16) -> Self::F {
        // SAFETY: AVX-512F by the token; the caller promises 16 readable numbers.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_at(self, from: *const u16) -> Self::F {
        // SAFETY: AVX-512F by the token; the caller promises 16 readable numbers.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn prefetch<A>(self, from: *const A) {
        // SAFETY: a hint touches nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32]) {
        // SAFETY: AVX-512F by the token; the slice index proves 16 writable numbers.
        unsafe { _mm512_storeu_ps(to[..16].as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn store_f16(self, x: Self::F, to: &mut [f16]) {
        // SAFETY: AVX-512F by the token; the slice index proves 16 writable values.
        unsafe {
            let values = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            _mm256_storeu_si256(to[..16].as_mut_ptr().cast(), values);
        }
    }
    #[inline(always)]
    fn store_bf16(self, x: Self::F, to: &mut [bf16]) {
        // In whole numbers, for the instruction takes subnormal ones for 0.
        // SAFETY: AVX-512F by the token; the slice index proves 16 writable values.
        unsafe {
            let bits = _mm512_castps_si512(x);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
            let values = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
            _mm256_storeu_si256(to[..16].as_mut_ptr().cast(), values);
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
        let mut rows = [self.splat(0.0); 16];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise
            *row = unsafe { L::load_at(self, from.add(i * from_stride)) };
        }
        // SAFETY: the token proves AVX-512F.
        let columns: [__m512; 16] = unsafe {
            // Quarter l of part g + c then holds column 4l + c of rows g to g + 3.
            let mut parts = [rows[0]; 16];
            for g in [0, 4, 8, 12] {
                let low = _mm512_unpacklo_ps(rows[g], rows[g + 1]);
                let high = _mm512_unpackhi_ps(rows[g], rows[g + 1]);
                let next_low = _mm512_unpacklo_ps(rows[g + 2], rows[g + 3]);
                let next_high = _mm512_unpackhi_ps(rows[g + 2], rows[g + 3]);
                parts[g] = _mm512_shuffle_ps::<0x44>(low, next_low);
                parts[g + 1] = _mm512_shuffle_ps::<0xee>(low, next_low);
                parts[g + 2] = _mm512_shuffle_ps::<0x44>(high, next_high);
                parts[g + 3] = _mm512_shuffle_ps::<0xee>(high, next_high);
            }
            let mut columns = parts;
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(parts[c], parts[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(parts[c], parts[4 + c]);
                let next_even = _mm512_shuffle_f32x4::<0x88>(parts[8 + c], parts[12 + c]);
                let next_odd = _mm512_shuffle_f32x4::<0xdd>(parts[8 + c], parts[12 + c]);
                columns[c] = _mm512_shuffle_f32x4::<0x88>(even, next_even);
                columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, next_odd);
                columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even, next_even);
                columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd, next_odd);
            }
            columns
        };
        for (j, column) in columns.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(to.add(j * to_stride), column) };
        }
    }
    instructions! {
        add(a, b) = _mm512_add_ps;
        sub(a, b) = _mm512_sub_ps;
        mul(a, b) = _mm512_mul_ps;
        div(a, b) = _mm512_div_ps;
        mul_add(a, b, c) = _mm512_fmadd_ps;
        max(a, b) = _mm512_max_ps;
        min(a, b) = _mm512_min_ps;
    }
    #[inline(always)]
    fn any_less(self, a: Self::F, b: Self::F) -> bool {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) != 0 }
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn split(self, x: Self::F) -> (Self::F, Self::F) {
        // One operation where rounding takes two; 0 for −∞. (From the floor on, the subtraction would be saved, but f of a small
        // x would lose its digits: 1.6 ulp.)
        // SAFETY: the token proves AVX-512DQ.
        let f = unsafe { _mm512_reduce_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) };
        (self.sub(x, f), f)
    }
    #[inline(always)]
    fn mul_pow2(self, x: Self::F, n: Self::F) -> Self::F {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let large = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(n, _mm512_set1_ps(f32::LEAST_POWER as f32));
            _mm512_maskz_scalef_ps(large, x, n)
        }
    }
    apart!("avx512f,avx512dq");
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // SAFETY: the token proves AVX-512F.
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    fn sums(self, [a, b, c, d]: [Self::F; 4]) -> [f32; 4] {
        // SAFETY: the token proves AVX-512F.
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            // Every quarter then holds a, b, c, d.
            let all = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(ab, cd), _mm512_shuffle_ps::<0xee>(ab, cd));
            let half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
            let sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps::<1>(half));
            std::mem::transmute::<__m128, [f32; 4]>(sums)
        }
    }
}
