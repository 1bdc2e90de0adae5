//! Rotary position embedding (Su et al. 2021): pairs of numbers in q and k are turned by an angle that grows with
//! the position, so that q·k depends on how far apart two tokens are.
//!
//! ```text
//! angle(position, i) = position · fᵢ,  fᵢ = base^(−2i / dim),  i < dim / 2;  the pair is (xᵢ, xᵢ₊dim/2)
//! ```
//!
//! How a longer context is reached is a change of the frequencies fᵢ: linear (Chen et al. 2023), llama3 (Dubey et
//! al. 2024), yarn (Peng et al. 2023), longrope (Ding et al. 2024).

use std::f64::consts::TAU;

use rayon::prelude::*;

use super::config::Keys;
use super::pass::Pass;
use crate::{Error, Result};

/// The frequencies of one kind of layers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotary {
    frequencies: Vec<f64>,
    /// Those of a text that is longer than so many tokens (longrope).
    long: Option<(usize, Vec<f64>)>,
    /// Sines and cosines are multiplied with it.
    factor: f64,
}

/// What the frequencies depend on beside the rotary settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) head_dim: usize,
    pub(super) max_positions: usize,
    /// Where the settings do not say it.
    pub(super) base: f64,
    /// Only part of a head may be turned (Phi-3).
    pub(super) may_be_partial: bool,
    /// `su` and `yarn` are old names of `longrope` (Phi-3).
    pub(super) old_names: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Default,
    Linear,
    Llama3,
    Yarn,
    LongRope,
}

const KINDS: &[(&str, Kind)] = &[
    ("default", Kind::Default),
    ("linear", Kind::Linear),
    ("llama3", Kind::Llama3),
    ("yarn", Kind::Yarn),
    ("longrope", Kind::LongRope),
];

const KINDS_OF_PHI3: &[(&str, Kind)] = &[
    ("default", Kind::Default),
    ("longrope", Kind::LongRope),
    ("su", Kind::LongRope),
    ("yarn", Kind::LongRope),
];

impl Rotary {
    /// Reads `rope_theta` with `rope_scaling`, or `rope_parameters`, or both where they agree.
    pub(super) fn from_config(keys: &mut Keys, sizes: Sizes) -> Result<Self> {
        let old = keys.object("rope_scaling")?;
        let new = keys.object("rope_parameters")?;
        let mut outer = Outer::read(keys)?;
        let Some(new) = new else { return Self::from_settings(keys, old, &mut outer, sizes) };
        let rotary = Self::from_settings(keys, Some(new), &mut outer, sizes)?;
        if old.is_some() {
            // The base that the new ones say is now that of the config.
            let old = Self::from_settings(keys, old, &mut outer, sizes)?;
            if old != rotary {
                return Err(
                    keys.contradiction("says different things in `rope_scaling` and `rope_parameters`")
                );
            }
        }
        Ok(rotary)
    }

