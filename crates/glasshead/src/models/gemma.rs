//! Gemma 2 (Riviere et al. 2024) and the text part of Gemma 3 (Kamath et al. 2025).
//!
//! ```text
//! x = embedding[id] · √hidden
//! for each layer:
//!     x = x + norm(o(attention(turn(q(norm(x))), turn(k(norm(x))), v(norm(x)))))
//!     x = x + norm(down(gelu(gate(norm(x))) · up(norm(x))))
//! x = norm(x)
//! ```
//!
//! A norm is the root mean square one with the factor 1 + w. Most layers see only a window. Gemma 2 bends scores
//! by cap · tanh(score / cap); Gemma 3 norms each head's q and k instead, and turns the layers with a window by
//! another base than the others.

use super::Model;
use super::config::Keys;
use super::decoder::{Layer, only_a_decoder};
use super::elementwise::Activation;
use super::frame::{Ends, Frame, whole_shares};
use super::layers::{Linear, Mlp, Norm, RmsNorm};
use super::llama::windows_of;
use super::pass::Rules;
use super::rope::{Outer, Rotary, Sizes};
use crate::Result;
use crate::weights::{Scope, Weights};

struct Config {
    frame: Frame,
    bias: bool,
    /// Scores are divided by its root.
    query_scalar: f64,
    score_cap: Option<f64>,
    logit_cap: Option<f64>,
    /// Of each layer, whether it sees only a window, and how large that is.
    windows: Vec<Option<usize>>,
    /// One for all layers, or one for those that see everything and one for those with a window.
    rotaries: Vec<Rotary>,
    head_norms: bool,
}

/// The kinds of layers, by whether they slide.
const KINDS: &[(&str, bool)] = &[("full_attention", false), ("sliding_attention", true)];

pub(super) fn load_gemma2(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    // A layer with a window, then one without.
    let mut config = Config::common(&mut keys, "gemma2", 2)?;
    config.score_cap = keys.positive_unless_null("attn_logit_softcapping", 50.0)?;
    config.logit_cap = keys.positive_unless_null("final_logit_softcapping", 30.0)?;
    config.rotaries = vec![Rotary::from_config(&mut keys, config.sizes(10_000.0))?];
    load(config, keys, weights)
}

pub(super) fn load_gemma3(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let pattern = keys.size_or("sliding_window_pattern", 6)?;
    // Written by some versions of transformers beside the list of kinds, and read by none.
    keys.count_or("_sliding_window_pattern", pattern)?;
    let mut config = Config::common(&mut keys, "gemma3_text", pattern)?;
    keys.only("attn_logit_softcapping", serde_json::Value::Null)?;
    config.logit_cap = keys.positive("final_logit_softcapping")?;
    config.head_norms = true;
    config.rotaries = config.two_rotaries(&mut keys)?;
    load(config, keys, weights)
}

impl Config {
    /// What both say. Of `pattern` layers, the last one sees everything, unless the config names each layer's kind.
    fn common(keys: &mut Keys, family: &'static str, pattern: usize) -> Result<Self> {
        only_a_decoder(keys)?;
        let heads = keys.size("num_attention_heads")?;
        let kv_heads = keys.size("num_key_value_heads")?;
        whole_shares(keys, heads, kv_heads)?;
        let layers = keys.size("num_hidden_layers")?;
        let window = keys.size_unless_null("sliding_window", Some(4096))?;
        let windows = match keys.words("layer_types", KINDS)? {
            Some(kinds) => windows_of(keys, &kinds, layers, window)?,
            // Of as many layers as the checkpoint turns out to have.
            None => {
                let slides: Vec<bool> =
                    (1..=layers.min(MOST_LAYERS)).map(|layer| layer % pattern != 0).collect();
                windows_of(keys, &slides, layers, window)?
            }
        };
        keys.only("use_bidirectional_attention", false)?;
        let activation = keys.one_of("hidden_activation", Activation::OF_DECODERS)?;
        // Gemma 2 configs also carry `hidden_act`, which its code does not read.
        keys.one_of("hidden_act", Activation::OF_DECODERS)?;
        let frame = Frame {
            family,
            hidden: keys.size("hidden_size")?,
            intermediate: keys.size("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head_dim: keys.size_or("head_dim", 256)?,
            vocabulary: keys.size("vocab_size")?,
            positions: keys.size("max_position_embeddings")?,
            epsilon: keys.epsilon_or("rms_norm_eps", 1e-6)?,
            activation: activation.unwrap_or(Activation::GeluTanh),
            tied: keys.flag_or("tie_word_embeddings", true)?,
        };
        Ok(Self {
            frame,
            bias: keys.flag("attention_bias")?,
            query_scalar: keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0),
            score_cap: None,
            logit_cap: None,
            windows,
            rotaries: Vec::new(),
            head_norms: false,
        })
    }

