//! Models that show their attention while they run: q, k and v of every layer, as the engine gets them.
//!
//! Each family is one file that reads like its paper: config → load → forward. A checkpoint that any of
//! them would compute differently from its authors is refused by name instead.

mod bert;
mod beside;
mod config;
mod decoder;
mod elementwise;
mod frame;
mod gemma;
mod generate;
mod gguf;
mod gguf_names;
mod gpt2;
mod layers;
mod llama;
mod pass;
mod rope;

use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;

use glasshead_attention::{Array, Attention, Read};

use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::{INDEX, Weights, shown};
use crate::{Error, Result};
pub use config::Keys;
pub use generate::{Limit, generate};
pub use gguf::{Opened, open_gguf};
pub use pass::{Cache, Input, Unwatched};

/// A model that shows its attention while it runs.
pub trait Model: Send + Sync + std::fmt::Debug {
    /// Its sizes and its identity.
    fn info(&self) -> &Info;

    /// Reads what `input` says, and shows every layer to `watch`.
    ///
    /// # Errors
    /// No ids, an id outside the vocabulary, more ids than the model has positions; ends that do not fit the ids;
    /// a cache of another model, or without room, or for a model that has none. Nothing is cut.
    fn run(&self, input: Input<'_>, watch: &mut dyn Watch) -> Result<()>;

    /// The same for one text from its beginning: token ids, special tokens included.
    ///
    /// # Errors
    /// As [`Model::run`].
    fn forward(&self, ids: &[u32], watch: &mut dyn Watch) -> Result<()> {
        self.run(Input::text(ids), watch)
    }

    /// The score of every word of the vocabulary to come next, `[tokens, vocabulary]`, from the last hidden vectors
    /// `[tokens, hidden]`.
    ///
    /// # Errors
    /// A model without a language model's head; numbers that are no vectors of it.
    fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let _ = hidden;
        Err(Error::request(
            format!("a {} model has no head that writes words", self.info().family),
            "use a decoder, for instance smollm2",
        ))
    }
}

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `model_type` of its config: `bert`, `roberta`, …
    pub family: &'static str,
    /// Layers.
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Key and value heads of a layer.
    pub kv_heads: usize,
    /// Numbers in the vector of one head.
    pub head_dim: usize,
    /// Numbers in the vector of one token.
    pub hidden: usize,
    /// Numbers in the matrices of one layer: so many multiply-adds per token, beside attention.
    pub layer_size: usize,
    /// A token sees itself and those before it, not those after it.
    pub causal: bool,
    /// The longest input, in tokens, special ones included.
    pub max_tokens: usize,
    /// Positions are computed and no rows of a table: a longer input can be forced.
    pub endless: bool,
    /// SHA-256 of the weights file.
    pub sha256: String,
    /// Token ids are below this number.
    pub vocabulary: usize,
}

impl Info {
    /// Refuses ids that the model cannot read, before anything is computed.
    ///
    /// # Errors
    /// No ids; more than [`Info::max_tokens`]; one that is not below [`Info::vocabulary`].
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        self.check_after(0, ids, false)
    }

    /// The same for ids that stand behind `past` others; `endless`: there may be more than the model was made for.
    fn check_after(&self, past: usize, ids: &[u32], endless: bool) -> Result<()> {
        let Self { family, max_tokens, vocabulary, .. } = self;
        if ids.is_empty() {
            return Err(Error::request("there are no tokens to read", "give a text with at least one word"));
        }
        let tokens = past + ids.len();
        if tokens > *max_tokens && !endless {
            return Err(Error::request(
                format!("the text has {tokens} tokens; this {family} model reads at most {max_tokens}"),
                format!("nothing was cut; shorten the text to about {} words", max_tokens * 3 / 4),
            ));
        }
        match ids.iter().find(|&&id| id as usize >= *vocabulary) {
            Some(id) => Err(Error::request(
                format!("token id {id} is outside the vocabulary of {vocabulary}"),
                "the tokenizer.json (or the list of ids) belongs to another model",
            )),
            None => Ok(()),
        }
    }
}

/// [`Info::layer_size`]: q, k, v and the output, and `feed_forward` matrices' rows of the hidden size.
fn layer_size(hidden: usize, [heads, kv_heads, head_dim]: [usize; 3], feed_forward: usize) -> usize {
    let attention = heads.saturating_add(kv_heads).saturating_mul(2).saturating_mul(head_dim);
    hidden.saturating_mul(attention.saturating_add(feed_forward))
}

/// One layer's attention, as it is about to be computed.
#[derive(Clone, Debug)]
pub struct LayerView<'a> {
    /// The layer, from 0.
    pub layer: usize,
    /// `[tokens, hidden]`: what enters the layer.
    pub input: &'a [f32],
    /// q `[1, heads, tokens, head_dim]`, k and v `[1, kv_heads, offset + tokens, head_dim]`, scale and mask.
    pub attention: &'a Attention<'a, f32>,
    /// How many tokens were read before and are seen as keys: the first query stands at this position.
    pub offset: usize,
    /// How many tokens a token sees at most, itself included.
    pub window: Option<usize>,
    /// Scores become cap · tanh(score / cap); 0: they do not.
    pub softcap: f64,
}

