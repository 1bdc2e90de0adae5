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

use std::ops::ControlFlow;

use glasshead_attention::{Attention, TensorView};
use serde_json::json;

use super::config::Keys;
use super::layers::{Activation, LayerNorm, Linear, add, inner, tensor, values};
use super::{Info, LayerView, Model, Watch};
use crate::Result;
use crate::weights::{Scope, Table, Weights};

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
    word: Table,
    position: Table,
    /// `[hidden]`: the text is all of the first type.
    token_type: Option<Vec<f32>>,
    norm: LayerNorm,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    output_norm: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
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
        max_tokens: config.max_tokens(),
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
        Ok(Self {
            word: scope.table("word_embeddings.weight", [config.vocabulary, hidden])?,
            position: scope.table("position_embeddings.weight", [config.positions, hidden])?,
            token_type,
            norm: LayerNorm::load(&scope.pp("LayerNorm"), hidden, config.epsilon)?,
        })
    }

    /// `[tokens, hidden]`
    fn forward(&self, ids: &[u32], positions: &[usize], hidden: usize) -> Result<Vec<f32>> {
        let mut x = Vec::with_capacity(ids.len() * hidden);
        for (&id, &position) in ids.iter().zip(positions) {
            let (word, position) = (self.word.row(id as usize), self.position.row(position));
            let (Some(mut word), Some(position)) = (word, position) else {
                return Err(inner(format!("token {id} has no embedding")));
            };
            if let Some(token_type) = &self.token_type {
                add(&mut word, token_type);
            }
            add(&mut word, &position);
            x.extend(word);
        }
        self.norm.forward(&mut x);
        Ok(x)
    }
}

impl Layer {
    fn load(scope: &Scope<'_>, config: &Config, names: &Names) -> Result<Self> {
        let Config { hidden, intermediate, epsilon, activation, .. } = *config;
        let square = |name: &str| Linear::load(&scope.pp(name), hidden, hidden);
        let norm = |name: &str| LayerNorm::load(&scope.pp(name), hidden, epsilon);
        Ok(Self {
            query: square(names.query)?,
            key: square(names.key)?,
            value: square(names.value)?,
            output: square(names.output)?,
            output_norm: norm(names.output_norm)?,
            up: Linear::load(&scope.pp(names.up), hidden, intermediate)?,
            activation,
            down: Linear::load(&scope.pp(names.down), intermediate, hidden)?,
            down_norm: norm(names.down_norm)?,
        })
    }
}

impl Model for Bert {
    fn info(&self) -> &Info {
        &self.info
    }

    fn forward(&self, ids: &[u32], watch: &mut dyn Watch) -> Result<()> {
        self.info.check(ids)?;
        let Info { heads, head_dim, hidden, .. } = self.info;
        let tokens = ids.len();
        let mut x = self.embeddings.forward(ids, &self.positions(ids), hidden)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let input = tensor(&x, tokens, hidden)?;
            let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|linear| linear.forward(&input));
            let (q, k, v) = (values(&q?)?, values(&k?)?, values(&v?)?);
            let view = |data| TensorView::from_tokens(data, 1, tokens, heads, head_dim).map_err(inner);
            let attention = Attention::new(view(&q)?, view(&k)?, view(&v)?);
            let view = LayerView { layer: index, input: &x, attention: &attention };
            let ControlFlow::Continue(read) = watch.layer(&view) else { return Ok(()) };
            let attended = attention.read(read).run().map_err(inner)?;
            watch.seen(index, attended.readouts);
            let merged = merge_heads(&attended.out, [heads, tokens, head_dim]);
            add(&mut x, &values(&layer.output.forward(&tensor(&merged, tokens, hidden)?)?)?);
            layer.output_norm.forward(&mut x);
            let wide = layer.up.forward(&tensor(&x, tokens, hidden)?)?;
            add(&mut x, &values(&layer.down.forward(&layer.activation.forward(&wide)?)?)?);
            layer.down_norm.forward(&mut x);
        }
        watch.finished(&x);
        Ok(())
    }
}

impl Bert {
    /// Which position embedding each token gets.
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

/// `[heads, tokens, dim]` → `[tokens, heads · dim]`
fn merge_heads(out: &[f32], [heads, tokens, dim]: [usize; 3]) -> Vec<f32> {
    let mut merged = Vec::with_capacity(out.len());
    for token in 0..tokens {
        for head in 0..heads {
            let start = (head * tokens + token) * dim;
            merged.extend_from_slice(&out[start..start + dim]);
        }
    }
    merged
}
