//! A GGUF file as the families see it: its metadata as the keys of a `config.json`, its tensors under the
//! names and in the form in which the authors of the model published them.
//!
//! As strict as `config.json` is read: a key of the architecture that is neither used nor known not to matter
//! is refused by name, and so is a tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Keys;
use super::gguf_names::{ARCHITECTURES, Architecture, Form};
use crate::text::{ChatTemplate, Tokenizer};
use crate::weights::{Gguf, Origin, Undo, Weights, shown};
use crate::{Error, Result};

/// What a GGUF file holds of a model.
#[derive(Debug)]
pub struct Opened {
    /// Its metadata, as a `config.json` would say it.
    pub keys: Keys,
    /// Its tensors, by the names of the published checkpoint.
    pub weights: Weights,
    /// Its tokenizer, if it has one.
    pub tokenizer: Option<Tokenizer>,
    /// Its chat template, if it has one.
    pub chat: Option<ChatTemplate>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The tokens that end a text or a turn.
    pub eos: Vec<u32>,
}

/// Opens a GGUF file without building the model: [`super::load`] does both.
///
/// # Errors
/// A file that is broken or lies; an architecture, metadata key or tensor that is not known.
pub fn open_gguf(path: &Path) -> Result<Opened> {
    let file = Arc::new(Gguf::open(path)?);
    const TYPE: &str = "general.type";
    if file.text(TYPE)?.is_some_and(|kind| kind != "model") {
        return Err(file.wrong(TYPE, "is not `model`: the file is an addition to a model, not one"));
    }
    if file.count("split.count")?.is_some_and(|parts| parts > 1) {
        return Err(refused(
            &file,
            "is one part of a model that is split over several GGUF files",
            "join them with llama-gguf-split --merge",
        ));
    }
    let name = file.text("general.architecture")?.ok_or_else(|| file.missing("general.architecture"))?;
    let Some(architecture) = ARCHITECTURES.iter().find(|known| known.name == name) else {
        let known = ARCHITECTURES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        return Err(refused(
            &file,
            &format!("has the architecture {}, which glasshead does not run", shown(name)),
            &format!("the architectures it reads from GGUF files: {known}"),
        ));
    };
    let mut facts = Facts { file: &file, architecture, asked: BTreeSet::new() };
    let config = (architecture.config)(&mut facts)?;
    facts.finish()?;
    let names = names(&file, architecture, &config)?;
    let keys = Keys::parse(Value::Object(config).to_string().as_bytes(), path)?;
    let tokenizer = Tokenizer::from_gguf(&file)?;
    let id = |key: &str| -> Result<Option<u32>> {
        let id = file.count(key)?;
        id.map(|id| u32::try_from(id).map_err(|_| file.wrong(key, "is no token id"))).transpose()
    };
    let bos = id("tokenizer.ggml.bos_token_id")?;
    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"] {
        eos.extend(id(key)?.filter(|id| !eos.contains(id)));
    }
    let chat = match file.text("tokenizer.chat_template")? {
        None => None,
        Some(source) => {
            let text =
                |id: Option<u32>| id.and_then(|id| tokenizer.as_ref()?.name_of(id)).unwrap_or_default();
            let called = format!("tokenizer.chat_template of {}", path.display());
            Some(ChatTemplate::new(&called, source, &text(bos), &text(eos.first().copied())))
        }
    };
    let weights = Weights::from_gguf(Arc::clone(&file), names);
    Ok(Opened { keys, weights, tokenizer, chat, bos, eos })
}

fn refused(file: &Gguf, what: &str, hint: &str) -> Error {
    Error::request(format!("{} {what}", file.path().display()), hint)
}

/// What our families call each tensor, and what has to be undone. Every tensor of the file has to be known.
fn names(
    file: &Gguf,
    architecture: &Architecture,
    config: &Map<String, Value>,
) -> Result<BTreeMap<String, Origin>> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
    let heads = number("num_attention_heads");
    let kv_heads = number("num_key_value_heads");
    let layers = number("num_hidden_layers").max(number("n_layer"));
    let mut names = BTreeMap::new();
    for (name, _) in file.tensors() {
        if architecture.beside.iter().any(|beside| name.starts_with(beside)) {
            continue;
        }
        let Some((called, form)) = architecture.translate(name, layers) else {
            return Err(refused(
                file,
                &format!("has a tensor {} that the {} forward does not know", shown(name), architecture.name),
                "it may change what the model computes; use a file converted from the original checkpoint",
            ));
        };
        let undo = match form {
            Form::Same => Undo::Nothing,
            Form::Query => Undo::Interleaved { heads },
            Form::Key => Undo::Interleaved { heads: kv_heads },
            Form::Shifted => Undo::Shifted,
            Form::Transposed if name.ends_with(".weight") => Undo::Transposed,
            Form::Transposed => Undo::Nothing,
        };
        names.insert(called, Origin { name: name.to_owned(), undo });
    }
    Ok(names)
}

