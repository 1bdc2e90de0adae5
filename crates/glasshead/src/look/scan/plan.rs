//! From a request to a scan: everything is looked at before anything is computed.

use glasshead_attention::Shape;

use super::estimate::Estimate;
use super::gathering::{Gathering, kept_of};
use super::prompt::Prompt;
use super::readouts::Wanted;
use super::{Onlooker, Recipe, Request, Role, Scan};
use crate::models::{self, Info, Loaded, Model};
use crate::{Error, Result};

/// A checked request with its model: ready to run.
#[derive(Debug)]
pub struct Plan {
    model: Box<dyn Model>,
    prompt: Prompt,
    wanted: Wanted,
    layers: Vec<usize>,
    heads: Vec<usize>,
    /// Layers that are computed.
    depth: usize,
    shape: Shape,
    estimate: Estimate,
    recipe: Recipe,
}

impl Plan {
    /// Loads the model, cuts the text and reads the list of readouts.
    ///
    /// # Errors
    /// A model, text, list, layer or head that is wrong; a text longer than the model's context; readouts
    /// that need more memory than there is.
    pub fn new(request: Request) -> Result<Self> {
        let Request { source, model: name, path, layers, heads, read, ask, answer, force_context, command } =
            request;
        let loaded = models::load(&path)?;
        let prompt = Prompt::new(source, ask.as_deref(), &loaded, &path)?;
        let Loaded { model, .. } = loaded;
        let info = model.info();
        if answer > 0 {
            return Err(cannot_answer(info));
        }
        check_tokens(info, &prompt, force_context)?;
        let layers = layers.of("--layers", "layer", info.layers)?;
        let heads = heads.of("--heads", "head", info.heads)?;
        let depth = layers.iter().max().map_or(0, |last| last + 1);
        let tokens = prompt.tokens.len();
        let shape = Shape { batch: 1, heads: info.heads, queries: tokens, keys: tokens };
        let asked = |role: Role| matches!(role, Role::Question | Role::Answer);
        let interest = (0..tokens).filter(|&token| asked(prompt.tokens[token].role)).collect();
        let wanted = Wanted::parse(&read, &prompt, interest, &shape)?;
        let raw = wanted.read.arrays(&shape);
        let kept = kept_of(&wanted.named(raw.clone(), &shape), layers.len(), heads.len());
        let estimate = Estimate::new(info, [tokens, depth], &kept, &raw);
        estimate.check()?;
        let recipe = Recipe {
            command,
            model: name,
            sha256: info.sha256.clone(),
            read,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(Self { model, prompt, wanted, layers, heads, depth, shape, estimate, recipe })
    }

    /// What the pass is expected to cost.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// Runs the model over the tokens, once.
    ///
    /// # Errors
    /// Memory that is not there after all; an onlooker that has had enough.
    pub fn run(self, onlooker: &mut dyn Onlooker) -> Result<Scan> {
        let ids: Vec<u32> = self.prompt.tokens.iter().map(|token| token.id).collect();
        let chosen = [self.layers.as_slice(), self.heads.as_slice()];
        let mut watch = Gathering::new(&self.wanted, self.shape, chosen, self.depth, onlooker)?;
        self.model.forward(&ids, &mut watch)?;
        if watch.stopped {
            return Err(Error::environment(
                "the scan was stopped before its last layer; nothing was written",
                "run it again; --layers reads fewer layers",
            ));
        }
        let readouts = watch.finish();
        let Prompt { text, own, tokens } = self.prompt;
        let Wanted { rows, segments, block, .. } = self.wanted;
        Ok(Scan {
            text,
            own,
            tokens,
            segments,
            layers: self.layers,
            heads: self.heads,
            rows,
            block,
            readouts,
            info: self.model.info().clone(),
            recipe: self.recipe,
        })
    }
}

/// The one place where an answer comes in: a model that writes would do so here, before its tokens are read.
fn cannot_answer(info: &Info) -> Error {
    Error::request(
        format!("--answer: this {} model cannot write answers", info.family),
        "leave --answer out; --ask alone shows what the question looked at",
    )
}

/// Refuses tokens that the model cannot read, before anything is computed.
fn check_tokens(info: &Info, prompt: &Prompt, force_context: bool) -> Result<()> {
    let (tokens, most) = (prompt.tokens.len(), info.max_tokens);
    let ids: Vec<u32> = prompt.tokens.iter().map(|token| token.id).take(most).collect();
    info.check(&ids)?;
    if tokens <= most || force_context {
        // Forced, the model itself says whether its positions go on.
        return Ok(());
    }
    Err(Error::request(
        format!("the text has {tokens} tokens; the context of this {} model ends after {most}", info.family),
        "give a part of the text; --force-context reads on where positions are computed, untrained as they are",
    ))
}
