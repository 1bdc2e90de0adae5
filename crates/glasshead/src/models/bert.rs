//! BERT (Devlin et al. 2018) and those with the same forward: RoBERTa (Liu et al. 2019), XLM-RoBERTa,
//! CamemBERT, DistilBERT (Sanh et al. 2019), MiniLM.
//!
//! ```text
//! x = norm(word[id] + position[i] + type[0])
//! for each layer:
//!     x = norm(x + out(attention(q(x), k(x), v(x))))      every token sees every token, scale 1/√head_dim
//!     x = norm(x + down(activation(up(x))))
//! ```
//!
//! The names in the code are those of the checkpoints. The pooler and the heads on top are not read.

use serde_json::json;

use super::config::Keys;
use super::elementwise::{Activation, add};
use super::layers::{Embedding, LayerNorm, Linear, Mlp, Scratch};
use super::pass::{Heads, Input, Pass, Rules, by_blocks};
use super::{Info, Model, Watch, layer_size};
use crate::weights::{Scope, Weights};
use crate::{Error, Result};

/// What the config of any of them comes down to.
#[derive(Debug)]
struct Config {
    family: &'static str,
    hidden: usize,
    intermediate: usize,
    layers: usize,
    heads: usize,
    vocabulary: usize,
    positions: usize,
    /// `None`: the family has no token types.
    types: Option<usize>,
    /// RoBERTa counts positions from the padding id + 1 on, and padding stays at its own; BERT from 0.
    padding: Option<usize>,
    epsilon: f64,
    activation: Activation,
}

/// A model of the BERT family.
#[derive(Debug)]
struct Bert {
    info: Info,
    padding: Option<usize>,
    embeddings: Embeddings,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Embeddings {
    word: Embedding,
    position: Embedding,
    /// `[hidden]`: the text is all of the first type.
    token_type: Option<Vec<f32>>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value behind each other.
    qkv: Linear,
    output: Linear,
    output_norm: LayerNorm,
    mlp: Mlp,
    down_norm: LayerNorm,
}

/// How a family names the tensors of a layer.
struct Names {
    layers: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    output_norm: &'static str,
    up: &'static str,
    down: &'static str,
    down_norm: &'static str,
}

const BERT: Names = Names {
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    output_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    down_norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    output: "attention.out_lin",
    output_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    down_norm: "output_layer_norm",
};

pub(super) fn load_bert(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    load(Config::bert(keys, "bert", false)?, weights, "bert", &BERT)
}

pub(super) fn load_roberta(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    load(Config::bert(keys, "roberta", true)?, weights, "roberta", &BERT)
}

pub(super) fn load_xlm_roberta(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    load(Config::bert(keys, "xlm-roberta", true)?, weights, "roberta", &BERT)
}

pub(super) fn load_camembert(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    load(Config::bert(keys, "camembert", true)?, weights, "roberta", &BERT)
}

pub(super) fn load_distilbert(keys: Keys, weights: &Weights) -> Result<Box<dyn Model>> {
    load(Config::distilbert(keys)?, weights, "distilbert", &DISTILBERT)
}

impl Config {
    fn bert(mut keys: Keys, family: &'static str, offset_positions: bool) -> Result<Self> {
        let padding = keys.count_or("pad_token_id", usize::from(offset_positions))?;
        let config = Self {
            family,
            hidden: keys.size("hidden_size")?,
            intermediate: keys.size("intermediate_size")?,
            layers: keys.size("num_hidden_layers")?,
            heads: keys.size("num_attention_heads")?,
            vocabulary: keys.size("vocab_size")?,
            positions: keys.size("max_position_embeddings")?,
            types: Some(keys.size("type_vocab_size")?),
            padding: offset_positions.then_some(padding),
            epsilon: keys.epsilon_or("layer_norm_eps", 1e-12)?,
            activation: keys.one_of("hidden_act", Activation::NAMES)?.unwrap_or(Activation::Gelu),
        };
        keys.only("position_embedding_type", "absolute")?;
        config.finish(keys)
    }

    fn distilbert(mut keys: Keys) -> Result<Self> {
        let config = Self {
            family: "distilbert",
            hidden: keys.size("dim")?,
            intermediate: keys.size("hidden_dim")?,
            layers: keys.size("n_layers")?,
            heads: keys.size("n_heads")?,
            vocabulary: keys.size("vocab_size")?,
            positions: keys.size("max_position_embeddings")?,
            types: None,
            padding: None,
            epsilon: 1e-12,
            activation: keys.one_of("activation", Activation::NAMES)?.unwrap_or(Activation::Gelu),
        };
        // Sines or learned: the checkpoint holds the table either way.
        keys.flag("sinusoidal_pos_embds")?;
        config.finish(keys)
    }

    fn finish(self, mut keys: Keys) -> Result<Self> {
        keys.only("is_decoder", false)?;
        keys.only("is_encoder_decoder", false)?;
        keys.only("add_cross_attention", false)?;
        keys.only("pruned_heads", json!({}))?;
        if !self.hidden.is_multiple_of(self.heads) {
            let (hidden, heads) = (self.hidden, self.heads);
            return Err(keys.contradiction(&format!(
                "has vectors of {hidden} numbers for {heads} heads, no whole share"
            )));
        }
        if self.max_tokens() == 0 {
            return Err(
                keys.contradiction(&format!("has {} positions, none of them for a token", self.positions))
            );
        }
        keys.finish(self.family)?;
        Ok(self)
    }

