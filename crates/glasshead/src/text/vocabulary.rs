//! The tokenizer that a GGUF file carries in its metadata, built in memory.
//!
//! Three kinds: byte-level BPE (`gpt2`), BPE over characters with scores in place of merges (`llama`, that is
//! SentencePiece), and WordPiece (`bert`). Where the files say less than a `tokenizer.json`, what is missing
//! is what the authors of the models published; what cannot be known is refused by name.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{BertNormalizer, NFC, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::fence::fenced;
use super::tokens::{Tokenizer, one_line};
use crate::weights::{Gguf, shown};
use crate::{Error, Result};

/// How the text is cut before byte pairs are merged, by `tokenizer.ggml.pre`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// As GPT-2.
    Gpt2,
    /// As GPT-2, but every digit alone.
    Digits,
    /// By a regular expression of its own.
    Regex(&'static str),
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What one value of `tokenizer.ggml.pre` stands for.
struct Variant {
    names: &'static [&'static str],
    cut: Cut,
    /// The text is composed first (é is one character).
    composed: bool,
    /// A word that is a token is that token, whatever the merges say.
    whole_words: bool,
    /// Whether a beginning is added where the file does not say.
    add_bos: bool,
}

const VARIANTS: &[Variant] = &[
    Variant { names: &["gpt-2"], cut: Cut::Gpt2, composed: false, whole_words: false, add_bos: false },
    Variant { names: &["smollm"], cut: Cut::Digits, composed: false, whole_words: false, add_bos: false },
    Variant {
        names: &["llama-bpe", "llama3", "llama-v3"],
        cut: Cut::Regex(LLAMA3),
        composed: false,
        whole_words: true,
        add_bos: true,
    },
    Variant {
        names: &["qwen2", "deepseek-r1-qwen"],
        cut: Cut::Regex(QWEN2),
        composed: true,
        whole_words: false,
        add_bos: false,
    },
];

/// `tokenizer.ggml.token_type`, as far as it matters here.
const NORMAL: i128 = 1;
const UNKNOWN: i128 = 2;
const CONTROL: i128 = 3;
const OWN: i128 = 4;

/// Longer tokens of a vocabulary with scores are refused: every place where one can be cut is tried.
const LONGEST_SCORED: usize = 256;

impl Tokenizer {
    /// The tokenizer in the metadata of a GGUF file; `None` if it has none.
    ///
    /// # Errors
    /// A kind of tokenizer, or a way to cut the text first, that is not known; lists that do not fit together.
    pub fn from_gguf(file: &Gguf) -> Result<Option<Self>> {
        let Some(kind) = file.text("tokenizer.ggml.model")? else { return Ok(None) };
        let parts = Parts::read(file)?;
        // Builders of the crate panic on some input; the fence makes a sentence of that.
        let built = fenced(|| match kind {
            "gpt2" => parts.byte_level(),
            "llama" => parts.scored(),
            "bert" => parts.word_piece(),
            _ => Err(parts.refused(
                "tokenizer.ggml.model",
                &format!("is {}, a kind of tokenizer that is not read", shown(kind)),
                "the kinds that are read: gpt2, llama, bert",
            )),
        });
        built.unwrap_or_else(|| Err(parts.failed("one of its parts is broken"))).map(Some)
    }
}

