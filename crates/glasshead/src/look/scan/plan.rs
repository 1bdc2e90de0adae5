//! From a request to a scan: everything is looked at before anything is computed.

use std::sync::{Mutex, PoisonError};

use glasshead_attention::{InstructionSet, Shape};

use super::estimate::Estimate;
use super::gathering::{Gathering, PassWatch, kept_of};
use super::passes::{self, Packed, passes};
use super::prompt::Prompt;
use super::readouts::{Wanted, longer};
use super::{Onlooker, Origin, Recipe, Request, Role, Scan, ScanToken, ScannedModel, Source};
use crate::models::{self, Cache, Info, Input, Limit, Loaded, Model, generate};
use crate::text::{Tokenizer, unknown_words, words};
use crate::{Error, Result};

/// A checked request with its model: ready to run.
#[derive(Debug)]
pub struct Plan {
    model: Box<dyn Model>,
    tokenizer: Option<Tokenizer>,
    /// The tokens at which an answer ends.
    eos: Vec<u32>,
    prompt: Prompt,
    passes: Vec<Packed>,
    wanted: Wanted,
    layers: Vec<usize>,
    heads: Vec<usize>,
    /// Layers that are computed.
    depth: usize,
    /// `[1, heads, tokens]` of one layer and the prompt.
    shape: Shape,
    /// Tokens that are written, at most.
    answer: usize,
    force_context: bool,
    instruction_set: Option<InstructionSet>,
    estimate: Estimate,
    name: String,
    recipe: Recipe,
}

impl Plan {
    /// Loads the model, cuts the text and reads the list of readouts.
    ///
    /// # Errors
    /// A model, text, list, layer or head that is wrong; a text longer than the model's context; readouts
    /// that need more memory than there is.
    pub fn new(request: Request) -> Result<Self> {
        let Request { source, model: name, path, layers, heads, read, ask, answer, each, .. } = request;
        let (force_context, instruction_set) = (request.force_context, request.instruction_set);
        let loaded = models::load(&path)?;
        let prompt = match (each, source) {
            (None, source) => Prompt::new(source, ask.as_deref(), &loaded, &path)?,
            (Some(cut), Source::Text(text)) if ask.is_none() && answer == 0 => {
                Prompt::of_each(text, &cut, &loaded, &path)?
            }
            (Some(_), _) => {
                let hint = "put the question into every passage, or scan one text";
                return Err(Error::request(
                    "--each reads passages of a text alone, without a question",
                    hint,
                ));
            }
        };
        let Loaded { model, tokenizer, eos, .. } = loaded;
        let info = model.info();
        check_tokens(info, &prompt, force_context)?;
        if answer > 0 {
            check_answer(model.as_ref(), &prompt, answer, force_context)?;
        }
        let layers = layers.of("--layers", "layer", info.layers)?;
        let heads = heads.of("--heads", "head", info.heads)?;
        // Words come out of the last layer.
        let last = layers.iter().max().map_or(0, |last| last + 1);
        let depth = if answer > 0 { info.layers } else { last };
        let tokens = prompt.tokens.len();
        let shape = Shape { batch: 1, heads: info.heads, queries: tokens, keys: tokens };
        let asked = |role: Role| matches!(role, Role::Question | Role::Answer);
        let interest = (0..tokens).filter(|&token| asked(prompt.tokens[token].role)).collect();
        let wanted = Wanted::parse(&read, &prompt, interest, &shape, answer)?;
        let whole = longer(&shape, answer);
        let kept = wanted.named(wanted.whole.arrays(&whole), &whole);
        let kept = kept_of(&kept, layers.len(), heads.len());
        let passes = passes(&prompt);
        let most = passes.iter().map(|pass| pass.tokens.len()).max().unwrap_or(0);
        let most = most.saturating_mul(passes::at_once(passes.len()));
        let passing = wanted.read.arrays(&Shape { queries: most, keys: most, ..shape });
        let texts: Vec<usize> = passes.iter().flat_map(Packed::lengths).collect();
        let estimate = Estimate::new(info, &texts, [most, depth], answer, &kept, &passing);
        estimate.check()?;
        let recipe = Recipe {
            origin: Origin::Command { line: request.command, sha256: info.sha256.clone() },
            read,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(Self {
            model,
            tokenizer,
            eos,
            prompt,
            passes,
            wanted,
            layers,
            heads,
            depth,
            shape,
            answer,
            force_context,
            instruction_set,
            estimate,
            name,
            recipe,
        })
    }

    /// The layers that are kept.
    pub fn layers(&self) -> &[usize] {
        &self.layers
    }

    /// The heads that are kept.
    pub fn heads(&self) -> &[usize] {
        &self.heads
    }

    /// The names of the arrays that are kept.
    pub fn readouts(&self) -> Vec<&'static str> {
        let whole = longer(&self.shape, self.answer);
        let arrays = self.wanted.named(self.wanted.whole.arrays(&whole), &whole);
        arrays.iter().map(|array| array.name).collect()
    }

    /// What a reader should know before: words that the model cannot tell apart.
    pub fn note(&self) -> Option<String> {
        let tokens: Vec<_> = self.prompt.tokens.iter().map(ScanToken::as_token).collect();
        unknown_words(self.tokenizer.as_ref()?, &tokens, || words(&self.prompt.text, &tokens), &self.name)
    }

    /// What the pass is expected to cost.
    pub fn estimate(&self) -> &Estimate {
        &self.estimate
    }

