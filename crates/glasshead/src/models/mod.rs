//! Models that show their attention while they run: q, k and v of every layer, as the engine gets them.
//!
//! Each family is one file that reads like its paper: config → load → forward. A checkpoint that any of
//! them would compute differently from its authors is refused by name instead.

mod bert;
mod config;
mod layers;

use std::ops::ControlFlow;
use std::path::Path;

use glasshead_attention::{Array, Attention, Read};

use crate::text::Tokenizer;
use crate::weights::{Weights, shown};
use crate::{Error, Result};
pub use config::Keys;

/// A model that shows its attention while it runs.
pub trait Model: Send + Sync + std::fmt::Debug {
    /// Its sizes and its identity.
    fn info(&self) -> &Info;

    /// Runs the model over token ids, special tokens included, and shows every layer to `watch`.
    ///
    /// # Errors
    /// No ids, an id outside the vocabulary, more ids than the model has positions. Nothing is cut.
    fn forward(&self, ids: &[u32], watch: &mut dyn Watch) -> Result<()>;
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
    /// The longest input, in tokens, special ones included.
    pub max_tokens: usize,
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
        let Self { family, max_tokens, vocabulary, .. } = self;
        if ids.is_empty() {
            return Err(Error::request("there are no tokens to read", "give a text with at least one word"));
        }
        if ids.len() > *max_tokens {
            return Err(Error::request(
                format!("the text has {} tokens; this {family} model reads at most {max_tokens}", ids.len()),
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

/// One layer's attention, as it is about to be computed.
#[derive(Clone, Debug)]
pub struct LayerView<'a> {
    /// The layer, from 0.
    pub layer: usize,
    /// `[tokens, hidden]`: what enters the layer.
    pub input: &'a [f32],
    /// q `[1, heads, tokens, head_dim]`, k and v `[1, kv_heads, tokens, head_dim]`, scale and mask.
    pub attention: &'a Attention<'a, f32>,
}

/// Whoever looks on.
pub trait Watch {
    /// A layer is about to compute its attention: what to read out of it in the same pass. `Break` ends the
    /// pass here: later layers are not needed.
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read>;

    /// The layer's attention has been computed, and read out as asked for, `[1, heads, …]`.
    fn seen(&mut self, layer: usize, readouts: Vec<Array>) {
        let _ = (layer, readouts);
    }

    /// The pass has gone through; `last_hidden` is `[tokens, hidden]`.
    fn finished(&mut self, last_hidden: &[f32]) {
        let _ = last_hidden;
    }
}

/// A model from a folder, and the tokenizer that lies beside it.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Box<dyn Model>,
    /// Its tokenizer; `None` if the folder has no `tokenizer.json` (token ids need none).
    pub tokenizer: Option<Tokenizer>,
}

type Loader = fn(Keys, &Weights) -> Result<Box<dyn Model>>;

/// Every `model_type` that can be run. Families with the same forward share its file.
const FAMILIES: &[(&str, Loader)] = &[
    ("bert", bert::load_bert),
    ("roberta", bert::load_roberta),
    ("xlm-roberta", bert::load_xlm_roberta),
    ("camembert", bert::load_camembert),
    ("distilbert", bert::load_distilbert),
];

/// Loads a model from a folder with `config.json`, `model.safetensors` and, if text is to be read,
/// `tokenizer.json`.
///
/// # Errors
/// A file that is missing or broken; an architecture, config key or format that is not supported.
pub fn load(path: &Path) -> Result<Loaded> {
    if !path.is_dir() {
        return Err(not_a_folder(path));
    }
    let config = path.join("config.json");
    if !config.exists() {
        return Err(Error::request(
            format!("the model folder {} has no config.json", path.display()),
            "a model folder holds config.json, model.safetensors and tokenizer.json",
        ));
    }
    let mut keys = Keys::read(&config)?;
    let family = keys.text("model_type")?;
    let Some((_, load)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        let known = FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(Error::request(
            format!(
                "{} says model_type {}, an architecture glasshead does not run",
                config.display(),
                shown(&family)
            ),
            format!("the architectures it runs: {known}"),
        ));
    };
    let weights = path.join("model.safetensors");
    if !weights.exists() {
        return Err(no_weights(path));
    }
    let weights = Weights::open(&weights)?;
    let tokenizer = path.join("tokenizer.json");
    let tokenizer = tokenizer.exists().then(|| Tokenizer::from_file(&tokenizer)).transpose()?;
    Ok(Loaded { model: load(keys, &weights)?, tokenizer })
}

fn not_a_folder(path: &Path) -> Error {
    let what = path.display();
    let hint = "give a folder with config.json, model.safetensors and tokenizer.json";
    if !path.exists() {
        Error::request(format!("there is no model folder {what}"), hint)
    } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        Error::request(format!("{what} is a GGUF file, a format glasshead does not read yet"), hint)
    } else {
        Error::request(format!("{what} is a file, not a model folder"), hint)
    }
}

fn no_weights(path: &Path) -> Error {
    let has = |name: &str| path.join(name).exists();
    let what = path.display();
    if has("model.safetensors.index.json") {
        return Error::request(
            format!("the checkpoint in {what} is split over several files, which glasshead does not read"),
            "join its parts into one model.safetensors (load it and save it with a larger max_shard_size)",
        );
    }
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