    /// Reads one object of settings; `outer` is what stands beside it in the config.
    pub(super) fn from_settings(
        keys: &Keys,
        settings: Option<Keys>,
        outer: &mut Outer,
        sizes: Sizes,
    ) -> Result<Self> {
        let max_positions = sizes.max_positions;
        let Some(mut settings) = settings else {
            let dim = rotated(keys, outer.partial, sizes)?;
            let frequencies = frequencies(dim, rotary_base(outer, sizes));
            return Ok(Self { frequencies, long: None, factor: 1.0 });
        };
        let kinds = if sizes.old_names { KINDS_OF_PHI3 } else { KINDS };
        let (new, old) = (settings.one_of("rope_type", kinds)?, settings.one_of("type", kinds)?);
        if new.is_some() && old.is_some() && new != old {
            return Err(keys.contradiction("says different things in `rope_type` and `type`"));
        }
        let kind = new.or(old).unwrap_or(Kind::Default);
        let base = settings.positive("rope_theta")?;
        let agreed = |inside: Option<f64>, outside: Option<f64>, name: &str| match (inside, outside) {
            (Some(inside), Some(outside)) if inside != outside => Err(keys
                .contradiction(&format!("says {outside} for `{name}`, and {inside} in its rotary settings"))),
            _ => Ok(inside.or(outside)),
        };
        let base = agreed(base, outer.base, "rope_theta")?;
        outer.base = base;
        let partial = settings.positive("partial_rotary_factor")?;
        outer.partial = agreed(partial, outer.partial, "partial_rotary_factor")?;
        let dim = rotated(keys, outer.partial, sizes)?;
        let base = base.unwrap_or(sizes.base);
        let plain = frequencies(dim, base);
        let original = settings.size_unless_null("original_max_position_embeddings", None)?;
        // Beside the settings it counts more than inside of them.
        let original = outer.original.or(original).unwrap_or(max_positions);
        let ratio = max_positions as f64 / original as f64;
        let (mut factor, mut long) = (1.0, None);
        let frequencies = match kind {
            Kind::Default => plain,
            Kind::Linear => {
                let by = settings.needed_positive("factor")?;
                plain.iter().map(|f| f / by).collect()
            }
            Kind::Llama3 => llama3(&mut settings, plain, original as f64)?,
            Kind::Yarn => {
                let by = settings.positive("factor")?.unwrap_or(ratio);
                factor = yarn_factor(&mut settings, by)?;
                yarn(&mut settings, plain, by, base, original as f64)?
            }
            Kind::LongRope => {
                let by = settings.positive("factor")?.unwrap_or(ratio);
                let paper = if by <= 1.0 { 1.0 } else { (1.0 + by.ln() / (original as f64).ln()).sqrt() };
                factor = settings.positive("attention_factor")?.unwrap_or(paper);
                let mut scaled = |name| -> Result<Vec<f64>> {
                    let factors = settings.positives(name, plain.len())?;
                    Ok(plain.iter().zip(factors).map(|(f, by)| f / by).collect())
                };
                long = Some((original, scaled("long_factor")?));
                scaled("short_factor")?
            }
        };
        settings.finish("rotary")?;
        Ok(Self { frequencies, long, factor })
    }

    /// Divides each frequency by its factor.
    pub(super) fn divide_by(&mut self, factors: &[f64]) {
        for (frequency, factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= factor;
        }
    }

    /// The sines and cosines of all tokens of a pass.
    pub(super) fn turns(&self, pass: &Pass<'_>) -> Result<Turns> {
        let places = pass.places();
        if let Some((original, _)) = self.long
            && let Some(last) = places.last()
            && (1..=original).contains(&pass.past())
            && last.length > original
        {
            return Err(Error::request(
                format!("the text grows past {original} tokens, where this model turns all its keys anew"),
                "read the longer text in one pass, without a cache of the shorter one",
            ));
        }
        let turn = |place: &super::pass::Place| {
            let frequencies = match &self.long {
                Some((original, long)) if place.length > *original => long,
                _ => &self.frequencies,
            };
            let position = place.position as f64;
            frequencies.iter().map(move |f| {
                let (sin, cos) = (position * f).sin_cos();
                [(cos * self.factor) as f32, (sin * self.factor) as f32]
            })
        };
        let turns = places.par_iter().with_min_len(64).flat_map_iter(turn).collect();
        Ok(Turns { turns, pairs: self.frequencies.len() })
    }
}

/// `[tokens, pairs]` of cosine and sine.
pub(super) struct Turns {
    turns: Vec<[f32; 2]>,
    pairs: usize,
}

impl Turns {
    /// Turns the first numbers of a vector, in place.
    pub(super) fn turn(&self, token: usize, vector: &mut [f32]) {
        let turns = &self.turns[token * self.pairs..][..self.pairs];
        let (first, second) = vector.split_at_mut(self.pairs);
        for ((x, y), [cos, sin]) in first.iter_mut().zip(second).zip(turns) {
            (*x, *y) = (*x * cos - *y * sin, *y * cos + *x * sin);
        }
    }
}

/// Rotary settings that stand in the config itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Outer {
    pub(super) base: Option<f64>,
    pub(super) partial: Option<f64>,
    pub(super) original: Option<usize>,
}

impl Outer {
    pub(super) fn read(keys: &mut Keys) -> Result<Self> {
        Ok(Self {
            base: keys.positive("rope_theta")?,
            partial: keys.positive("partial_rotary_factor")?,
            original: keys.size_unless_null("original_max_position_embeddings", None)?,
        })
    }
}