    /// Runs the model over the tokens, once; then token by token over what it writes.
    ///
    /// # Errors
    /// Memory that is not there after all; an onlooker that has had enough.
    pub fn run(mut self, onlooker: &mut dyn Onlooker) -> Result<Scan> {
        let ids: Vec<u32> = self.prompt.tokens.iter().map(|token| token.id).collect();
        let shapes = [self.shape, longer(&self.shape, self.answer)];
        let chosen = [self.layers.as_slice(), self.heads.as_slice()];
        let layers = self.depth * self.passes.len();
        let gathering = Gathering::new(&self.wanted, shapes, chosen, [self.depth, layers], onlooker)?;
        let gathering = Mutex::new(gathering);
        let (model, force_context, instruction_set) =
            (self.model.as_ref(), self.force_context, self.instruction_set);
        let mut written = Vec::new();
        if self.answer == 0 {
            passes::run(&self.passes, |Packed { tokens, ends }| {
                let mut watch = PassWatch::new(&gathering, tokens.start);
                let input = Input::several(&ids[tokens.clone()], ends);
                model.run(Input { force_context, instruction_set, ..input }, &mut watch)
            })?;
        } else {
            let mut watch = PassWatch::new(&gathering, 0);
            let mut cache = Cache::new(model.info(), shapes[1].keys)?;
            let input = Input::after(&ids, &mut cache);
            model.run(Input { force_context, instruction_set, ..input }, &mut watch)?;
            if !watch.stopped() {
                let last_hidden = std::mem::take(&mut watch.last_hidden);
                let limit = Limit { tokens: self.answer, stop: &self.eos, force_context, instruction_set };
                written = generate(model, &mut cache, &last_hidden, limit, &mut watch)?;
            }
        }
        let gathering = gathering.into_inner().unwrap_or_else(PoisonError::into_inner);
        if gathering.stopped {
            return Err(Error::environment(
                "the scan was stopped before its last layer; nothing was written",
                "run it again; --layers reads fewer layers",
            ));
        }
        let tokens = ids.len() + written.len();
        let readouts = gathering.finish(tokens);
        self.wanted.rows.retain(|&row| row < tokens);
        self.prompt.answered(&written, self.tokenizer.as_ref())?;
        let Prompt { text, own, tokens, texts } = self.prompt;
        let Wanted { rows, segments, first_passage, block, .. } = self.wanted;
        let Info { family, layers, heads, .. } = *self.model.info();
        let model = ScannedModel { name: self.name, family: Some(family.to_owned()), layers, heads };
        Ok(Scan {
            text,
            own,
            tokens,
            texts,
            segments,
            first_passage,
            layers: self.layers,
            heads: self.heads,
            rows,
            block,
            readouts,
            model,
            recipe: self.recipe,
        })
    }
}

/// More than anybody reads, and little enough for lists.
const LONGEST_ANSWER: usize = 1 << 16;

/// Refuses what cannot be written: by a model without a head, or behind the end of its context.
fn check_answer(model: &dyn Model, prompt: &Prompt, answer: usize, force_context: bool) -> Result<()> {
    let info = model.info();
    model.logits(&vec![0.0; info.hidden]).map_err(|cause| {
        let hint = "leave --answer out; --ask alone shows what the question looked at";
        Error::request(format!("--answer: {cause}"), hint)
    })?;
    if answer > LONGEST_ANSWER {
        return Err(Error::request(
            format!("--answer {answer}: an answer has at most {LONGEST_ANSWER} tokens"),
            "give a smaller number",
        ));
    }
    let (tokens, most) = (prompt.tokens.len(), info.max_tokens);
    if tokens.saturating_add(answer) > most && !force_context {
        let left = most.saturating_sub(tokens);
        return Err(Error::request(
            format!(
                "--answer {answer}: the context of this {} model ends {left} tokens behind the question",
                info.family
            ),
            format!("give a smaller number; {}", longer_context(info)),
        ));
    }
    Ok(())
}

/// What to do about a text that is too long for a model.
fn longer_context(info: &Info) -> String {
    let force = match info.endless {
        true => "; --force-context reads on, untrained as the model is for it",
        false => "",
    };
    format!("give a part of the text, or a model that reads more: --model smollm2 reads 8192 tokens{force}")
}

/// Refuses tokens that the model cannot read, before anything is computed.
fn check_tokens(info: &Info, prompt: &Prompt, force_context: bool) -> Result<()> {
    let most = info.max_tokens;
    let ids: Vec<u32> = prompt.tokens.iter().map(|token| token.id).collect();
    info.check(&ids[..ids.len().min(most)])?;
    ids.chunks(most.max(1)).try_for_each(|ids| info.check(ids))?;
    let lengths = prompt.texts.iter().map(|text| text.tokens);
    let one = || prompt.texts.is_empty().then_some(prompt.tokens.len());
    let Some((place, tokens)) = lengths.chain(one()).enumerate().find(|(_, tokens)| *tokens > most) else {
        return Ok(());
    };
    if force_context {
        // Forced, the model itself says whether its positions go on.
        return Ok(());
    }
    let which = match prompt.texts.get(place) {
        None => "the text".to_owned(),
        Some(text) => format!("text {} of {} (“{}”)", place + 1, prompt.texts.len(), text.label),
    };
    Err(Error::request(
        format!("{which} has {tokens} tokens; the context of this {} model ends after {most}", info.family),
        longer_context(info),
    ))
}