    fn max_tokens(&self) -> usize {
        match self.padding {
            Some(padding) => self.positions.saturating_sub(padding).saturating_sub(1),
            None => self.positions,
        }
    }
}

fn load(config: Config, weights: &Weights, prefix: &str, names: &Names) -> Result<Box<dyn Model>> {
    // A checkpoint of a model with a head on top has the encoder under its own name.
    let inside = weights.scope(prefix);
    let scope = if inside.has("embeddings.word_embeddings.weight") { inside } else { weights.scope("") };
    let embeddings = Embeddings::load(&scope.pp("embeddings"), &config)?;
    // Grows with the tensors that are really there, not with the number in the config.
    let mut layers = Vec::new();
    for index in 0..config.layers {
        layers.push(Layer::load(&scope.pp(names.layers).pp(index), &config, names)?);
    }
    let info = Info {
        family: config.family,
        layers: config.layers,
        heads: config.heads,
        kv_heads: config.heads,
        head_dim: config.hidden / config.heads,
        hidden: config.hidden,
        layer_size: layer_size(
            config.hidden,
            [config.heads, config.heads, config.hidden / config.heads],
            2 * config.intermediate,
        ),
        causal: false,
        max_tokens: config.max_tokens(),
        endless: false,
        sha256: weights.sha256()?,
        vocabulary: config.vocabulary,
    };
    Ok(Box::new(Bert { info, padding: config.padding, embeddings, layers }))
}

impl Embeddings {
    fn load(scope: &Scope<'_>, config: &Config) -> Result<Self> {
        let hidden = config.hidden;
        let token_type = match config.types {
            Some(types) => scope.table("token_type_embeddings.weight", [types, hidden])?.row(0),
            None => None,
        };
        let table = |name, rows| Ok(Embedding::new(scope.table(name, [rows, hidden])?, None));
        Ok(Self {
            word: table("word_embeddings.weight", config.vocabulary)?,
            position: table("position_embeddings.weight", config.positions)?,
            token_type,
            norm: LayerNorm::load(&scope.pp("LayerNorm"), hidden, config.epsilon)?,
        })
    }

    /// `[tokens, hidden]`
    fn forward(
        &self,
        ids: impl Iterator<Item = usize>,
        positions: Vec<usize>,
        hidden: usize,
    ) -> Result<Vec<f32>> {
        let mut x = self.word.forward(ids)?;
        if let Some(token_type) = &self.token_type {
            x.chunks_exact_mut(hidden).for_each(|x| add(x, token_type));
        }
        add(&mut x, &self.position.forward(positions)?);
        self.norm.in_place(&mut x);
        Ok(x)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &Config, names: &Names) -> Result<Self> {
        let Config { hidden, intermediate, epsilon, activation, .. } = *config;
        let norm = |name: &str| LayerNorm::load(&scope.pp(name), hidden, epsilon);
        let linear = |name, inputs, outputs| Linear::load(&scope.pp(name), inputs, outputs, true);
        let qkv = [names.query, names.key, names.value].map(|name| (scope.pp(name), hidden));
        Ok(Self {
            qkv: Linear::stacked(&qkv, hidden, true)?,
            output: linear(names.output, hidden, hidden)?,
            output_norm: norm(names.output_norm)?,
            mlp: Mlp {
                up: linear(names.up, hidden, intermediate)?,
                activation,
                gated: false,
                down: linear(names.down, intermediate, hidden)?,
            },
            down_norm: norm(names.down_norm)?,
        })
    }

    /// `x [tokens, hidden]`, in place: what the attention gave (`out`) goes in for the tokens from `first` on, then
    /// the feed-forward block.
    fn finish(&self, x: &mut [f32], heads: &Heads, out: &[f32], first: usize, scratch: &mut Scratch) {
        let Scratch { merged, wide, gated, .. } = scratch;
        let rows = x.len() / self.output_norm.size();
        self.output.add_to(heads.merge(out, first, rows, merged), x);
        self.output_norm.in_place(x);
        self.mlp.down.add_to(self.mlp.widen(x, wide, gated), x);
        self.down_norm.in_place(x);
    }
}

impl Model for Bert {
    fn info(&self) -> &Info {
        &self.info
    }

    fn run(&self, input: Input<'_>, watch: &mut dyn Watch) -> Result<()> {
        if input.cache.is_some() {
            return Err(Error::request(
                format!("a {} model has no cache: every token sees those after it too", self.info.family),
                "give the whole text in one pass, or use a decoder",
            ));
        }
        let hidden = self.info.hidden;
        let mut pass = Pass::new(input, &self.info, watch)?;
        let positions = pass.texts().flat_map(|ids| self.positions(ids)).collect();
        let mut x = self.embeddings.forward(pass.ids(), positions, hidden)?;
        let mut heads = Heads::new(&self.info, pass.tokens());
        for (index, layer) in self.layers.iter().enumerate() {
            heads.fill(&x, None, &layer.qkv, |_, _, _| {});
            let Some(out) = pass.attend(index, &x, &heads, &Rules::default())? else { return Ok(()) };
            by_blocks(&mut x, hidden, |scratch, first, x| layer.finish(x, &heads, &out, first, scratch));
        }
        pass.finish(&x);
        Ok(())
    }
}

impl Bert {
    /// Which position embedding each token of a text gets.
    fn positions(&self, ids: &[u32]) -> Vec<usize> {
        let Some(padding) = self.padding else { return (0..ids.len()).collect() };
        let mut last = padding;
        let mut position = |&id: &u32| {
            if id as usize == padding {
                return padding;
            }
            last += 1;
            last
        };
        ids.iter().map(&mut position).collect()
    }
}