/// The metadata of one architecture, `llama.block_count` and so on, and what was asked of it.
pub(super) struct Facts<'a> {
    file: &'a Gguf,
    architecture: &'a Architecture,
    asked: BTreeSet<String>,
}

impl Facts<'_> {
    fn key(&mut self, key: &str) -> String {
        let key = format!("{}.{key}", self.architecture.name);
        self.asked.insert(key.clone());
        key
    }

    /// A whole number from 0 on, if it is there.
    pub(super) fn count(&mut self, key: &str) -> Result<Option<u64>> {
        let key = self.key(key);
        self.file.count(&key)
    }

    /// A size that has to be there, from 1 on. What is larger than any tensor can be is told here, so that
    /// products of sizes cannot overflow later.
    pub(super) fn size(&mut self, key: &str) -> Result<u64> {
        self.size_if_any(key)?.ok_or_else(|| {
            let key = self.key(key);
            self.file.missing(&key)
        })
    }

    /// The same, if it is there.
    pub(super) fn size_if_any(&mut self, key: &str) -> Result<Option<u64>> {
        const LARGEST: u64 = 1 << 31;
        let key = self.key(key);
        match self.file.count(&key)? {
            Some(size) if !(1..=LARGEST).contains(&size) => {
                Err(self.file.wrong(&key, &format!("is {size}, not a number from 1 to 2^31")))
            }
            size => Ok(size),
        }
    }

    /// A number, if it is there.
    pub(super) fn number(&mut self, key: &str) -> Result<Option<f64>> {
        let key = self.key(key);
        self.file.number(&key)
    }

    /// A number that has to be there.
    pub(super) fn needed(&mut self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| {
            let key = self.key(key);
            self.file.missing(&key)
        })
    }

    /// A word, if it is there.
    pub(super) fn word(&mut self, key: &str) -> Result<Option<String>> {
        let key = self.key(key);
        Ok(self.file.text(&key)?.map(str::to_owned))
    }

    /// A yes or no that may be there, but only like this.
    pub(super) fn only(&mut self, key: &str, value: bool) -> Result<()> {
        let key = self.key(key);
        match self.file.flag(&key)? {
            Some(other) if other != value => {
                Err(self.file.wrong(&key, &format!("is {other}, which is not supported")))
            }
            _ => Ok(()),
        }
    }

    /// The sentence for a value that the forward does not do; `what` is its end.
    pub(super) fn unsupported(&mut self, key: &str, what: &str) -> Error {
        let key = self.key(key);
        self.file.wrong(&key, what)
    }

    /// Whether the file has this tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.file.info(tensor).is_some()
    }

    /// Rows of a matrix that has to be there: `token_embd.weight` has one for each token.
    pub(super) fn rows(&self, tensor: &str) -> Result<u64> {
        let info = self.file.info(tensor);
        let info = info.ok_or_else(|| {
            refused(
                self.file,
                &format!("has no tensor {}", shown(tensor)),
                "use a file that holds a whole model",
            )
        })?;
        Ok(info.shape.first().copied().unwrap_or(0) as u64)
    }

    /// The numbers of a small tensor, if it is there: factors of the rotary frequencies.
    pub(super) fn factors(&self, tensor: &str, count: u64) -> Result<Option<Value>> {
        let Some(info) = self.file.info(tensor) else { return Ok(None) };
        if info.shape != [count as usize] {
            let what = format!("has a tensor {} that is no list of {count} numbers", shown(tensor));
            return Err(refused(self.file, &what, "use a file converted from the original checkpoint"));
        }
        let factors = self.file.values(info)?;
        if factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            let what = format!("has a factor in {} that is not a positive number", shown(tensor));
            return Err(refused(self.file, &what, "use a file converted from the original checkpoint"));
        }
        Ok(Some(json!(factors.iter().map(|factor| shortest(*factor)).collect::<Vec<_>>())))
    }

    /// The end of reading: what is left must be known to have no influence.
    fn finish(self) -> Result<()> {
        let prefix = format!("{}.", self.architecture.name);
        let unknown = |key: &&str| {
            let own = key.strip_prefix(&prefix);
            own.is_some_and(|own| !WITHOUT_INFLUENCE.contains(&own)) && !self.asked.contains(*key)
        };
        match self.file.keys().find(unknown) {
            None => Ok(()),
            Some(key) => Err(refused(
                self.file,
                &format!(
                    "has a metadata key {} that the {} forward does not know",
                    shown(key),
                    self.architecture.name
                ),
                "it may change what the model computes; use a file converted from the original checkpoint",
            )),
        }
    }
}

/// Keys of any architecture that change nothing of what a forward computes from token ids.
const WITHOUT_INFLUENCE: &[&str] = &[
    "vocab_size",
    "rope.scaling.finetuned",
    "pooling_type",
    "tensor_data_layout",
    "classifier.output_labels",
];

/// The `f64` that is written like this `f32`.
pub(super) fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}
