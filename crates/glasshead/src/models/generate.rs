//! A text goes on: the most likely next token, one after the other, over the cache.

use std::ops::ControlFlow;

use glasshead_attention::{Array, InstructionSet, Read};

use super::{Cache, Input, LayerView, Model, Watch};
use crate::Result;

/// When writing ends.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    /// After so many tokens.
    pub tokens: usize,
    /// Before one of these: end of text, end of turn.
    pub stop: &'a [u32],
    /// Writes on behind the last position that the model was made for.
    pub force_context: bool,
    /// As in [`Input`].
    pub instruction_set: Option<InstructionSet>,
}

/// Goes on behind what `cache` holds with the likeliest token each time, until `limit`. `last_hidden [hidden]` is
/// what the pass that filled the cache gave for its last token. Every token written is read by the model as well,
/// in a pass of its own that `watch` sees; one that `watch` breaks is the last.
///
/// # Errors
/// As [`Model::run`] and [`Model::logits`].
pub fn generate(
    model: &dyn Model,
    cache: &mut Cache,
    last_hidden: &[f32],
    limit: Limit<'_>,
    watch: &mut dyn Watch,
) -> Result<Vec<u32>> {
    let mut written = Vec::new();
    let mut hidden = last_hidden.to_vec();
    while written.len() < limit.tokens {
        let next = likeliest(&model.logits(&hidden)?);
        if limit.stop.contains(&next) {
            break;
        }
        written.push(next);
        let mut keep = Keep { watch, hidden: None };
        let ids = [next];
        let Limit { force_context, instruction_set, .. } = limit;
        let input = Input { force_context, instruction_set, ..Input::after(&ids, cache) };
        model.run(input, &mut keep)?;
        let Some(last) = keep.hidden else { break };
        hidden = last;
    }
    Ok(written)
}

/// The first of the largest; a NaN is never it.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (id, logit);
        }
    }
    best.0
}

/// Passes everything on and keeps what came out last.
struct Keep<'a> {
    watch: &'a mut dyn Watch,
    hidden: Option<Vec<f32>>,
}

impl Watch for Keep<'_> {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        self.watch.layer(view)
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) -> ControlFlow<()> {
        self.watch.seen(layer, readouts)
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        self.hidden = Some(last_hidden.to_vec());
        self.watch.finished(last_hidden);
    }
}