/// What the metadata says.
struct Parts<'a> {
    file: &'a Gguf,
    tokens: Vec<&'a str>,
    types: Vec<i128>,
    pre: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn read(file: &'a Gguf) -> Result<Self> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const TYPES: &str = "tokenizer.ggml.token_type";
        let tokens = file.texts(TOKENS)?.ok_or_else(|| file.missing(TOKENS))?;
        if u32::try_from(tokens.len()).is_err() || tokens.is_empty() {
            return Err(file.wrong(TOKENS, "has no tokens, or more than 2^32"));
        }
        let types = file.integers(TYPES)?.unwrap_or_else(|| vec![NORMAL; tokens.len()]);
        if types.len() != tokens.len() {
            return Err(file.wrong(TYPES, &format!("has {} types for {} tokens", types.len(), tokens.len())));
        }
        Ok(Self { file, tokens, types, pre: file.text("tokenizer.ggml.pre")? })
    }

    fn refused(&self, key: &str, what: &str, hint: &str) -> Error {
        let path = self.file.path().display();
        Error::request(format!("{path} has a metadata key {} that {what}", shown(key)), hint)
    }

    fn failed(&self, cause: &str) -> Error {
        Error::request(
            format!("the tokenizer in {} is broken: {}", self.file.path().display(), one_line(cause)),
            "use a file converted from the original checkpoint",
        )
    }

    /// Id and name of the token that a key names.
    fn named(&self, key: &str) -> Result<Option<(u32, String)>> {
        let Some(id) = self.file.count(key)? else { return Ok(None) };
        let name = usize::try_from(id).ok().and_then(|id| self.tokens.get(id));
        match name {
            Some(name) => Ok(Some((id as u32, (*name).to_owned()))),
            None => {
                Err(self.file.wrong(key, &format!("is {id}, not one of the {} tokens", self.tokens.len())))
            }
        }
    }

    /// The token that is added at an end of every text: if the file says so, or else by `default`.
    fn added(&self, flag: &str, key: &str, default: bool) -> Result<Option<(u32, String)>> {
        if !self.file.flag(flag)?.unwrap_or(default) {
            return Ok(None);
        }
        // Where adding is only our default, a file without such a token has nothing to add.
        match self.named(key)? {
            None if self.file.flag(flag)?.is_some() => Err(self.file.missing(key)),
            token => Ok(token),
        }
    }

    fn vocabulary(&self, spelled: impl Fn(&str, i128) -> String) -> Vocab {
        let mut vocabulary = Vocab::default();
        vocabulary.reserve(self.tokens.len());
        for ((token, kind), id) in self.tokens.iter().zip(&self.types).zip(0..) {
            // A name that comes twice is its first token.
            vocabulary.entry(spelled(token, *kind)).or_insert(id);
        }
        vocabulary
    }

    /// The last steps, which all kinds share.
    fn finish(
        &self,
        mut inner: tokenizers::Tokenizer,
        before: Option<(u32, String)>,
        after: Option<(u32, String)>,
    ) -> Result<Tokenizer> {
        let added = |special: bool| {
            let wanted =
                move |kind: i128| if special { kind == CONTROL || kind == UNKNOWN } else { kind == OWN };
            let names = self.tokens.iter().zip(&self.types).filter(move |(_, kind)| wanted(**kind));
            names.map(move |(name, _)| AddedToken::from(*name, special).normalized(false)).collect::<Vec<_>>()
        };
        inner.add_special_tokens(added(true)).map_err(|cause| self.failed(&cause.to_string()))?;
        inner.add_tokens(added(false)).map_err(|cause| self.failed(&cause.to_string()))?;
        let name = format!("the tokenizer in {}", self.file.path().display());
        Ok(Tokenizer::framed(name, inner, before, after))
    }

    /// BPE over bytes, with merges.
    fn byte_level(&self) -> Result<Tokenizer> {
        const PRE: &str = "tokenizer.ggml.pre";
        const MERGES: &str = "tokenizer.ggml.merges";
        let gpt2 = self.file.text("general.architecture")? == Some("gpt2");
        let Some(pre) = self.pre.or(gpt2.then_some("gpt-2")) else { return Err(self.file.missing(PRE)) };
        let variant = VARIANTS.iter().find(|variant| variant.names.contains(&pre)).ok_or_else(|| {
            let known =
                VARIANTS.iter().flat_map(|variant| variant.names).copied().collect::<Vec<_>>().join(", ");
            self.refused(
                PRE,
                &format!("is {}, a way to cut the text that is not known", shown(pre)),
                &format!("known: {known}; a folder with the model's tokenizer.json works for any"),
            )
        })?;
        let merges = self.file.texts(MERGES)?.ok_or_else(|| self.file.missing(MERGES))?;
        let merges = merges.iter().map(|merge| {
            // The second half begins behind the first blank that is not the first letter.
            let cut = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ').map(|(at, _)| at);
            let halves =
                cut.and_then(|at| Some((merge.get(..at)?.to_owned(), merge.get(at + 1..)?.to_owned())));
            halves
                .ok_or_else(|| self.file.wrong(MERGES, &format!("has a merge {} of one part", shown(merge))))
        });
        let merges = merges.collect::<Result<Vec<_>>>()?;
        let model = BPE::builder()
            .vocab_and_merges(self.vocabulary(|token, _| token.to_owned()), merges)
            .ignore_merges(variant.whole_words)
            .build();
        let mut inner = tokenizers::Tokenizer::new(model.map_err(|cause| self.failed(&cause.to_string()))?);
        if variant.composed {
            inner.with_normalizer(Some(NFC)).map_err(|cause| self.failed(&cause.to_string()))?;
        }
        let cut: PreTokenizerWrapper = match variant.cut {
            Cut::Gpt2 => ByteLevel::new(false, false, true).into(),
            Cut::Digits => {
                Sequence::new(vec![Digits::new(true).into(), ByteLevel::new(false, false, true).into()])
                    .into()
            }
            Cut::Regex(regex) => {
                let pattern = SplitPattern::Regex(regex.to_owned());
                let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
                let split = split.map_err(|cause| self.failed(&cause.to_string()))?;
                Sequence::new(vec![split.into(), ByteLevel::new(false, false, false).into()]).into()
            }
        };
        inner.with_pre_tokenizer(Some(cut));
        inner.with_decoder(Some(ByteLevel::new(false, false, false)));
        let bos =
            self.added("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", variant.add_bos)?;
        let eos = self.added("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false)?;
        self.finish(inner, bos, eos)
    }

    /// BPE over characters: of all pairs that make a token, the one with the best score is merged first.
    fn scored(&self) -> Result<Tokenizer> {
        const SCORES: &str = "tokenizer.ggml.scores";
        self.default_pre()?;
        let scores = self.file.floats(SCORES)?.ok_or_else(|| self.file.missing(SCORES))?;
        if scores.len() != self.tokens.len() {
            return Err(self
                .file
                .wrong(SCORES, &format!("has {} scores for {} tokens", scores.len(), self.tokens.len())));
        }
        let vocabulary = self.vocabulary(|token, _| token.to_owned());
        let normal = |piece: &str| {
            let id = vocabulary.get(piece).copied()?;
            (self.types.get(id as usize) == Some(&NORMAL)).then_some(id)
        };
        let mut merges = Vec::new();
        for ((token, kind), score) in self.tokens.iter().zip(&self.types).zip(&scores) {
            if *kind != NORMAL {
                continue;
            }
            if token.len() > LONGEST_SCORED {
                let what = format!("has a token {} of more than {LONGEST_SCORED} bytes", shown(token));
                return Err(self.file.wrong("tokenizer.ggml.tokens", &what));
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if let (Some(first), Some(second)) = (normal(left), normal(right)) {
                    merges.push((*score, first, second, left, right));
                }
            }
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let merges =
            merges.iter().map(|(.., left, right)| ((*left).to_owned(), (*right).to_owned())).collect();
        let mut builder =
            BPE::builder().vocab_and_merges(vocabulary.clone(), merges).byte_fallback(true).fuse_unk(true);
        if let Some((_, unknown)) = self.named("tokenizer.ggml.unknown_token_id")? {
            builder = builder.unk_token(unknown);
        }
        let mut inner =
            tokenizers::Tokenizer::new(builder.build().map_err(|cause| self.failed(&cause.to_string()))?);
        let blank = Replace::new(" ", "▁").map_err(|cause| self.failed(&cause.to_string()))?;
        let prefixed = self.file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let steps = if prefixed {
            Normalizers::new(vec![Prepend::new("▁".to_owned()).into(), blank.into()])
        } else {
            Normalizers::new(vec![blank.into()])
        };
        inner.with_normalizer(Some(steps)).map_err(|cause| self.failed(&cause.to_string()))?;
        let blank = Replace::new("▁", " ").map_err(|cause| self.failed(&cause.to_string()))?;
        let mut back = vec![blank.into(), ByteFallback::new().into(), Fuse::new().into()];
        if prefixed {
            // The blank in front of a text is none of its own.
            back.push(Strip::new(' ', 1, 0).into());
        }
        inner.with_decoder(Some(Decoders::new(back)));
        let bos = self.added("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", true)?;
        let eos = self.added("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false)?;
        self.finish(inner, bos, eos)
    }

    /// WordPiece. In the files a token that begins a word has a ▁ in front, where BERT marks the others by ##.
    fn word_piece(&self) -> Result<Tokenizer> {
        self.default_pre()?;
        let unknown = self
            .named("tokenizer.ggml.unknown_token_id")?
            .map_or_else(|| "[UNK]".to_owned(), |token| token.1);
        let bracketed = |token: &str| token.starts_with('[') && token.ends_with(']');
        let vocabulary = self.vocabulary(|token, kind| match token.strip_prefix('▁') {
            Some(start) => start.to_owned(),
            None if kind != NORMAL || bracketed(token) => token.to_owned(),
            None => format!("##{token}"),
        });
        let model = WordPiece::builder().vocab(vocabulary).unk_token(unknown).build();
        let mut inner = tokenizers::Tokenizer::new(model.map_err(|cause| self.failed(&cause.to_string()))?);
        // Not in the files: a vocabulary without a capital letter is one of lower-case text.
        let names = self.tokens.iter().zip(&self.types);
        let capitals = names.filter(|(token, kind)| **kind == NORMAL && !bracketed(token));
        let cased = capitals.flat_map(|(token, _)| token.chars()).any(char::is_uppercase);
        let normalizer = BertNormalizer::new(true, true, None, !cased);
        inner.with_normalizer(Some(normalizer)).map_err(|cause| self.failed(&cause.to_string()))?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        let first = |keys: [&str; 3]| -> Result<Option<(u32, String)>> {
            for key in keys {
                if let Some(token) = self.named(key)? {
                    return Ok(Some(token));
                }
            }
            Ok(None)
        };
        let start = first(["tokenizer.ggml.cls_token_id", "tokenizer.ggml.bos_token_id", ""])?;
        // The key was misspelt for years.
        let end = first([
            "tokenizer.ggml.seperator_token_id",
            "tokenizer.ggml.separator_token_id",
            "tokenizer.ggml.eos_token_id",
        ])?;
        self.finish(inner, start, end)
    }

    /// Kinds of tokenizer that cut the text in one way only.
    fn default_pre(&self) -> Result<()> {
        match self.pre {
            None | Some("default") => Ok(()),
            Some(pre) => Err(self.refused(
                "tokenizer.ggml.pre",
                &format!("is {}, a way to cut the text that is not known", shown(pre)),
                "known for this kind of tokenizer: default; a folder with the model's tokenizer.json works for any",
            )),
        }
    }
}
