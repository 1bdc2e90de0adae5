//! A long text, read once by a model, and what every chosen head looked at while it was read.
//!
//! ```text
//! Request → Plan::new   tokens, segments, readouts, time and memory: everything that can be refused is
//!         → Plan::run   one pass, and one more for every token of an answer; of every layer the chosen
//!                       heads are kept
//!         → Scan        what a report tells
//! ```

mod estimate;
mod gathering;
mod passes;
mod plan;
mod prompt;
mod readouts;
mod source;

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;

use glasshead_attention::{Array, InstructionSet};

use super::segments::{Cut, Segment};
use crate::text::Token;
use crate::{Error, Result};
pub use estimate::Estimate;
pub use plan::Plan;
pub use readouts::square_of;
pub use source::{ids_from_file, text_from_file};

/// What is to be read, and what is to be kept of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the model reads.
    pub source: Source,
    /// The name the model goes by: the catalogue's, or the path as it was given.
    pub model: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The layers that are kept.
    pub layers: Choice,
    /// The query heads that are kept.
    pub heads: Choice,
    /// What is read out: a list as `attend --read` takes it, and also `first` (the weight on the first
    /// token), `rows=last`, `rows=@WORD`, `segments=paragraph|sentence|line|FILE.json`, `blocks` (a map of
    /// at most 256 × 256).
    pub read: String,
    /// A question, put after the text (in the model's chat template where it has one). Its tokens become
    /// the rows of interest.
    pub ask: Option<String>,
    /// How many tokens the model may write as an answer; they become rows of interest too.
    pub answer: usize,
    /// Every passage of the text is a text of its own: it has its own special tokens and sees no other. Line
    /// breaks at its end are no part of it, and what is blank is left out.
    pub each: Option<Cut>,
    /// Read a text that is longer than the model's context, where the model can do so at all.
    pub force_context: bool,
    /// Forces the attention to an instruction set that this machine has.
    pub instruction_set: Option<InstructionSet>,
    /// The command line, for the recipe.
    pub command: String,
}

/// What the model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A text, byte for byte.
    Text(String),
    /// Token ids, special tokens included.
    Ids(Vec<u32>),
}

/// Some of the layers or heads, or all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Every one.
    #[default]
    All,
    /// These, from 0, in this order.
    Some(Vec<usize>),
}

/// Everything that was kept.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The text that was read: that of the file, and what a template, a question and an answer put around
    /// it. Empty where ids were read.
    pub text: String,
    /// The bytes of `text` that are the file's own.
    pub own: Range<usize>,
    /// The tokens, in the order in which the model reads them.
    pub tokens: Vec<ScanToken>,
    /// The texts where every passage is one of its own ([`Request::each`]), in the order in which their tokens stand
    /// behind each other; else empty.
    pub texts: Vec<Segment>,
    /// The passages of the readout `segments`, in the order of its last axis; empty without it.
    pub segments: Vec<Segment>,
    /// Which of `segments` the first token counts to, if any.
    pub first_passage: Option<usize>,
    /// The layers that were kept, from 0: the first axis of every readout.
    pub layers: Vec<usize>,
    /// The heads that were kept, from 0: the second axis.
    pub heads: Vec<usize>,
    /// The tokens whose rows the readout `rows` holds, in the order of its third axis; empty without it.
    pub rows: Vec<usize>,
    /// The tokens along one side of a square of the readout `blocks`.
    pub block: Option<usize>,
    /// `[layers, heads, …]`, the later axes as the engine gives them with a batch of one:
    ///
    /// | name | axes after `[layers, heads]` | |
    /// |---|---|---|
    /// | `lse`, `entropy` (nats), `max_weight`, `distance` (tokens), `sink_weight` | `[tokens]` | one number per query |
    /// | `previous`, `self`, `induction` | `[tokens]` | the weight of every query on one key; not of a [`Plan`] |
    /// | `first_weight` | `[tokens]` | the weight of every query on the first token (of its text) |
    /// | `top_index` (I64, −1 for none), `top_weight` | `[tokens, K]` | the heaviest keys, descending |
    /// | `received` | `[tokens]` | the weight on every key, summed over queries |
    /// | `rows` | `[rows, tokens]` | whole rows of chosen queries |
    /// | `segments` | `[tokens, segments]` | the weight of every query on every passage |
    /// | `blocks` | `[⌈tokens/block⌉, ⌈tokens/block⌉]` | the map, summed in squares |
    pub readouts: Vec<Array>,
    /// Whose attention it is.
    pub model: ScannedModel,
    /// How it was made.
    pub recipe: Recipe,
}

/// The model that was read out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedModel {
    /// The name it goes by.
    pub name: String,
    /// `model_type` of its config; `None` where no model made q, k and v.
    pub family: Option<String>,
    /// Layers that it has, kept or not.
    pub layers: usize,
    /// Query heads of a layer, kept or not.
    pub heads: usize,
}

/// A token and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanToken {
    /// The row of the model's embedding table; of a token that is known as a vector alone, its place in the text.
    pub id: u32,
    /// The text's own bytes in `start..end`; the name of a special token; `#ID` where ids were read.
    pub text: String,
    /// First byte in [`Scan::text`]; 0 for a token without bytes.
    pub start: usize,
    /// Byte after the last one; equal to `start` for a token without bytes.
    pub end: usize,
    /// What it is there for.
    pub role: Role,
}

/// What a token is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of the text that was given, or one of the ids.
    Text,
    /// Of the chat template.
    Template,
    /// Of the question.
    Question,
    /// Written by the model.
    Answer,
    /// Added by the tokenizer (`[CLS]`, `[SEP]`, …).
    Special,
}

