//! GPT-2 (Radford et al. 2019).
//!
//! ```text
//! x = embedding[id] + position[i]
//! for each layer:
//!     x = x + out(attention(q(norm(x)), k(norm(x)), v(norm(x))))
//!     x = x + down(gelu(up(norm(x))))
//! x = norm(x)
//! ```
//!
//! q, k and v lie in one matrix, and all matrices as `[inputs, outputs]`.

use super::config::Keys;
use super::decoder::{Decoder, Head, Layer, only_a_decoder, root};
use super::elementwise::Activation;
use super::layers::{Embedding, LayerNorm, Linear, Mlp, Norm};
use super::pass::Rules;
use super::{Info, Model, layer_size};
use crate::Result;
use crate::weights::{Scope, Weights};

struct Config {
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    vocabulary: usize,
    positions: usize,
    epsilon: f64,
    activation: Activation,
    tied: bool,
    /// q·k is divided by √head_dim,
    scaled: bool,
    /// and by the number of the layer, from 1.
    scaled_by_layer: bool,
}

impl Config {
    fn read(mut keys: Keys) -> Result<Self> {
        let hidden = keys.size("n_embd")?;
        let config = Self {
            hidden,
            intermediate: keys.size_or("n_inner", hidden.saturating_mul(4))?,
            layers: keys.size("n_layer")?,
            heads: keys.size("n_head")?,
            vocabulary: keys.size("vocab_size")?,
            positions: keys.size("n_positions")?,
            epsilon: keys.epsilon_or("layer_norm_epsilon", 1e-5)?,
            activation: keys
                .one_of("activation_function", Activation::OF_DECODERS)?
                .unwrap_or(Activation::GeluTanh),
            tied: keys.flag_or("tie_word_embeddings", true)?,
            scaled: keys.flag_or("scale_attn_weights", true)?,
            scaled_by_layer: keys.flag("scale_attn_by_inverse_layer_idx")?,
        };
        // Another order of the same steps, for 16-bit training; here all is f32.
        keys.flag("reorder_and_upcast_attn")?;
        only_a_decoder(&mut keys)?;
        if !hidden.is_multiple_of(config.heads) {
            let heads = config.heads;
            return Err(keys.contradiction(&format!(
                "has vectors of {hidden} numbers for {heads} heads, no whole share"
            )));
        }
        keys.finish("gpt2")?;
        Ok(config)
    }

    fn layer(&self, scope: &Scope<'_>, index: usize) -> Result<Layer> {
        let &Self { hidden, intermediate, epsilon, .. } = self;
        let norm = |name| Ok(Norm::Layer(LayerNorm::load(&scope.pp(name), hidden, epsilon)?));
        let (attention, mlp) = (scope.pp("attn"), scope.pp("mlp"));
        let head_dim = (hidden / self.heads) as f64;
        let scale = if self.scaled { 1.0 / head_dim.sqrt() } else { 1.0 };
        let scale = if self.scaled_by_layer { scale / (index + 1) as f64 } else { scale };
        Ok(Layer {
            attention_norm: norm("ln_1")?,
            qkv: Linear::load_transposed(&attention.pp("c_attn"), hidden, hidden.saturating_mul(3))?,
            head_norms: None,
            rotary: None,
            rules: Rules { causal: true, scale: Some(scale), ..Rules::default() },
            output: Linear::load_transposed(&attention.pp("c_proj"), hidden, hidden)?,
            after_attention: None,
            mlp_norm: norm("ln_2")?,
            mlp: Mlp {
                up: Linear::load_transposed(&mlp.pp("c_fc"), hidden, intermediate)?,
                activation: self.activation,
                gated: false,
                down: Linear::load_transposed(&mlp.pp("c_proj"), intermediate, hidden)?,
            },
            after_mlp: None,
        })
    }
}

pub(super) fn load_gpt2(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    let config = Config::read(keys)?;
    let Config { hidden, vocabulary, positions, epsilon, .. } = config;
    let root = root(weights, "transformer", "wte.weight");
    let embedding = Embedding::new(root.table("wte.weight", [vocabulary, hidden])?, None);
    let places = Embedding::new(root.table("wpe.weight", [positions, hidden])?, None);
    let mut layers = Vec::new();
    for index in 0..config.layers {
        layers.push(config.layer(&root.pp("h").pp(index), index)?);
    }
    let info = Info {
        family: "gpt2",
        layers: config.layers,
        heads: config.heads,
        kv_heads: config.heads,
        head_dim: hidden / config.heads,
        hidden,
        layer_size: layer_size(
            hidden,
            [config.heads, config.heads, hidden / config.heads],
            2 * config.intermediate,
        ),
        causal: true,
        max_tokens: positions,
        endless: false,
        sha256: weights.sha256()?,
        vocabulary,
    };
    Ok(Box::new(Decoder {
        info,
        embedding,
        positions: Some(places),
        rotaries: Vec::new(),
        layers,
        norm: Norm::Layer(LayerNorm::load(&root.pp("ln_f"), hidden, epsilon)?),
        head: Head::load(weights, config.tied, [hidden, vocabulary], None)?,
    }))
}