fn rotary_base(outer: &Outer, sizes: Sizes) -> f64 {
    outer.base.unwrap_or(sizes.base)
}

/// More than the head of any model has: a config cannot make the list of frequencies longer.
const MOST_TURNED: usize = 1 << 16;

/// How many numbers of a head are turned.
fn rotated(keys: &Keys, partial: Option<f64>, sizes: Sizes) -> Result<usize> {
    let partial = partial.unwrap_or(1.0);
    let dim = (sizes.head_dim as f64 * partial) as usize;
    if partial > 1.0 || (partial < 1.0 && !sizes.may_be_partial) {
        return Err(
            keys.contradiction(&format!("turns a share of {partial} of each head, which is not supported"))
        );
    }
    if dim > MOST_TURNED {
        return Err(keys.contradiction(&format!("turns {dim} numbers of each head, more than {MOST_TURNED}")));
    }
    if dim == 0 || !dim.is_multiple_of(2) {
        return Err(keys.contradiction(&format!("turns {dim} numbers of each head, which are no pairs")));
    }
    Ok(dim)
}

/// base^(−2i / dim)
fn frequencies(dim: usize, base: f64) -> Vec<f64> {
    (0..dim / 2).map(|i| base.powf(-2.0 * i as f64 / dim as f64)).collect()
}

/// Slow turns are slowed down further, fast ones stay, those between are mixed.
fn llama3(settings: &mut Keys, plain: Vec<f64>, original: f64) -> Result<Vec<f64>> {
    let factor = settings.needed_positive("factor")?;
    let low = settings.needed_positive("low_freq_factor")?;
    let high = settings.needed_positive("high_freq_factor")?;
    if high <= low {
        return Err(settings.contradiction("has a `high_freq_factor` that is not above `low_freq_factor`"));
    }
    let scale = |f: f64| {
        // How often a pair turns round within the original context.
        let rounds = original * f / TAU;
        let keep = ((rounds - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 - keep) * f / factor + keep * f
    };
    Ok(plain.into_iter().map(scale).collect())
}

/// What yarn multiplies the turned vectors with.
fn yarn_factor(settings: &mut Keys, by: f64) -> Result<f64> {
    let scale = |weight: f64| if by <= 1.0 { 1.0 } else { 0.1 * weight * by.ln() + 1.0 };
    let given = settings.positive("attention_factor")?;
    let (m, m_all) = (settings.number("mscale")?, settings.number("mscale_all_dim")?);
    Ok(given.unwrap_or(match (m, m_all) {
        (Some(m), Some(m_all)) if m != 0.0 && m_all != 0.0 => scale(m) / scale(m_all),
        _ => scale(1.0),
    }))
}

/// Pairs that turn often within the original context stay, those that hardly turn are slowed down, with a ramp
/// over the pairs between.
fn yarn(settings: &mut Keys, plain: Vec<f64>, by: f64, base: f64, original: f64) -> Result<Vec<f64>> {
    let fast = settings.positive("beta_fast")?.unwrap_or(32.0);
    let slow = settings.positive("beta_slow")?.unwrap_or(1.0);
    let whole = settings.flag_or("truncate", true)?;
    let dim = (2 * plain.len()) as f64;
    // The pair that turns round so often within the original context.
    let pair = |rounds: f64| dim * (original / (rounds * TAU)).ln() / (2.0 * base.ln());
    let (low, high) = (pair(fast), pair(slow));
    let (low, high) = if whole { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    let scale = |(i, f): (usize, f64)| {
        let slowed = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
        f / by * slowed + f * (1.0 - slowed)
    };
    Ok(plain.into_iter().enumerate().map(scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_by_a_right_angle_swaps_a_pair() {
        let turns = Turns { turns: vec![[1.0, 0.0], [0.0, 1.0]], pairs: 1 };
        let mut vector = [3.0, 4.0, 5.0];
        turns.turn(1, &mut vector);
        assert_eq!(vector, [-4.0, 3.0, 5.0]);
    }

    #[test]
    fn frequencies_fall_from_one_to_almost_the_base() {
        for (found, expected) in frequencies(8, 10_000.0).iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found - expected).abs() < 1e-12);
        }
    }
}
