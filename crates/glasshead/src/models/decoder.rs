//! A decoder, as GPT-2, Llama, Gemma and their kin share it. Which parts a family has stands in its own file.
//!
//! ```text
//! x = embedding[id] (+ position[i])
//! for each layer:
//!     x = x + output(attention(q(norm(x)), k(norm(x)), v(norm(x))))      a token sees itself and those before it
//!     x = x + mlp(norm(x))
//! x = norm(x);   logits = x·headᵀ
//! ```

use std::sync::OnceLock;

use super::config::Keys;
use super::layers::{Embedding, Linear, Mlp, Norm, RmsNorm, Scratch, room};
use super::pass::{Heads, Input, Pass, Rules, by_blocks};
use super::rope::{Rotary, Turns};
use super::{Info, Model, Watch};
use crate::weights::{Scope, Weights};
use crate::{Error, Result};

/// A decoder with the parts of its family.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) info: Info,
    pub(super) embedding: Embedding,
    /// Learned positions, added to the embedding.
    pub(super) positions: Option<Embedding>,
    /// Rotary positions; each layer says which.
    pub(super) rotaries: Vec<Rotary>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    pub(super) head: Head,
}

#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Norm,
    /// q, k and v behind each other.
    pub(super) qkv: Linear,
    /// Norms of each head's q and k.
    pub(super) head_norms: Option<[RmsNorm; 2]>,
    /// Index into [`Decoder::rotaries`].
    pub(super) rotary: Option<usize>,
    pub(super) rules: Rules,
    pub(super) output: Linear,
    pub(super) after_attention: Option<RmsNorm>,
    pub(super) mlp_norm: Norm,
    pub(super) mlp: Mlp,
    pub(super) after_mlp: Option<RmsNorm>,
}

/// From the last vectors to a score per word of the vocabulary.
#[derive(Debug)]
pub(super) struct Head {
    matrix: Matrix,
    /// Scores become cap · tanh(score / cap).
    softcap: Option<f64>,
}

#[derive(Debug)]
enum Matrix {
    /// The embedding, made a matrix when it is first needed.
    Tied(OnceLock<Linear>),
    Own(Linear),
    Missing,
}

impl Head {
    /// The embedding's own where they are tied, else `lm_head.weight`, where the checkpoint has one.
    pub(super) fn load(
        weights: &Weights,
        tied: bool,
        [hidden, vocabulary]: [usize; 2],
        softcap: Option<f64>,
    ) -> Result<Self> {
        let own = weights.scope("lm_head");
        let matrix = match tied {
            true => Matrix::Tied(OnceLock::new()),
            false if own.has("weight") => Matrix::Own(Linear::load(&own, hidden, vocabulary, false)?),
            false => Matrix::Missing,
        };
        Ok(Self { matrix, softcap })
    }
}

/// Keys that any config may carry, and that would make another model of a decoder.
pub(super) fn only_a_decoder(keys: &mut Keys) -> Result<()> {
    // It is one either way.
    keys.flag("is_decoder")?;
    keys.only("is_encoder_decoder", false)?;
    keys.only("add_cross_attention", false)?;
    keys.only("pruned_heads", serde_json::json!({}))
}

/// Where the tensors of a decoder lie: under `prefix`, or, in a checkpoint without a head, at the top.
pub(super) fn root<'a>(weights: &'a Weights, prefix: &str, embedding: &str) -> Scope<'a> {
    let inside = weights.scope(prefix);
    let top = weights.scope("");
    if !inside.has(embedding) && top.has(embedding) { top } else { inside }
}

impl Layer {
    /// `x [tokens, hidden]`, in place: what the attention gave (`out`) goes in for the tokens from `first` on, then
    /// the feed-forward block.
    fn finish(&self, x: &mut [f32], heads: &Heads, out: &[f32], first: usize, scratch: &mut Scratch) {
        let Scratch { normed, merged, product, wide, gated } = scratch;
        let rows = x.len() / self.output.outputs();
        let merged = heads.merge(out, first, rows, merged);
        add_product(x, &self.output, merged, self.after_attention.as_ref(), product);
        let normed = self.mlp_norm.forward(x, room(normed, x.len()));
        let wide = self.mlp.widen(normed, wide, gated);
        add_product(x, &self.mlp.down, wide, self.after_mlp.as_ref(), product);
    }

    /// What a head's vectors go through before they meet: part 0 is q, 1 is k, 2 is v.
    fn prepare(&self, turns: Option<&Turns>, part: usize, token: usize, vector: &mut [f32]) {
        if part < 2 {
            if let Some(norms) = &self.head_norms {
                norms[part].vector(vector);
            }
            if let Some(turns) = turns {
                turns.turn(token, vector);
            }
        }
    }
}

/// x += linear(y), or its norm.
fn add_product(x: &mut [f32], linear: &Linear, y: &[f32], norm: Option<&RmsNorm>, product: &mut Vec<f32>) {
    match norm {
        None => linear.add_to(y, x),
        Some(norm) => {
            let product = room(product, x.len());
            linear.forward(y, product);
            norm.add_to(x, product);
        }
    }
}

impl Model for Decoder {
    fn info(&self) -> &Info {
        &self.info
    }

    fn run(&self, input: Input<'_>, watch: &mut dyn Watch) -> Result<()> {
        let hidden = self.info.hidden;
        let mut pass = Pass::new(input, &self.info, watch)?;
        let mut x = self.embedding.forward(pass.ids())?;
        if let Some(positions) = &self.positions {
            let places = pass.places().into_iter().map(|place| place.position);
            super::elementwise::add(&mut x, &positions.forward(places)?);
        }
        let turns: Vec<Turns> =
            self.rotaries.iter().map(|rotary| rotary.turns(&pass)).collect::<Result<_>>()?;
        let mut heads = Heads::new(&self.info, pass.tokens());
        for (index, layer) in self.layers.iter().enumerate() {
            let turns = layer.rotary.and_then(|rotary| turns.get(rotary));
            heads.fill(&x, Some(&layer.attention_norm), &layer.qkv, |part, token, vector| {
                layer.prepare(turns, part, token, vector);
            });
            let Some(out) = pass.attend(index, &x, &heads, &layer.rules)? else { return Ok(()) };
            by_blocks(&mut x, hidden, |scratch, first, x| layer.finish(x, &heads, &out, first, scratch));
        }
        let mut normed = vec![0f32; x.len()];
        pass.finish(self.norm.forward(&x, &mut normed));
        Ok(())
    }

    fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let Info { family, hidden: width, .. } = self.info;
        if hidden.is_empty() || !hidden.len().is_multiple_of(width) {
            return Err(Error::request(
                format!("{} numbers are no vectors of {width}", hidden.len()),
                "give last hidden vectors of this model",
            ));
        }
        let matrix = match &self.head.matrix {
            Matrix::Own(matrix) => matrix,
            Matrix::Tied(matrix) => match matrix.get() {
                Some(matrix) => matrix,
                None => {
                    let made = self.embedding.transposed(width)?;
                    matrix.get_or_init(|| made)
                }
            },
            Matrix::Missing => {
                return Err(Error::request(
                    format!("this {family} checkpoint has no lm_head.weight, so it cannot write"),
                    "use the checkpoint of the whole language model",
                ));
            }
        };
        let mut logits = vec![0f32; hidden.len() / width * self.info.vocabulary];
        matrix.forward(hidden, &mut logits);
        if let Some(cap) = self.head.softcap {
            logits.iter_mut().for_each(|x| *x = (cap * (f64::from(*x) / cap).tanh()) as f32);
        }
        Ok(logits)
    }
}