    fn sizes(&self, base: f64) -> Sizes {
        let Frame { head_dim, positions: max_positions, .. } = self.frame;
        Sizes { head_dim, max_positions, base, may_be_partial: false, old_names: false }
    }

    /// `rope_theta`, `rope_scaling` and `rope_local_base_freq`, or `rope_parameters` with an object for each kind of
    /// layers, or both where they agree.
    fn two_rotaries(&self, keys: &mut Keys) -> Result<Vec<Rotary>> {
        let (full, sliding) = (self.sizes(1e6), self.sizes(1e4));
        let new = keys.object("rope_parameters")?;
        let scaling = keys.object("rope_scaling")?;
        let outer = Outer::read(keys)?;
        let local = Outer { base: keys.positive("rope_local_base_freq")?, ..outer.clone() };
        let old = [scaling.is_some() || outer.base.is_some(), local.base.is_some()];
        let old_ones = [
            Rotary::from_settings(keys, scaling, &mut outer.clone(), full)?,
            Rotary::from_settings(keys, None, &mut local.clone(), sliding)?,
        ];
        let Some(mut new) = new else { return Ok(old_ones.into()) };
        let mut rotaries = Vec::new();
        for (((name, slides), old), old_one) in KINDS.iter().zip(old).zip(old_ones) {
            let sizes = if *slides { sliding } else { full };
            let nothing_outside = &mut Outer::default();
            let settings = new.object(name)?;
            let given = settings.is_some();
            let rotary = Rotary::from_settings(keys, settings, nothing_outside, sizes)?;
            if old && given && rotary != old_one {
                return Err(keys.contradiction(&format!(
                    "says other things in `rope_parameters.{name}` than beside it"
                )));
            }
            rotaries.push(if given { rotary } else { old_one });
        }
        new.finish("rotary")?;
        Ok(rotaries)
    }

    fn layer(&self, scope: &Scope<'_>, index: usize) -> Result<Layer> {
        let &Frame { hidden, intermediate, heads, kv_heads, head_dim, epsilon, activation, .. } = &self.frame;
        let bias = self.bias;
        let (attention, mlp) = (scope.pp("self_attn"), scope.pp("mlp"));
        let norm = |name| RmsNorm::load_around_one(&scope.pp(name), hidden, epsilon);
        let head_norm = |name| RmsNorm::load_around_one(&attention.pp(name), head_dim, epsilon);
        let [wide, narrow] = [heads, kv_heads].map(|heads| heads.saturating_mul(head_dim));
        let part = |name, outputs| (attention.pp(name), outputs);
        let qkv = [part("q_proj", wide), part("k_proj", narrow), part("v_proj", narrow)];
        let up = [(mlp.pp("gate_proj"), intermediate), (mlp.pp("up_proj"), intermediate)];
        let window = self.windows[index];
        Ok(Layer {
            attention_norm: Norm::Rms(norm("input_layernorm")?),
            qkv: Linear::stacked(&qkv, hidden, bias)?,
            head_norms: self
                .head_norms
                .then(|| Ok([head_norm("q_norm")?, head_norm("k_norm")?]))
                .transpose()?,
            rotary: Some(usize::from(self.rotaries.len() > 1 && window.is_some())),
            rules: Rules {
                causal: true,
                window,
                scale: Some(1.0 / self.query_scalar.sqrt()),
                softcap: self.score_cap.unwrap_or(0.0),
            },
            output: Linear::load(&attention.pp("o_proj"), wide, hidden, bias)?,
            after_attention: Some(norm("post_attention_layernorm")?),
            mlp_norm: Norm::Rms(norm("pre_feedforward_layernorm")?),
            mlp: Mlp {
                up: Linear::stacked(&up, hidden, false)?,
                activation,
                gated: true,
                down: Linear::load(&mlp.pp("down_proj"), intermediate, hidden, false)?,
            },
            after_mlp: Some(norm("post_feedforward_layernorm")?),
        })
    }
}

/// More layers than any model has: a config cannot make a list longer.
const MOST_LAYERS: usize = 1 << 16;

fn load(config: Config, keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    keys.finish(config.frame.family)?;
    let ends = Ends {
        scale: Some((config.frame.hidden as f64).sqrt() as f32),
        norm: RmsNorm::load_around_one,
        logit_cap: config.logit_cap,
        rotaries: config.rotaries.clone(),
    };
    config.frame.load(weights, ends, |scope, index| config.layer(scope, index))
}
