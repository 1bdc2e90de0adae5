//! From q·k to the score and its weight: what both fused paths share.

use std::f64::consts::LOG2_E;

use crate::{
    Element,
    attend::Problem,
    isa::{Number, Simd},
    mask::{Mask, Reach},
    softmax::{exp2, tanh},
};

/// The options of one head that change scores.
#[derive(Clone, Copy)]
pub(super) struct Terms<N> {
    scale: N,
    softcap: N,
    slope: N,
    /// Nothing but a positive scale, and what hides: scores can stay unscaled until the exponential.
    pub(super) plain: bool,
}

impl<N: Number> Terms<N> {
    pub(super) fn new<T: Element>(problem: &Problem<T>, head: usize) -> Self {
        let slope = f64::from(problem.slope(head));
        Self {
            scale: N::from_f64(problem.scale),
            softcap: N::from_f64(problem.softcap),
            slope: N::from_f64(slope),
            plain: problem.is_plain(head),
        }
    }

    /// What a score is multiplied with to be an exponent of 2; scores of plain terms are still raw.
    #[inline(always)]
    pub(super) fn unit(&self) -> N {
        N::from_f64(LOG2_E * if self.plain { self.scale.to_f64() } else { 1.0 })
    }

    pub(super) fn is_capped(&self) -> bool {
        self.softcap > N::default()
    }

    /// The score, lifted if it is [`SUNK`] and not hidden.
    #[inline(always)]
    pub(super) fn lift<S: Simd<N = N>>(&self, simd: S, s: S::F) -> S::F {
        if self.plain {
            return s;
        }
        let lifted = simd.select_less(s, simd.constant(f64::from(f32::MIN)), s, simd.constant(FLOOR));
        simd.select_less(s, simd.constant(SUNK), lifted, s)
    }

    /// What is known of a query of which `max` is the largest exponent, the sink's left out.
    #[inline(always)]
    pub(super) fn depth<T: Element>(
        &self,
        problem: &Problem<T>,
        reach: &Reach,
        query: [usize; 3],
        max: f64,
    ) -> Depth {
        match problem.mask() {
            Some(mask) => self.depth_in(mask, problem, reach, query, max),
            None => Depth::Clear,
        }
    }

    fn depth_in<T: Element>(
        &self,
        mask: &Mask,
        problem: &Problem<T>,
        reach: &Reach,
        [batch, head, query]: [usize; 3],
        max: f64,
    ) -> Depth {
        let floor = FLOOR * self.unit().to_f64();
        let near = if self.plain { f64::NEG_INFINITY } else { floor + FAINT };
        if max > near {
            return Depth::Clear;
        }
        let sink = problem.sinks.map_or(f64::INFINITY, |sinks| f64::from(sinks[head]) * LOG2_E);
        match mask.level([batch, head, query], reach.keys(query)) {
            Some(f64::NEG_INFINITY) => Depth::Empty,
            Some(level) if level <= SUNK && max == floor && sink > near => Depth::Sunk(level),
            _ => Depth::Unclear,
        }
    }

    /// What a softcap leaves of the gradient of raw q·k: 1 − tanh²(s · scale / softcap).
    #[inline(always)]
    pub(super) fn slope_of_cap<S: Simd<N = N>>(&self, simd: S, s: S::F) -> S::F {
        let cap = simd.splat(self.softcap);
        let t = tanh(simd, simd.div(simd.mul(s, simd.splat(self.scale)), cap));
        simd.mul_add(simd.sub(simd.constant(0.0), t), t, simd.constant(1.0))
    }

    /// The score of raw q·k: softcap(s · scale) − slope · |distance| + bias, −∞ where the bias hides the key. Scores of
    /// plain terms stay raw.
    #[inline(always)]
    pub(super) fn finish<S: Simd<N = N>>(
        &self,
        simd: S,
        s: S::F,
        distance: impl Fn() -> S::F,
        bias: Option<S::F>,
    ) -> S::F {
        let hidden = simd.constant(f64::NEG_INFINITY);
        // Only −∞ is below the lowest finite number; NaN is not, and stays.
        let lowest = simd.constant(f64::from(f32::MIN));
        if self.plain {
            return bias.map_or(s, |bias| simd.select_less(bias, lowest, hidden, s));
        }
        let zero = N::default();
        let mut s = simd.mul(s, simd.splat(self.scale));
        if self.is_capped() {
            let cap = simd.splat(self.softcap);
            s = simd.mul(cap, tanh(simd, simd.div(s, cap)));
        }
        if self.slope != zero {
            let distance = distance();
            let distance = simd.max(distance, simd.sub(simd.splat(zero), distance));
            s = simd.sub(s, simd.mul(distance, simd.splat(self.slope)));
        }
        if let Some(bias) = bias {
            s = simd.select_less(bias, lowest, hidden, simd.add(s, bias));
        }
        s
    }
}

