//! What is done number by number between the matrix products: activations, sums, the exponential.
//!
//! Written so that the compiler turns the loops into vector instructions: no calls, no branches.

use rayon::prelude::*;

/// The bend between the two linear layers of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// x·Φ(x), with the error function (Hendrycks & Gimpel 2016).
    Gelu,
    /// The same by their approximation with tanh.
    GeluTanh,
    /// max(x, 0)
    Relu,
    /// x·σ(x), also called swish.
    Silu,
}

impl Activation {
    /// What the configs of BERT and its kin call them.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
    ];

    /// What the configs of decoders call them.
    pub(super) const OF_DECODERS: &[(&str, Self)] = &[
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
    ];

    /// Of every number, in place.
    pub(super) fn forward(self, x: &mut [f32]) {
        pulp::Arch::new().dispatch(Bend { activation: self, x });
    }

    /// activation(gate) · up, in one go.
    pub(super) fn gate(self, gated: &mut [f32], gate: &[f32], up: &[f32]) {
        pulp::Arch::new().dispatch(Gate { activation: self, gated, gate, up });
    }
}

/// [`Activation::forward`], compiled once for every set of vector instructions.
struct Bend<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

impl pulp::WithSimd for Bend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        // The match stands outside of the loops, or they would not become vector instructions.
        match self.activation {
            Activation::Gelu => self.x.iter_mut().for_each(|x| *x = gelu(*x)),
            Activation::GeluTanh => self.x.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
            Activation::Relu => self.x.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            Activation::Silu => self.x.iter_mut().for_each(|x| *x *= sigmoid(*x)),
        }
    }
}

/// [`Activation::gate`], likewise.
struct Gate<'a> {
    activation: Activation,
    gated: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl pulp::WithSimd for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let each = self.gated.iter_mut().zip(self.gate.iter().zip(self.up));
        match self.activation {
            Activation::Gelu => each.for_each(|(to, (gate, up))| *to = gelu(*gate) * up),
            Activation::GeluTanh => each.for_each(|(to, (gate, up))| *to = gelu_tanh(*gate) * up),
            Activation::Relu => {
                each.for_each(|(to, (gate, up))| *to = if *gate < 0.0 { 0.0 } else { *gate } * up);
            }
            Activation::Silu => each.for_each(|(to, (gate, up))| *to = gate * sigmoid(*gate) * up),
        }
    }
}

/// x to mean 0 and variance 1, then · weight + bias.
pub(super) fn normalise(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    pulp::Arch::new().dispatch(Normalise { x, weight, bias, epsilon });
}

/// x to mean square 1, then · weight.
pub(super) fn scale_to_one(x: &mut [f32], weight: &[f32], epsilon: f32) {
    pulp::Arch::new().dispatch(ScaleToOne { x, weight, epsilon });
}

/// [`normalise`], compiled once for every set of vector instructions.
struct Normalise<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl pulp::WithSimd for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { x, weight, bias, epsilon } = self;
        let size = x.len() as f32;
        let mean = sum(x) / size;
        let factor = 1.0 / (squares(x, mean) / size + epsilon).sqrt();
        for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
            *x = (*x - mean) * factor * weight + bias;
        }
    }
}

/// [`scale_to_one`], likewise.
struct ScaleToOne<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl pulp::WithSimd for ScaleToOne<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let factor = 1.0 / (squares(self.x, 0.0) / self.x.len() as f32 + self.epsilon).sqrt();
        for (x, weight) in self.x.iter_mut().zip(self.weight) {
            *x = *x * factor * weight;
        }
    }
}

/// x += y, element by element.
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Σ x·y, in as many partial sums as the processor can keep at once.
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let (x, x_rest) = x.as_chunks::<32>();
    let (y, y_rest) = y.as_chunks::<32>();
    for (x, y) in x.iter().zip(y) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    halved(&mut lanes) + rest
}

/// Σ (x − mean)²
#[inline(always)]
fn squares(x: &[f32], mean: f32) -> f32 {
    let mut lanes = [0f32; 32];
    let (x, rest) = x.as_chunks::<32>();
    for x in x {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += (x - mean) * (x - mean);
        }
    }
    halved(&mut lanes) + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>()
}

/// Σ x
#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 32];
    let (x, rest) = x.as_chunks::<32>();
    for x in x {
        add(&mut lanes, x);
    }
    halved(&mut lanes) + rest.iter().sum::<f32>()
}