/// Whoever looks on.
pub trait Watch {
    /// A layer is about to compute its attention: what to read out of it in the same pass. `Break` ends the
    /// pass here: later layers are not needed.
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read>;

    /// The layer's attention has been computed, and read out as asked for, `[1, heads, …]`. `Break` ends the pass
    /// here: not even the rest of this layer is needed.
    fn seen(&mut self, layer: usize, readouts: Vec<Array>) -> ControlFlow<()> {
        let _ = (layer, readouts);
        ControlFlow::Continue(())
    }

    /// The pass has gone through; `last_hidden` is `[tokens, hidden]`.
    fn finished(&mut self, last_hidden: &[f32]) {
        let _ = last_hidden;
    }
}

/// A model, and what lies beside its weights.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its tokenizer; `None` if the folder has no `tokenizer.json` (token ids need none).
    pub tokenizer: Option<Tokenizer>,
    /// How it wants a conversation written, if it was trained on any.
    pub chat: Option<ChatTemplate>,
    /// The token that begins a text, if there is one; the tokenizer puts it there where the model wants it.
    pub bos: Option<u32>,
    /// The tokens that end a text or a turn.
    pub eos: Vec<u32>,
}

type Loader = fn(Keys, &Weights) -> Result<Box<dyn Model>>;

/// Every `model_type` that can be run. Families with the same forward share its file.
const FAMILIES: &[(&str, Loader)] = &[
    ("bert", bert::load_bert),
    ("roberta", bert::load_roberta),
    ("xlm-roberta", bert::load_xlm_roberta),
    ("camembert", bert::load_camembert),
    ("distilbert", bert::load_distilbert),
    ("llama", llama::load_llama),
    ("mistral", llama::load_mistral),
    ("qwen2", llama::load_qwen2),
    ("qwen3", llama::load_qwen3),
    ("phi3", llama::load_phi3),
    ("gpt2", gpt2::load_gpt2),
    ("gemma2", gemma::load_gemma2),
    ("gemma3_text", gemma::load_gemma3),
];

/// Loads a model from a GGUF file, or from a folder with `config.json`, `model.safetensors` (or several and
/// their `model.safetensors.index.json`) and, if text is to be read, `tokenizer.json`.
///
/// # Errors
/// A file that is missing or broken; an architecture, config key or format that is not supported.
pub fn load(path: &Path) -> Result<Loaded> {
    if !path.is_dir() {
        if !is_gguf(path) {
            return Err(not_a_model(path));
        }
        let Opened { mut keys, weights, tokenizer, chat, bos, eos } = open_gguf(path)?;
        let load = family(&mut keys, path)?;
        return Ok(Loaded { model: load(keys, &weights)?, tokenizer, chat, bos, eos });
    }
    let config = path.join("config.json");
    if !config.exists() {
        return Err(Error::request(
            format!("the model folder {} has no config.json", path.display()),
            "a model folder holds config.json, model.safetensors and tokenizer.json; a GGUF file is given by its own path",
        ));
    }
    let mut keys = Keys::read(&config)?;
    let load = family(&mut keys, &config)?;
    let whole = path.join("model.safetensors");
    let index = path.join(INDEX);
    let weights = match (whole.exists(), index.exists()) {
        (true, _) => Weights::open(&whole)?,
        (false, true) => Weights::open_shards(&index)?,
        (false, false) => return Err(no_weights(path)),
    };
    let tokenizer = path.join("tokenizer.json");
    let tokenizer = tokenizer.exists().then(|| Tokenizer::from_file(&tokenizer)).transpose()?;
    let beside::Beside { chat, bos, eos } = beside::read(path, tokenizer.as_ref())?;
    Ok(Loaded { model: load(keys, &weights)?, tokenizer, chat, bos, eos })
}

/// What loads the `model_type` of a config.
fn family(keys: &mut Keys, path: &Path) -> Result<Loader> {
    let family = keys.text("model_type")?;
    let found = FAMILIES.iter().find(|(name, _)| *name == family);
    found.map(|(_, load)| *load).ok_or_else(|| {
        let known = FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        Error::request(
            format!(
                "{} says model_type {}, an architecture glasshead does not run",
                path.display(),
                shown(&family)
            ),
            format!("the architectures it runs: {known}"),
        )
    })
}

/// By its name, or by the four letters it begins with.
fn is_gguf(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    let begins = || {
        let mut letters = [0; 4];
        File::open(path).and_then(|mut file| file.read_exact(&mut letters)).is_ok() && &letters == b"GGUF"
    };
    path.is_file() && (named || begins())
}

fn not_a_model(path: &Path) -> Error {
    let what = path.display();
    let hint = "give a folder with config.json, model.safetensors and tokenizer.json, or a .gguf file";
    if path.exists() {
        Error::request(format!("{what} is a file, not a model folder, and not GGUF"), hint)
    } else {
        Error::request(format!("there is no model folder or file {what}"), hint)
    }
}

fn no_weights(path: &Path) -> Error {
    let has = |name: &str| path.join(name).exists();
    let what = path.display();
    if has("pytorch_model.bin") {
        return Error::request(
            format!("{what} has its weights in pytorch_model.bin only, a pickle file, which can run code"),
            "convert it to model.safetensors",
        );
    }
    Error::request(
        format!("the model folder {what} has no model.safetensors"),
        "a model folder holds config.json, model.safetensors and tokenizer.json",
    )
}
