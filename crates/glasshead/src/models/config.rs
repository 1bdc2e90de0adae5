//! `config.json`, read strictly: every key is either used, or known not to matter, or refused. A key
//! that changes the numbers and is ignored would make every picture of the model a picture of another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::weights::{read_small, shown};
use crate::{Error, Result};

/// The keys of a config that nobody has asked for yet.
#[derive(Clone, Debug)]
pub struct Keys {
    path: PathBuf,
    /// Empty, or `rope_scaling.` for the keys of an object inside.
    within: String,
    left: Map<String, Value>,
    asked: BTreeSet<String>,
}

/// Keys of any model that have no influence on what a forward computes from token ids in eval mode.
#[rustfmt::skip] // grouped by reason
const WITHOUT_INFLUENCE: &[&str] = &[
    // Where it comes from.
    "architectures", "_name_or_path", "name_or_path", "transformers_version", "finetuning_task",
    "task_specific_params", "dtype", "torch_dtype", "torchscript", "_attn_implementation",
    "_attn_implementation_autoset", "attn_implementation", "auto_map", "is_llama_config",
    "transformers.js_config", "unsloth_fixed", "unsloth_version",
    // Training.
    "attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout", "attention_dropout",
    "dropout", "qa_dropout", "seq_classif_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "initializer_range", "initializer_factor",
    "gradient_checkpointing", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj",
    // Heads on top of the encoder: classifier, language model, pooler.
    "id2label", "label2id", "num_labels", "problem_type", "tie_word_embeddings", "tie_weights_",
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type",
    // How results are handed over, and the same sums in smaller portions.
    "use_cache", "output_past", "output_attentions", "output_hidden_states", "return_dict",
    "use_return_dict", "chunk_size_feed_forward", "pretraining_tp", "cache_implementation", "n_ctx",
    // Ids of special tokens: the tokenizer sets them.
    "pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
    "unk_token_id", "decoder_start_token_id", "tokenizer_class", "prefix",
    // Generation, which is not done here.
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "cross_attention_hidden_size", "tie_encoder_decoder", "tf_legacy_loss",
    "use_bfloat16",
];

