//! This build against the goldens that travel with the catalogue: does the forward give what transformers
//! gives?
//!
//! The tolerance is derived. Plain float32 of transformers is off from its own float64 by some `noise`, which
//! stands beside the golden. A path of ours may be off by twice the error of the plain way, and the golden
//! is plain float32 itself: `2 · noise + noise`.

use std::ops::ControlFlow;
use std::path::Path;

use glasshead_attention::{Array, Read};

use super::goldens::{self, Golden};
use crate::models::{self, LayerView, Loaded, Watch};
use crate::{Error, Result};

/// What was compared.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The model of the catalogue that these weights are.
    pub model: String,
    /// SHA-256 of the weights.
    pub sha256: String,
    /// Who made the golden.
    pub made_by: String,
    /// How many tokens were read.
    pub tokens: usize,
    /// What was compared, and how it came out.
    pub checks: Vec<Check>,
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub what: &'static str,
    /// Numbers that were compared.
    pub count: usize,
    /// The largest difference; NaN where one side is no number.
    pub worst: f64,
    /// Where it is.
    pub place: String,
    /// What it may be.
    pub tolerance: f64,
}

impl Verified {
    /// Whether everything is within its tolerance.
    pub fn holds(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }
}

impl Check {
    /// Whether it is within its tolerance.
    pub fn holds(&self) -> bool {
        self.worst <= self.tolerance
    }
}

/// Runs the model at `path` over the text of its golden.
///
/// # Errors
/// A model without a golden; what [`models::load`] refuses.
pub fn verify(path: &Path) -> Result<Verified> {
    let Loaded { model, tokenizer, .. } = models::load(path)?;
    let info = model.info();
    let goldens = goldens::all()?;
    let Some(golden) = goldens.iter().find(|golden| golden.sha256 == info.sha256) else {
        let known: Vec<&str> = goldens.iter().map(|golden| golden.model.as_str()).collect();
        return Err(Error::request(
            format!("there is no golden for {} (SHA-256 {})", path.display(), info.sha256),
            format!("goldens travel for {}; bench/goldens/catalogue.py makes them", known.join(", ")),
        ));
    };
    let tokens = golden.ids.len();
    let mut checks = Vec::new();
    if let Some(tokenizer) = tokenizer {
        let ids: Vec<u32> = tokenizer.encode(&golden.text)?.iter().map(|token| token.id).collect();
        let first = (0..tokens.max(ids.len())).find(|&at| ids.get(at) != golden.ids.get(at));
        checks.push(Check {
            what: "tokens",
            count: tokens,
            worst: if first.is_some() { 1.0 } else { 0.0 },
            place: first.map_or_else(String::new, |at| format!("token {at}")),
            tolerance: 0.0,
        });
    }
    let mut watch = Comparing {
        golden,
        read: Read::new().rows(&(0..tokens).collect::<Vec<_>>()),
        attention: Worst::new(),
        hidden: Worst::new(),
        width: info.hidden,
    };
    model.forward(&golden.ids, &mut watch)?;
    let Comparing { attention, hidden, .. } = watch;
    checks.push(attention.check("attention weights", golden.attention_noise));
    checks.push(hidden.check("last hidden state", golden.hidden_noise));
    Ok(Verified {
        model: golden.model.clone(),
        sha256: golden.sha256.clone(),
        made_by: golden.made_by.clone(),
        tokens,
        checks,
    })
}

struct Comparing<'a> {
    golden: &'a Golden,
    read: Read,
    attention: Worst,
    hidden: Worst,
    /// Numbers in the vector of one token.
    width: usize,
}

impl Watch for Comparing<'_> {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        let compared = self.golden.pairs.iter().any(|&[layer, _]| layer == view.layer);
        ControlFlow::Continue(if compared { self.read.clone() } else { Read::new() })
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) -> ControlFlow<()> {
        let Some(rows) = readouts.first().and_then(Array::f32) else { return ControlFlow::Continue(()) };
        let tokens = self.golden.ids.len();
        let map = tokens * tokens;
        for (index, &[_, head]) in self.golden.pairs.iter().enumerate().filter(|(_, pair)| pair[0] == layer) {
            let part = |all: &[f32], at: usize| all.get(at * map..(at + 1) * map).map(<[f32]>::to_vec);
            let (got, want) = (part(rows, head), part(&self.golden.attention, index));
            self.attention.compare(got.unwrap_or_default(), want.unwrap_or_default(), |at| {
                format!("layer {layer} head {head}, query {} key {}", at / tokens, at % tokens)
            });
        }
        ControlFlow::Continue(())
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        let width = self.width;
        for (token, want) in self.golden.hidden_tokens.iter().zip(self.golden.last_hidden.chunks(width)) {
            let got = last_hidden.get(token * width..(token + 1) * width).unwrap_or_default();
            self.hidden.compare(got.to_vec(), want.to_vec(), |at| format!("token {token}, dim {at}"));
        }
    }
}

/// The largest difference so far.
struct Worst {
    count: usize,
    worst: f64,
    place: String,
}

impl Worst {
    fn new() -> Self {
        Self { count: 0, worst: 0.0, place: String::new() }
    }

    fn compare(&mut self, got: Vec<f32>, want: Vec<f32>, place: impl Fn(usize) -> String) {
        if got.len() != want.len() {
            (self.worst, self.place) = (f64::NAN, format!("{} numbers instead of {}", got.len(), want.len()));
        }
        self.count += want.len();
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            let difference = (f64::from(*got) - f64::from(*want)).abs();
            // NaN is the worst of all, and stays.
            if difference.is_nan() || difference > self.worst {
                (self.worst, self.place) = (difference, place(at));
            }
        }
    }

    fn check(self, what: &'static str, noise: f64) -> Check {
        let nothing = self.count == 0;
        Check {
            what,
            count: self.count,
            worst: if nothing { f64::NAN } else { self.worst },
            place: if nothing { "nothing was compared".into() } else { self.place },
            tolerance: 3.0 * noise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_missing_numbers_and_nothing_at_all_fail() {
        let check = |got: &[f32], want: &[f32]| {
            let mut worst = Worst::new();
            worst.compare(got.to_vec(), want.to_vec(), |at| at.to_string());
            worst.check("it", 0.1)
        };
        assert!(check(&[1.0, 2.25], &[1.0, 2.0]).holds());
        let off = check(&[1.0, 2.5], &[1.0, 2.0]);
        assert!(!off.holds() && off.place == "1" && off.worst == 0.5);
        assert!(!check(&[f32::NAN, 1.0], &[1.0, 1.0]).holds());
        assert!(!check(&[1.0], &[1.0, 1.0]).holds());
        assert!(!Worst::new().check("it", 0.1).holds());
    }
}
