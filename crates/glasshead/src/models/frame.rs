//! What stands around the layers of a decoder whose checkpoint lies as Llama's does: `model.embed_tokens`,
//! `model.layers.N`, `model.norm`, `lm_head`.

use super::config::Keys;
use super::decoder::{Decoder, Head, Layer, root};
use super::elementwise::Activation;
use super::layers::{Embedding, Norm, RmsNorm};
use super::rope::Rotary;
use super::{Info, Model, layer_size};
use crate::Result;
use crate::weights::{Scope, Weights};

/// The sizes that every config of them gives, and what all layers share.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) family: &'static str,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) vocabulary: usize,
    pub(super) positions: usize,
    pub(super) epsilon: f64,
    pub(super) activation: Activation,
    pub(super) tied: bool,
}

/// In what the families differ before the first layer and behind the last one.
pub(super) struct Ends {
    /// What every embedding is multiplied with.
    pub(super) scale: Option<f32>,
    pub(super) norm: RmsNormLoader,
    pub(super) logit_cap: Option<f64>,
    pub(super) rotaries: Vec<Rotary>,
}

/// [`RmsNorm::load`] or [`RmsNorm::load_around_one`].
type RmsNormLoader = fn(&Scope<'_>, usize, f64) -> Result<RmsNorm>;

/// Refuses heads that cannot share their key heads evenly.
pub(super) fn whole_shares(keys: &Keys, heads: usize, kv_heads: usize) -> Result<()> {
    match heads.is_multiple_of(kv_heads) {
        true => Ok(()),
        false => {
            Err(keys
                .contradiction(&format!("has {heads} heads that share {kv_heads} key heads, no whole share")))
        }
    }
}

impl Frame {
    /// Reads the layers by `layer(scope, index)`, and what stands around them.
    pub(super) fn load(
        &self,
        weights: &Weights,
        ends: Ends,
        layer: impl Fn(&Scope<'_>, usize) -> Result<Layer>,
    ) -> Result<Box<dyn Model>> {
        let &Self { hidden, vocabulary, heads, kv_heads, head_dim, .. } = self;
        let root = root(weights, "model", "embed_tokens.weight");
        let table = root.table("embed_tokens.weight", [vocabulary, hidden])?;
        // Grows with the tensors that are really there, not with the number in the config.
        let mut layers = Vec::new();
        for index in 0..self.layers {
            layers.push(layer(&root.pp("layers").pp(index), index)?);
        }
        let info = Info {
            family: self.family,
            layers: self.layers,
            heads,
            kv_heads,
            head_dim,
            hidden,
            layer_size: layer_size(hidden, [heads, kv_heads, head_dim], 3 * self.intermediate),
            causal: true,
            max_tokens: self.positions,
            endless: true,
            sha256: weights.sha256()?,
            vocabulary,
        };
        Ok(Box::new(Decoder {
            info,
            embedding: Embedding::new(table, ends.scale),
            positions: None,
            rotaries: ends.rotaries,
            layers,
            norm: Norm::Rms((ends.norm)(&root.pp("norm"), hidden, self.epsilon)?),
            head: Head::load(weights, self.tied, [hidden, vocabulary], ends.logit_cap)?,
        }))
    }
}