impl Keys {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A file that is missing, larger than a config can be, or not a JSON object.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&read_small(path, MAX_FILE)?, path)
    }

    /// The same from memory; `path` is what errors call it.
    ///
    /// # Errors
    /// Bytes that are not a JSON object.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let refused = |what: &str| {
            Error::request(
                format!("{} is not {what}", path.display()),
                "use the config.json that belongs to the model",
            )
        };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(left)) => {
                Ok(Self { path: path.to_owned(), within: String::new(), left, asked: BTreeSet::new() })
            }
            Ok(_) => Err(refused("a JSON object")),
            Err(cause) => Err(refused(&format!("JSON: {cause}"))),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.asked.insert(key.to_owned());
        // `null` is how a config says "not set".
        self.left.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, value: &Value, wanted: &str) -> Error {
        Error::request(
            format!(
                "config key `{}{key}` of {} is {}, not {wanted}",
                self.within,
                self.path.display(),
                brief(value)
            ),
            "use the config.json that belongs to the model",
        )
    }

    fn missing(&self, key: &str) -> Error {
        Error::request(
            format!("config key `{}{key}` is missing in {}", self.within, self.path.display()),
            "use the config.json that belongs to the model",
        )
    }

    /// A needed text.
    ///
    /// # Errors
    /// The key is missing or no text.
    pub fn text(&mut self, key: &str) -> Result<String> {
        match self.take(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(key, &other, "a text")),
            None => Err(self.missing(key)),
        }
    }

    /// A needed size, at least 1.
    ///
    /// # Errors
    /// The key is missing, or no whole number from 1 on.
    pub fn size(&mut self, key: &str) -> Result<usize> {
        let value = self.take(key).ok_or_else(|| self.missing(key))?;
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|&size| size > 0).ok_or_else(|| self.wrong(key, &value, "a whole number from 1 on"))
    }

    /// A size, at least 1, or what it is when the key is not there.
    ///
    /// # Errors
    /// No whole number from 1 on.
    pub fn size_or(&mut self, key: &str, default: usize) -> Result<usize> {
        if self.given(key) { self.size(key) } else { Ok(default) }
    }

    /// A size that may be switched off by `null`, where a missing key means `default`.
    ///
    /// # Errors
    /// Neither `null` nor a whole number from 1 on.
    pub fn size_unless_null(&mut self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        let default = default.filter(|_| !self.left.contains_key(key));
        if self.given(key) { self.size(key).map(Some) } else { Ok(default) }
    }

    /// Whether the key is there, and not `null`.
    pub fn sets(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(|value| !value.is_null())
    }

    /// The same, and that somebody has asked.
    fn given(&mut self, key: &str) -> bool {
        self.asked.insert(key.to_owned());
        self.sets(key)
    }

    /// A whole number from 0 on, or what it is when the key is not there.
    ///
    /// # Errors
    /// Something else.
    pub fn count_or(&mut self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| self.wrong(key, &value, "a whole number"))
    }

    /// Takes note of a yes or no that makes no difference here.
    ///
    /// # Errors
    /// Something else than a yes or no.
    pub fn flag(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, &value, "true or false")),
        }
    }

    /// A yes or no, or what it is when the key is not there.
    ///
    /// # Errors
    /// Something else than a yes or no.
    pub fn flag_or(&mut self, key: &str, default: bool) -> Result<bool> {
        if self.given(key) { self.flag(key) } else { Ok(default) }
    }

    /// A positive number; `None` when the key is not there.
    ///
    /// # Errors
    /// Something else.
    pub fn positive(&mut self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_f64().filter(|number| *number > 0.0 && number.is_finite());
        number.map(Some).ok_or_else(|| self.wrong(key, &value, "a positive number"))
    }

    /// A positive number that may be switched off by `null`, where a missing key means `default`.
    ///
    /// # Errors
    /// Neither `null` nor a positive number.
    pub fn positive_unless_null(&mut self, key: &str, default: f64) -> Result<Option<f64>> {
        if self.left.contains_key(key) { self.positive(key) } else { Ok(Some(default)) }
    }

    /// A number; `None` when the key is not there.
    ///
    /// # Errors
    /// Something else.
    pub fn number(&mut self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, &value, "a number"))
    }

    /// A needed positive number.
    ///
    /// # Errors
    /// The key is missing, or something else.
    pub fn needed_positive(&mut self, key: &str) -> Result<f64> {
        self.positive(key)?.ok_or_else(|| self.missing(key))
    }

    /// A needed list of `len` positive numbers.
    ///
    /// # Errors
    /// The key is missing, something else, or another number of them.
    pub fn positives(&mut self, key: &str, len: usize) -> Result<Vec<f64>> {
        let value = self.take(key).ok_or_else(|| self.missing(key))?;
        let number = |value: &Value| value.as_f64().filter(|number| *number > 0.0 && number.is_finite());
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|list| list.iter().map(number).collect());
        numbers
            .filter(|numbers| numbers.len() == len)
            .ok_or_else(|| self.wrong(key, &value, &format!("a list of {len} positive numbers")))
    }

    /// A list of words, each one of those that are known; `None` when the key is not there.
    ///
    /// # Errors
    /// Something else, or another word.
    pub fn words<T: Copy>(&mut self, key: &str, known: &[(&str, T)]) -> Result<Option<Vec<T>>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let list = value.as_array().ok_or_else(|| self.wrong(key, &value, "a list"))?;
        let meaning = |word: &Value| {
            let found = known.iter().find(|(known, _)| word.as_str() == Some(known));
            let known = || words(known.iter().map(|(word, _)| *word));
            found.map(|(_, meaning)| *meaning).ok_or_else(|| self.unsupported(key, word, &known()))
        };
        list.iter().map(meaning).collect::<Result<_>>().map(Some)
    }

    /// The keys of an object inside; `None` when the key is not there.
    ///
    /// # Errors
    /// No object.
    pub fn object(&mut self, key: &str) -> Result<Option<Self>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(left)) => Ok(Some(Self {
                path: self.path.clone(),
                within: format!("{}{key}.", self.within),
                left,
                asked: BTreeSet::new(),
            })),
            Some(other) => Err(self.wrong(key, &other, "an object")),
        }
    }

    /// A small positive number, or what it is when the key is not there.
    ///
    /// # Errors
    /// Something else.
    pub fn epsilon_or(&mut self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let epsilon = value.as_f64().filter(|epsilon| *epsilon >= 0.0 && *epsilon < 1.0);
        epsilon.ok_or_else(|| self.wrong(key, &value, "a number from 0 to 1"))
    }

    /// What one of several words means; `None` when the key is not there.
    ///
    /// # Errors
    /// Another word: the forward does not do that.
    pub fn one_of<T: Copy>(&mut self, key: &str, known: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let found = known.iter().find(|(word, _)| value.as_str() == Some(word));
        match found {
            Some(&(_, meaning)) => Ok(Some(meaning)),
            None => Err(self.unsupported(key, &value, &words(known.iter().map(|(word, _)| *word)))),
        }
    }

    /// A key that may be there, but only with this value (or `null`): any other changes the forward.
    ///
    /// # Errors
    /// Another value.
    pub fn only(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        match self.take(key) {
            Some(other) if other != value => Err(self.unsupported(key, &other, &brief(&value))),
            _ => Ok(()),
        }
    }

    /// The sentence for a value that asks for something the forward does not do.
    fn unsupported(&self, key: &str, value: &Value, known: &str) -> Error {
        Error::request(
            format!(
                "config key `{}{key}` of {} is {}, which is not supported",
                self.within,
                self.path.display(),
                brief(value)
            ),
            format!(
                "supported: {known}; another value would give other numbers than the model's authors meant"
            ),
        )
    }

    /// The end of reading: what is left must be known to have no influence.
    ///
    /// # Errors
    /// A key that the forward of `family` does not know.
    pub fn finish(self, family: &str) -> Result<()> {
        let known =
            |key: &&String| WITHOUT_INFLUENCE.contains(&key.as_str()) || self.asked.contains(key.as_str());
        match self.left.keys().find(|key| !known(key)) {
            None => Ok(()),
            Some(key) => Err(Error::request(
                format!(
                    "config key {} of {} is not known to the {family} forward",
                    shown(&format!("{}{key}", self.within)),
                    self.path.display()
                ),
                "it may change what the model computes; remove it from the file if you are sure that it does not",
            )),
        }
    }

    /// A sentence about sizes that contradict each other.
    pub fn contradiction(&self, what: &str) -> Error {
        Error::request(
            format!("{} {what}", self.path.display()),
            "use the config.json that belongs to the model",
        )
    }
}

/// The largest config.json we read, in bytes; label lists can make them long.
const MAX_FILE: u64 = 4 << 20;

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(60).chain(['…']).collect()
}