/// How a scan was made. It stands in every file and on every picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What made it.
    pub origin: Origin,
    /// What was read out, as it was asked for.
    pub read: String,
    /// Version of glasshead.
    pub version: &'static str,
}

/// What made a scan, and thus what can be said about making it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command, from a weights file.
    Command {
        /// The command line.
        line: String,
        /// SHA-256 of the weights file.
        sha256: String,
    },
    /// A program in Python, which alone knows its weights.
    Python {
        /// The call, in words.
        call: String,
    },
}

/// Whoever waits for the pass; several passes tell it in turn, each from its own thread.
pub trait Onlooker: Send {
    /// `done` of `layers` layers have been computed, those of all passes together. `Break` ends the pass; nothing of it is kept.
    fn layer(&mut self, done: usize, layers: usize) -> ControlFlow<()>;

    /// `written` of at most `most` tokens of an answer have been written. `Break` ends it; nothing is kept.
    fn written(&mut self, written: usize, most: usize) -> ControlFlow<()> {
        let _ = (written, most);
        ControlFlow::Continue(())
    }
}

/// Nobody waits.
impl Onlooker for () {
    fn layer(&mut self, _: usize, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Scan {
    /// The readout of this name.
    pub fn readout(&self, name: &str) -> Option<&Array> {
        self.readouts.iter().find(|array| array.name == name)
    }

    /// The tokens that were asked about: those of the question and of the answer.
    pub fn of_interest(&self) -> impl Iterator<Item = usize> {
        let asked = |token: &ScanToken| matches!(token.role, Role::Question | Role::Answer);
        self.tokens.iter().enumerate().filter(move |(_, token)| asked(token)).map(|(index, _)| index)
    }

    /// What the model wrote; `None` if it was not asked to. Without a tokenizer, the ids as `#ID`.
    pub fn answer(&self) -> Option<String> {
        let answer = || self.tokens.iter().filter(|token| token.role == Role::Answer);
        let bytes = |token: &ScanToken| (token.start < token.end).then_some(token.start..token.end);
        let mut ranges = answer().filter_map(bytes);
        match (answer().next(), ranges.next()) {
            (None, _) => None,
            (Some(_), Some(first)) => Some(self.text.get(first.start..)?.to_owned()),
            (Some(_), None) => Some(answer().map(|token| token.text.as_str()).collect::<Vec<_>>().join(" ")),
        }
    }

    /// Where each of [`Scan::texts`] starts among the tokens, and at the end how many tokens there are.
    pub fn text_starts(&self) -> Vec<usize> {
        let mut starts = vec![0];
        for text in &self.texts {
            starts.push(starts[starts.len() - 1] + text.tokens);
        }
        starts
    }

    /// The recipe as names and values, for the metadata of a file.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let Recipe { origin, read, version } = &self.recipe;
        let mut metadata = vec![
            ("model", self.model.name.clone()),
            ("layers", list(&self.layers)),
            ("heads", list(&self.heads)),
            ("quantity", read.clone()),
            ("version", format!("glasshead {version}")),
        ];
        metadata.extend(self.model.family.clone().map(|family| ("family", family)));
        metadata.extend(origin.told());
        metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Origin {
    /// The same as names and values.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Command { line, sha256 } => vec![("command", line.clone()), ("sha256", sha256.clone())],
            Self::Python { call } => vec![("call", call.clone())],
        }
    }
}

impl ScannedModel {
    /// `minilm (bert)`, or the name alone.
    pub fn with_family(&self) -> String {
        match &self.family {
            Some(family) => format!("{} ({family})", self.name),
            None => self.name.clone(),
        }
    }
}

impl ScanToken {
    fn as_token(&self) -> Token {
        let Self { id, text, start, end, role } = self;
        Token { id: *id, text: text.clone(), start: *start, end: *end, special: *role == Role::Special }
    }
}

impl Role {
    /// `text`, `template`, `question`, `answer` or `special`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Template => "template",
            Self::Question => "question",
            Self::Answer => "answer",
            Self::Special => "special",
        }
    }
}

impl Choice {
    /// Reads `all` or `0,5,…`; `flag` is what errors call it.
    ///
    /// # Errors
    /// What is neither, and a number that is there twice.
    pub fn parse(flag: &str, list: &str) -> Result<Self> {
        if list.trim() == "all" {
            return Ok(Self::All);
        }
        let mut chosen = Vec::new();
        for item in list.split(',').map(str::trim) {
            let wrong = |problem: &str| {
                let item: String = item.chars().take(40).collect();
                Error::request(
                    format!("{flag}: {item:?} {problem}"),
                    format!("give all, or numbers from 0 like {flag} 0,5"),
                )
            };
            let index = item.parse().map_err(|_| wrong("is no whole number from 0"))?;
            if chosen.contains(&index) {
                return Err(wrong("is there twice"));
            }
            chosen.push(index);
        }
        Ok(Self::Some(chosen))
    }

    /// The numbers chosen of `count`; `one` and `flag` are what errors call it.
    fn of(&self, flag: &str, one: &str, count: usize) -> Result<Vec<usize>> {
        let Self::Some(chosen) = self else { return Ok((0..count).collect()) };
        match chosen.iter().find(|&&index| index >= count) {
            None => Ok(chosen.clone()),
            Some(index) => Err(Error::request(
                format!("{flag} {index}: the model has {count} {one}s, counted from 0"),
                format!("the last {one} is {}", count.saturating_sub(1)),
            )),
        }
    }
}
