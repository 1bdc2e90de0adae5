//! Llama (Touvron et al. 2023) and those with the same forward: SmolLM2, TinyLlama, Mistral (Jiang et al. 2023),
//! Qwen2 (Yang et al. 2024), Qwen3, Phi-3 (Abdin et al. 2024).
//!
//! ```text
//! x = embedding[id]
//! for each layer:
//!     x = x + o(attention(turn(q(norm(x))), turn(k(norm(x))), v(norm(x))))    groups of q heads share a k, v head
//!     x = x + down(silu(gate(norm(x))) · up(norm(x)))
//! x = norm(x)
//! ```
//!
//! norm is the root mean square one, turn the rotary embedding. Mistral, Qwen2, Qwen3 and Phi-3 may see only a
//! window of the last tokens; Qwen2 adds biases to q, k and v; Qwen3 norms each head's q and k before they turn;
//! Phi-3 keeps q, k and v in one matrix, gate and up in another, and may turn only part of a head.

use super::Model;
use super::config::Keys;
use super::decoder::{Layer, only_a_decoder};
use super::elementwise::Activation;
use super::frame::{Ends, Frame, whole_shares};
use super::layers::{Linear, Mlp, Norm, RmsNorm};
use super::pass::Rules;
use super::rope::{Rotary, Sizes};
use crate::Result;
use crate::weights::{Scope, Weights};

/// What the config of any of them comes down to.
#[derive(Debug)]
struct Config {
    frame: Frame,
    rotary: Rotary,
    /// q, k and v have biases; the output has one.
    qkv_bias: bool,
    output_bias: bool,
    mlp_bias: bool,
    /// q and k are normed per head.
    head_norms: bool,
    /// q, k and v are stored as one matrix, gate and up too.
    fused: bool,
    /// Of each layer, how many tokens it sees.
    windows: Windows,
}

/// Which layers see only a window.
#[derive(Debug)]
enum Windows {
    Everywhere(Option<usize>),
    Each(Vec<Option<usize>>),
    /// Those from a layer on.
    From(usize, Option<usize>),
}

impl Windows {
    fn of(&self, layer: usize) -> Option<usize> {
        match self {
            Self::Everywhere(window) => *window,
            Self::Each(windows) => windows.get(layer).copied().flatten(),
            Self::From(first, window) => window.filter(|_| layer >= *first),
        }
    }
}

pub(super) fn load_llama(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let mut config = Config::common(&mut keys, "llama", None)?;
    (config.qkv_bias, config.mlp_bias) = (keys.flag("attention_bias")?, keys.flag("mlp_bias")?);
    config.output_bias = config.qkv_bias;
    keys.only("rope_interleaved", false)?;
    if keys.sets("rope_factors") {
        // Of GGUF files alone, in place of the `rope_scaling` that they were worked out from.
        config.rotary.divide_by(&keys.positives("rope_factors", config.frame.head_dim / 2)?);
    }
    load(config, keys, weights)
}

pub(super) fn load_mistral(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let mut config = Config::common(&mut keys, "mistral", Some(8))?;
    // A config that does not say it means the window of the first Mistral.
    config.windows = Windows::Everywhere(keys.size_unless_null("sliding_window", Some(4096))?);
    load(config, keys, weights)
}

pub(super) fn load_qwen2(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let mut config = Config::common(&mut keys, "qwen2", Some(32))?;
    config.qkv_bias = true;
    keys.only("use_mrope", false)?;
    config.read_windows(&mut keys)?;
    load(config, keys, weights)
}

pub(super) fn load_qwen3(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    if !keys.sets("head_dim") {
        // Not hidden / heads here, unlike in its relatives.
        return Err(keys.contradiction("does not say `head_dim`"));
    }
    let mut config = Config::common(&mut keys, "qwen3", Some(32))?;
    config.qkv_bias = keys.flag("attention_bias")?;
    config.output_bias = config.qkv_bias;
    config.head_norms = true;
    config.read_windows(&mut keys)?;
    load(config, keys, weights)
}

pub(super) fn load_phi3(mut keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let mut config = Config::common(&mut keys, "phi3", None)?;
    config.fused = true;
    config.windows = Windows::Everywhere(keys.size_unless_null("sliding_window", None)?);
    for key in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        keys.only(key, false)?;
    }
    keys.only("interpolate_factor", 1)?;
    keys.only("full_attn_mod", 1)?;
    load(config, keys, weights)
}

