//! The one exponential of every path, and what is made of it.

use crate::isa::{Number, Simd};

/// 2ˣ for x ≤ 0, within 1 ulp in f32; 0 for −∞ and from about 2^[`Number::LEAST_POWER`] on downwards, NaN
/// for NaN. Right for positive x up to 64 too.
///
/// x = n + f with whole n and |f| ≤ ½; 2ˣ = 2ⁿ · 2ᶠ, and a polynomial for 2ᶠ.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, x: S::F) -> S::F {
    let [power] = exp2_of(simd, [x]);
    power
}

/// [`exp2`] of several vectors, side by side: every step waits for the one before it, not for its neighbours.
#[inline(always)]
pub(crate) fn exp2_of<S: Simd, const V: usize>(simd: S, x: [S::F; V]) -> [S::F; V] {
    let (mut n, mut f) = (x, x);
    for v in 0..V {
        (n[v], f[v]) = simd.split(x[v]);
    }
    // Over a power of 2, which changes no digit.
    let coefficient = |k: usize| simd.constant(S::N::EXP2[k].to_f64() / S::LIFT);
    let degree = S::N::EXP2.len() - 1;
    let mut p = [coefficient(degree); V];
    for k in (1..degree).rev() {
        for v in 0..V {
            p[v] = simd.mul_add(p[v], f[v], coefficient(k));
        }
        p = simd.abreast(p);
    }
    for v in 0..V {
        p[v] = simd.mul_pow2(simd.mul_add_once(p[v], f[v], coefficient(0)), n[v]);
    }
    p
}

/// (tanh x − x)/x³ for |x| < 0.625: the coefficients of Cephes' tanhf (Moshier).
const TANH: [f64; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_088, -0.005_704_988_7];

/// tanh x, in f32 within 1.5 ulp, in f64 within 1e-15; keeps NaN.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    let zero = simd.constant(0.0);
    let negative = simd.sub(zero, x);
    let size = simd.max(negative, x);
    // 1 − 2/(e^{2|x|} + 1) with e^{−2|x|}, which cannot overflow; what is taken from 1 is small, and its error smaller.
    let e = exp2(simd, simd.mul(size, simd.constant(-2.0 * std::f64::consts::LOG2_E)));
    let one = simd.constant(1.0);
    let large = simd.sub(one, simd.div(simd.add(e, e), simd.add(one, e)));
    let large = simd.select_less(x, zero, simd.sub(zero, large), large);
    let square = simd.mul(x, x);
    let mut p = simd.constant(TANH[4]);
    for coefficient in [TANH[3], TANH[2], TANH[1], TANH[0]] {
        p = simd.mul_add(p, square, simd.constant(coefficient));
    }
    let small = simd.mul_add(simd.mul(x, square), p, x);
    simd.select_less(size, simd.splat(S::N::TANH_SMALL), small, large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{InstructionSet, Kernel};

    /// What rounds to this power or a lower one has the power 0.
    const LEAST: f64 = f32::LEAST_POWER as f64 + 0.5;

    /// Applies a function to numbers, a vector at a time.
    struct Map<'a>(&'a [f32], bool);

    impl Kernel<f32> for Map<'_> {
        type Out = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd<N = f32>>(self, simd: S) -> Vec<f32> {
            let mut lanes = vec![0.0; S::LANES];
            let mut out = Vec::with_capacity(self.0.len());
            for &x in self.0 {
                let x = simd.splat(x);
                simd.store(if self.1 { tanh(simd, x) } else { exp2(simd, x) }, &mut lanes);
                out.push(lanes[S::LANES - 1]);
            }
            out
        }
    }

    /// What [`exp2`] is to be.
    fn power(x: f64) -> f64 {
        if x <= LEAST { 0.0 } else { x.exp2() }
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
            let got = f32::dispatch(*set, Map(inputs, tanh));
            let errors = inputs.iter().zip(got).map(|(&x, got)| ulps(got, exact(f64::from(x))));
            errors.max_by(f64::total_cmp).unwrap_or(0.0)
        };
        sets.iter().map(|set| (*set, worst(set))).collect()
    }

    #[test]
    fn exp2_is_within_one_ulp_on_a_sample() {
        let inputs: Vec<f32> = (0..400_000).map(|i| -(i as f32) * 3.8e-4).collect();
        for (set, ulps) in worst(&inputs, false, power) {
            assert!(ulps <= 1.0, "{set:?}: {ulps} ulp");
        }
    }

    /// Every float from −152 to −0: run once with `cargo test --release -- --ignored exp2`.
    #[test]
    #[ignore = "a billion inputs"]
    fn exp2_is_within_one_ulp_everywhere() {
        let last = (-152f32).to_bits();
        let mut from = (-0f32).to_bits();
        let mut over_all: Vec<(InstructionSet, f64)> = Vec::new();
        while from <= last {
            let to = from.saturating_add(1 << 22).min(last + 1);
            let inputs: Vec<f32> = (from..to).map(f32::from_bits).collect();
            let found = worst(&inputs, false, power);
            over_all.resize(found.len(), (InstructionSet::Scalar, 0.0));
            for (all, (set, ulps)) in over_all.iter_mut().zip(found) {
                *all = (set, std::cmp::max_by(all.1, ulps, f64::total_cmp));
            }
            from = to;
        }
        println!("worst error in ulp: {over_all:?}");
        assert!(over_all.iter().all(|(_, ulps)| *ulps <= 1.0), "{over_all:?}");
    }

    #[test]
    fn exp2_of_what_is_hidden_is_zero_and_nan_stays() {
        for set in InstructionSet::here() {
            let got =
                f32::dispatch(set, Map(&[f32::NEG_INFINITY, -1e30, -100.0, 0.0, f32::NAN, -99.0], false));
            assert_eq!(&got[..4], [0.0, 0.0, 0.0, 1.0], "{set:?}");
            assert!(got[4].is_nan() && got[5] == 2f32.powi(-99), "{set:?}");
        }
    }

    #[test]
    fn tanh_is_close_and_keeps_nan() {
        let inputs: Vec<f32> = (-60_000..60_000).map(|i| i as f32 * 2e-4).collect();
        for (set, ulps) in worst(&inputs, true, f64::tanh) {
            assert!(ulps <= 1.5, "{set:?}: {ulps} ulp");
            assert!(f32::dispatch(set, Map(&[f32::NAN], true))[0].is_nan());
        }
    }
}
