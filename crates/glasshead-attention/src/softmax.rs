//! The one exp of every path, and what it is made of.

use crate::isa::Simd;

/// Below this, exp is 0 in f32 even after rounding (ln 2⁻¹⁵⁰ ≈ −103.97).
const LOWEST: f32 = -110.0;
/// ln 2 in two parts: n · LN_2_HIGH is exact for every n that occurs.
const LN_2_HIGH: f32 = 0.693_115_23;
const LN_2_LOW: f32 = 3.194_618_5e-5;
/// (eʳ − 1 − r)/r² on |r| ≤ ln 2 / 2: a weighted least-squares fit in f64, then the last bits searched
/// for the smallest error of the whole computation in f32.
const EXP: [f32; 5] = [0.500_000_06, 0.166_665_26, 0.041_667_685, 0.008_369_377, 0.001_381_518_2];

/// eˣ for x ≤ 0, within 1 ulp; 0 for −∞, NaN for NaN.
///
/// x = n·ln 2 + r, eˣ = 2ⁿ·eʳ (Cody and Waite 1980).
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    // max gives its second argument for NaN, so NaN goes through.
    let x = simd.max(simd.splat(LOWEST), x);
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    let mut p = simd.splat(EXP[4]);
    for coefficient in [EXP[3], EXP[2], EXP[1], EXP[0]] {
        p = simd.mul_add(p, r, simd.splat(coefficient));
    }
    let tail = simd.mul_add(simd.mul(r, r), p, r);
    simd.mul_pow2(simd.add(simd.splat(1.0), tail), n)
}

/// (tanh x − x)/x³ for |x| < 0.625: the coefficients of Cephes' tanhf (Moshier).
const TANH: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_088, -0.005_704_988_7];
const TANH_SMALL: f32 = 0.625;

/// tanh x within a few ulp; keeps NaN.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    let zero = simd.splat(0.0);
    let negative = simd.sub(zero, x);
    let size = simd.max(negative, x);
    // 1 − 2/(e^{2|x|} + 1) with e^{−2|x|}, which cannot overflow.
    let e = exp(simd, simd.mul(size, simd.splat(-2.0)));
    let one = simd.splat(1.0);
    let large = simd.div(simd.sub(one, e), simd.add(one, e));
    let large = simd.select_less(x, zero, simd.sub(zero, large), large);
    let square = simd.mul(x, x);
    let mut p = simd.splat(TANH[4]);
    for coefficient in [TANH[3], TANH[2], TANH[1], TANH[0]] {
        p = simd.mul_add(p, square, simd.splat(coefficient));
    }
    let small = simd.mul_add(simd.mul(x, square), p, x);
    simd.select_less(size, simd.splat(TANH_SMALL), small, large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{InstructionSet, Kernel};

    /// Applies a function to numbers, a vector at a time.
    struct Map<'a>(&'a [f32], bool);

    impl Kernel for Map<'_> {
        type Out = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut lanes = vec![0.0; S::LANES];
            let mut out = Vec::with_capacity(self.0.len());
            for &x in self.0 {
                let x = simd.splat(x);
                simd.store(if self.1 { tanh(simd, x) } else { exp(simd, x) }, &mut lanes);
                out.push(lanes[S::LANES - 1]);
            }
            out
        }
    }

    /// The distance between `got` and the exact value, in units of the last place of `exact`.
    fn ulps(got: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        let place = f64::from(rounded.next_up()) - f64::from(rounded);
        (f64::from(got) - exact).abs() / place
    }

    fn worst(inputs: &[f32], tanh: bool, exact: fn(f64) -> f64) -> Vec<(InstructionSet, f64)> {
        let sets = InstructionSet::here();
        let worst = |set: &InstructionSet| {
            let got = set.dispatch(Map(inputs, tanh));
            let errors = inputs.iter().zip(got).map(|(&x, got)| ulps(got, exact(f64::from(x))));
            errors.fold(0.0, f64::max)
        };
        sets.iter().map(|set| (*set, worst(set))).collect()
    }

    #[test]
    fn exp_is_within_one_ulp_on_a_sample() {
        let inputs: Vec<f32> = (0..400_000).map(|i| -(i as f32) * 2.6e-4).collect();
        for (set, ulps) in worst(&inputs, false, f64::exp) {
            assert!(ulps <= 1.0, "{set:?}: {ulps} ulp");
        }
    }

    /// Every float from −104 to −0: run once with `cargo test --release -- --ignored exp`.
    #[test]
    #[ignore = "a billion inputs"]
    fn exp_is_within_one_ulp_everywhere() {
        let last = (-104f32).to_bits();
        let mut from = (-0f32).to_bits();
        let mut over_all: Vec<(InstructionSet, f64)> = Vec::new();
        while from <= last {
            let to = from.saturating_add(1 << 22).min(last + 1);
            let inputs: Vec<f32> = (from..to).map(f32::from_bits).collect();
            let found = worst(&inputs, false, f64::exp);
            over_all.resize(found.len(), (InstructionSet::Scalar, 0.0));
            for (all, (set, ulps)) in over_all.iter_mut().zip(found) {
                *all = (set, all.1.max(ulps));
            }
            from = to;
        }
        println!("worst error in ulp: {over_all:?}");
        assert!(over_all.iter().all(|(_, ulps)| *ulps <= 1.0), "{over_all:?}");
    }

    #[test]
    fn exp_of_what_is_hidden_is_zero_and_nan_stays() {
        for set in InstructionSet::here() {
            let got = set.dispatch(Map(&[f32::NEG_INFINITY, -1e30, -105.0, 0.0, f32::NAN], false));
            assert_eq!(&got[..4], [0.0, 0.0, 0.0, 1.0], "{set:?}");
            assert!(got[4].is_nan(), "{set:?}");
        }
    }

    #[test]
    fn tanh_is_close_and_keeps_nan() {
        let inputs: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 2e-4).collect();
        for (set, ulps) in worst(&inputs, true, f64::tanh) {
            assert!(ulps <= 3.0, "{set:?}: {ulps} ulp");
            assert!(set.dispatch(Map(&[f32::NAN], true))[0].is_nan());
        }
    }
}