impl Config {
    /// What all of them say. `kv_heads` is what a config means that does not say it: `None` as many as heads.
    fn common(keys: &mut Keys, family: &'static str, kv_heads: Option<usize>) -> Result<Self> {
        only_a_decoder(keys)?;
        let (hidden, heads) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?);
        let kv_heads = keys.size_unless_null("num_key_value_heads", kv_heads)?.unwrap_or(heads);
        let head_dim = match keys.size_unless_null("head_dim", None)? {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(keys.contradiction(&format!(
                    "has vectors of {hidden} numbers for {heads} heads, no whole share"
                )));
            }
        };
        whole_shares(keys, heads, kv_heads)?;
        let positions = keys.size("max_position_embeddings")?;
        let phi3 = family == "phi3";
        let sizes = Sizes {
            head_dim,
            max_positions: positions,
            base: 10_000.0,
            may_be_partial: phi3,
            old_names: phi3,
        };
        let frame = Frame {
            family,
            hidden,
            intermediate: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: keys.size("vocab_size")?,
            positions,
            epsilon: keys.epsilon_or("rms_norm_eps", if phi3 { 1e-5 } else { 1e-6 })?,
            activation: keys.one_of("hidden_act", Activation::OF_DECODERS)?.unwrap_or(Activation::Silu),
            tied: keys.flag("tie_word_embeddings")?,
        };
        Ok(Self {
            frame,
            rotary: Rotary::from_config(keys, sizes)?,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            fused: false,
            windows: Windows::Everywhere(None),
        })
    }

    /// Qwen's way: a switch, and either a kind per layer or the first layer with a window.
    fn read_windows(&mut self, keys: &mut Keys) -> Result<()> {
        let used = keys.flag("use_sliding_window")?;
        let window = keys.size_unless_null("sliding_window", Some(4096))?.filter(|_| used);
        let first = keys.count_or("max_window_layers", 28)?;
        let kinds = keys.words("layer_types", &[("full_attention", false), ("sliding_attention", true)])?;
        self.windows = match kinds {
            None => Windows::From(first, window),
            Some(kinds) => Windows::Each(windows_of(keys, &kinds, self.frame.layers, window)?),
        };
        Ok(())
    }
}

/// The window of each layer, from whether it slides.
pub(super) fn windows_of(
    keys: &Keys,
    slides: &[bool],
    layers: usize,
    window: Option<usize>,
) -> Result<Vec<Option<usize>>> {
    if slides.len() != layers {
        return Err(keys.contradiction(&format!("has {} `layer_types` for {layers} layers", slides.len())));
    }
    if window.is_none() && slides.contains(&true) {
        return Err(keys.contradiction("has layers of sliding attention, but no window for them"));
    }
    Ok(slides.iter().map(|slides| window.filter(|_| *slides)).collect())
}

fn load(config: Config, keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    keys.finish(config.frame.family)?;
    let rotaries = vec![config.rotary.clone()];
    let ends = Ends { scale: None, norm: RmsNorm::load, logit_cap: None, rotaries };
    config.frame.load(weights, ends, |scope, index| config.layer(scope, index))
}

impl Config {
    fn layer(&self, scope: &Scope<'_>, index: usize) -> Result<Layer> {
        let &Frame { hidden, intermediate, heads, kv_heads, head_dim, epsilon, activation, .. } = &self.frame;
        let (attention, mlp) = (scope.pp("self_attn"), scope.pp("mlp"));
        // A product that overflows is the size of no tensor.
        let [wide, narrow] = [heads, kv_heads].map(|heads| heads.saturating_mul(head_dim));
        let qkv = if self.fused {
            let all = narrow.saturating_mul(2).saturating_add(wide);
            Linear::load(&attention.pp("qkv_proj"), hidden, all, self.qkv_bias)?
        } else {
            let part = |name, outputs| (attention.pp(name), outputs);
            let parts = [part("q_proj", wide), part("k_proj", narrow), part("v_proj", narrow)];
            Linear::stacked(&parts, hidden, self.qkv_bias)?
        };
        let up = if self.fused {
            Linear::load(&mlp.pp("gate_up_proj"), hidden, intermediate.saturating_mul(2), self.mlp_bias)?
        } else {
            let parts = [(mlp.pp("gate_proj"), intermediate), (mlp.pp("up_proj"), intermediate)];
            Linear::stacked(&parts, hidden, self.mlp_bias)?
        };
        let head_norm = |name| RmsNorm::load(&attention.pp(name), head_dim, epsilon);
        let norm = |name| Ok(Norm::Rms(RmsNorm::load(&scope.pp(name), hidden, epsilon)?));
        Ok(Layer {
            attention_norm: norm("input_layernorm")?,
            qkv,
            head_norms: self
                .head_norms
                .then(|| Ok([head_norm("q_norm")?, head_norm("k_norm")?]))
                .transpose()?,
            rotary: Some(0),
            rules: Rules { causal: true, window: self.windows.of(index), ..Rules::default() },
            output: Linear::load(&attention.pp("o_proj"), wide, hidden, self.output_bias)?,
            after_attention: None,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp {
                up,
                activation,
                gated: true,
                down: Linear::load(&mlp.pp("down_proj"), intermediate, hidden, self.mlp_bias)?,
            },
            after_mlp: None,
        })
    }
}