/// The sum of the lanes, pair by pair: the rounding errors of a tree, not of a chain.
#[inline(always)]
fn halved(lanes: &mut [f32; 32]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// (1 + tanh u) / 2 is σ(2u).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_8_OVER_PI: f32 = 1.595_769;
    x * sigmoid(SQRT_8_OVER_PI * (x + 0.044_715 * x * x * x))
}

/// x·Φ(x), where Φ(x) = erfc(−x/√2) / 2 and erfc(z) = t·P(t)·e^(−z²) with t = 1 / (1 + 0.4 z) for z ≥ 0:
/// P is the least-squares polynomial on 0 ≤ z ≤ 6, off by 1e-8 at most, less than f32 can tell.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    const P: [f32; 7] =
        [0.241_148, 0.092_511_74, 0.683_833_94, -0.726_215_9, 1.036_598_2, -0.360_277_37, 0.032_401_38];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.4 * z);
    let p = P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * (P[4] + t * (P[5] + t * P[6])))));
    let tail = 0.5 * t * p * exp(-z * z);
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

/// eˣ = 2ⁿ·eʳ with n = round(x · log₂e) and |r| ≤ ½ ln 2, where the Taylor series to r⁷ is off by 5e-9.
/// Below e⁻⁸⁷ and above e⁸⁸ it stays there: its callers add 1 to it or divide by it.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Adding it rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts: n times the first one is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2[0] - n * LN2[1];
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0
                    + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    series * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// So many numbers are worth a task of their own.
const TASK: usize = 1 << 14;

/// Calls `work(first, rows)` for pieces of some rows of `x [rows, width]`, spread over the threads where it pays.
pub(super) fn by_rows(x: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if x.len() <= TASK {
        return work(0, x);
    }
    let rows = (TASK / width.max(1)).max(1);
    x.par_chunks_mut(rows * width).enumerate().for_each(|(task, x)| work(task * rows, x));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 1/64 from −100 to 100.
    fn points() -> impl Iterator<Item = f32> {
        (-6400..=6400).map(|x| x as f32 / 64.0)
    }

    #[test]
    fn the_exponential_is_off_by_three_roundings_at_most() {
        for x in points().filter(|x| (-87.0..=88.0).contains(x)) {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 3.0 * f64::from(f32::EPSILON), "e^{x}: {error:e}");
        }
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn activations_are_those_of_their_formulas() {
        // Φ in f64, by the series Σ (−1)ⁿ z²ⁿ⁺¹ / (n! (2n + 1)) · 2/√π.
        let erf = |z: f64| {
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        };
        for x in points().filter(|x| x.abs() <= 6.0) {
            let wide = f64::from(x);
            let tanh = (0.797_884_560_802_865_4 * (wide + 0.044_715 * wide.powi(3))).tanh();
            let expected = [
                (Activation::Gelu, wide * 0.5 * (1.0 + erf(wide / std::f64::consts::SQRT_2))),
                (Activation::GeluTanh, wide * 0.5 * (1.0 + tanh)),
                (Activation::Relu, wide.max(0.0)),
                (Activation::Silu, wide / (1.0 + (-wide).exp())),
            ];
            for (activation, expected) in expected {
                let mut found = [x];
                activation.forward(&mut found);
                // Each is x times a share: the share's few roundings, near 1 at most.
                let tolerance = 4.0 * f64::from(f32::EPSILON) * wide.abs();
                let error = (f64::from(found[0]) - expected).abs();
                assert!(error <= tolerance, "{activation:?} of {x}: off by {error:e}");
            }
        }
        for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu] {
            let mut far = [-1e4f32, 1e4, f32::NAN];
            activation.forward(&mut far);
            assert!(far[0].abs() < 1e-30 && far[1] == 1e4 && far[2].is_nan(), "{activation:?} {far:?}");
        }
    }

    #[test]
    fn sums_take_every_number_once() {
        let x: Vec<f32> = (0..77).map(|x| x as f32).collect();
        assert_eq!((sum(&x), dot(&x, &x), squares(&x, 1.0)), (2926.0, 149226.0, 143451.0));
    }

    #[test]
    fn rows_are_seen_once_whatever_the_number_of_tasks() {
        for rows in [0, 1, 7, 9000] {
            let mut x = vec![0f32; rows * 3];
            by_rows(&mut x, 3, |first, x| {
                for (row, x) in x.chunks_mut(3).enumerate() {
                    x.iter_mut().for_each(|x| *x += (first + row) as f32);
                }
            });
            assert!(x.iter().enumerate().all(|(at, x)| *x == (at / 3) as f32));
        }
    }
}