/// Masks that add the lowest number of their type leave scores no higher than this, in which no q·k is left.
const SUNK: f64 = -1e37;
/// What such scores are lifted to. So far below 0 as they are, what exponents are counted from would be rounded by more
/// than a power can take; this one times any number is exact.
const FLOOR: f64 = -((1u64 << 30) as f64);
/// Weights are nothing where the exponent is so much below the largest.
const FAINT: f64 = 512.0;

/// What is known of the scores of a query where there is a mask.
pub(super) enum Depth {
    /// None that counts was lifted.
    Clear,
    /// There are none: every key is hidden.
    Empty,
    /// All are this one, and were lifted.
    Sunk(f64),
    /// The pass can't tell.
    Unclear,
}

/// Keys and the range that is visible, counted from the same one.
#[derive(Clone, Copy)]
pub(super) struct Seen<F> {
    pub(super) key: F,
    pub(super) start: F,
    pub(super) end: F,
}

impl<F: Copy> Seen<F> {
    /// The score, −∞ where the key is out of the range.
    #[inline(always)]
    pub(super) fn hide<S: Simd<F = F>>(self, simd: S, s: F) -> F {
        let hidden = simd.constant(f64::NEG_INFINITY);
        let s = simd.select_less(self.key, self.start, hidden, s);
        simd.select_less(self.key, self.end, s, hidden)
    }
}

/// What rows carry from block to block: the largest exponent of 2 so far, and the sum of the powers.
#[derive(Clone, Copy)]
pub(super) struct Running<F> {
    pub(super) max: F,
    pub(super) sum: F,
}

/// A row's sum with the sink's share in it.
pub(super) struct Closed<F> {
    /// The largest exponent, the sink's among them: what the rest is counted from.
    pub(super) top: F,
    /// What numbers that were counted from the running maximum are multiplied with.
    pub(super) grow: F,
    /// The sink's number.
    pub(super) sink: F,
    pub(super) total: F,
}

impl<F: Copy> Running<F> {
    pub(super) fn new<S: Simd<F = F>>(simd: S) -> Self {
        Self { max: simd.constant(f64::NEG_INFINITY), sum: simd.constant(0.0) }
    }

    /// Takes in a block whose largest exponent is `max`: what exponents are counted from from now on, and what
    /// everything before the block shrinks by.
    #[inline(always)]
    pub(super) fn raise<S: Simd<F = F>>(&mut self, simd: S, max: F) -> (F, F) {
        let lowest = simd.constant(f64::NEG_INFINITY);
        let new = simd.max(self.max, max);
        // While nothing is visible the maximum is −∞, and −∞ − −∞ would be NaN.
        let base = simd.select_less(lowest, new, new, simd.constant(0.0));
        let shrink = exp2(simd, simd.sub(self.max, base));
        self.max = new;
        self.sum = simd.mul(self.sum, shrink);
        (base, shrink)
    }

    /// After the last key.
    #[inline(always)]
    pub(super) fn close<S: Simd<F = F>>(self, simd: S, sink: Option<f32>) -> Closed<F> {
        let Self { max, sum } = self;
        let Some(sink) = sink else {
            return Closed { top: max, grow: simd.constant(1.0), sink: simd.constant(0.0), total: sum };
        };
        let (top, sink) = with_sink(simd, max, sink);
        let grow = exp2(simd, simd.sub(max, top));
        Closed { top, grow, sink, total: simd.mul_add(sum, grow, sink) }
    }
}

/// The largest exponent, that of the sink among them, and the number of the sink counted from it: rounded once, as those
/// of scores are, so that a sink equals an equal score however large both are.
#[inline(always)]
pub(super) fn with_sink<S: Simd>(simd: S, max: S::F, sink: f32) -> (S::F, S::F) {
    let (sink, unit) = (simd.constant(f64::from(sink)), simd.constant(LOG2_E));
    let top = simd.max(max, simd.mul(sink, unit));
    (top, exp2(simd, simd.mul_add_once(sink, unit, simd.sub(simd.constant(0.0), top))))
}

/// 0 in the lanes whose exponents up to the largest of the keys, `max`, and of all, `top`, are near enough to each other, 1 in
/// the others: what they are counted from is rounded, and a power of what that leaves must be one that [`exp2`] can take.
#[inline(always)]
pub(super) fn doubt<S: Simd>(simd: S, max: S::F, top: S::F) -> S::F {
    let [zero, one] = [simd.constant(0.0), simd.constant(1.0)];
    let far = simd.splat(S::N::FAR);
    simd.select_less(simd.sub(zero, far), max, simd.select_less(top, far, zero, one), one)
}
