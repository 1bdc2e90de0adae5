//! Tokens with their bytes in the text: a `tokenizer.json` behind the few things we ask of it.

use std::ops::Range;
use std::path::Path;

use super::fence::fenced;
use crate::{Error, Result};

/// One token as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The row of the model's embedding table.
    pub id: u32,
    /// The text's own bytes in `start..end`, or the name of a special token.
    pub text: String,
    /// First byte in the text; 0 for a special token.
    pub start: usize,
    /// Byte after the last one; equal to `start` for a special token.
    pub end: usize,
    /// Added by the tokenizer (`[CLS]`, `[SEP]`, …), not found in the text.
    pub special: bool,
}

/// Cuts a text into [`Token`]s, as a `tokenizer.json` or the metadata of a GGUF file says.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    name: String,
    inner: tokenizers::Tokenizer,
    /// Put in front of every text and behind it, beside what `inner` adds: id and name.
    frame: [Option<(u32, String)>; 2],
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// A file that cannot be read, is not JSON or is not a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = crate::weights::read_small(path, MAX_FILE)?;
        Self::from_bytes(&bytes, &path.display().to_string())
    }

    /// The same from memory; `name` is what errors call it.
    ///
    /// # Errors
    /// Bytes that are not a tokenizer.
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self> {
        let refused = |cause: &str| {
            Error::request(
                format!("{name} is not a tokenizer: {}", one_line(cause)),
                "use the tokenizer.json that belongs to the model (the format of Hugging Face tokenizers)",
            )
        };
        // A file that is cut off is told here with its place; the crate panics on some of them.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes)
            .map_err(|cause| refused(&format!("it is not JSON ({cause})")))?;
        let inner = fenced(|| tokenizers::Tokenizer::from_bytes(bytes))
            .ok_or_else(|| refused("one of its parts is broken"))?
            .map_err(|cause| refused(&cause.to_string()))?;
        let mut tokenizer = Self { name: name.to_owned(), inner, frame: [None, None] };
        // A file may say "cut after 128, pad to 128" (MiniLM's does). That is a habit of its training batches;
        // the limit of the model is its number of positions, and a cut nobody sees would be a lie.
        tokenizer.inner.with_padding(None);
        if let Err(cause) = tokenizer.inner.with_truncation(None) {
            return Err(tokenizer.failed(&cause.to_string()));
        }
        Ok(tokenizer)
    }

    /// A tokenizer that was built in memory; `before` and `after` are put around every text.
    pub(super) fn framed(
        name: String,
        inner: tokenizers::Tokenizer,
        before: Option<(u32, String)>,
        after: Option<(u32, String)>,
    ) -> Self {
        Self { name, inner, frame: [before, after] }
    }

    /// The name of a token, as the vocabulary spells it.
    pub fn name_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The token of that name.
    pub fn id_of(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// The token that stands for all that the vocabulary lacks, by the name of its kind of vocabulary.
    pub fn unknown(&self) -> Option<u32> {
        use tokenizers::ModelWrapper;
        let name = match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
            ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
            ModelWrapper::BPE(model) => model.unk_token.as_deref(),
            // It does not say; this is what SentencePiece calls it.
            ModelWrapper::Unigram(_) => Some("<unk>"),
        };
        self.id_of(name?)
    }

    /// Cuts `text`; special tokens are added as the file says. Byte ranges lie inside the text and on
    /// character boundaries, whatever the file does.
    ///
    /// # Errors
    /// A tokenizer that cannot handle the text (for example one without a token for the unknown).
    pub fn encode(&self, text: &str) -> Result<Vec<Token>> {
        let [before, after] =
            self.frame.each_ref().map(|token| token.clone().map(|(id, text)| special(id, text)));
        let inside = self.cut(text, true)?;
        Ok(before.into_iter().chain(inside).chain(after).collect())
    }

    /// Cuts a text that has its special tokens already, as a chat template writes them: none are added.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_as_is(&self, text: &str) -> Result<Vec<Token>> {
        self.cut(text, false)
    }

    /// The text of tokens that stand behind the token `last`, and the bytes of each in it. Tokens that hold parts of
    /// one character show the whole of it. Special tokens are written by their names.
    ///
    /// # Errors
    /// A tokenizer that cannot write them.
    pub fn decode_after(&self, last: Option<u32>, ids: &[u32]) -> Result<(String, Vec<Range<usize>>)> {
        let decode = |ids: &[u32]| {
            fenced(|| self.inner.decode(ids, false))
                .ok_or_else(|| self.failed("one of its parts is broken"))?
                .map_err(|cause| self.failed(&cause.to_string()))
        };
        let (mut text, mut ranges) = (String::new(), Vec::with_capacity(ids.len()));
        // What stands before decides about blanks: many decoders drop one at the beginning.
        let mut context: Vec<u32> = last.into_iter().collect();
        let mut pending = 0;
        for (at, id) in ids.iter().enumerate() {
            let before = decode(&context[..context.len() - pending])?;
            context.push(*id);
            pending += 1;
            let after = decode(&context)?;
            // A character is whole once no sign for a broken one stands at the end; none has more than four bytes.
            if after.ends_with('\u{FFFD}') && pending < 4 && at + 1 < ids.len() {
                continue;
            }
            let start = text.len();
            text.push_str(after.strip_prefix(before.as_str()).unwrap_or_default());
            ranges.extend(std::iter::repeat_n(start..text.len(), pending));
            context.drain(..context.len() - pending);
            pending = 0;
        }
        Ok((text, ranges))
    }

    fn cut(&self, text: &str, add_special: bool) -> Result<Vec<Token>> {
        // `encode` counts in bytes, `encode_char_offsets` in characters.
        let encoding = fenced(|| self.inner.encode(text, add_special))
            .ok_or_else(|| self.failed("one of its parts is broken"))?
            .map_err(|cause| self.failed(&cause.to_string()))?;
        let ranges = encoding.get_offsets().iter();
        let names = encoding.get_ids().iter().zip(encoding.get_tokens());
        let marks = encoding.get_special_tokens_mask().iter();
        Ok(names
            .zip(ranges)
            .zip(marks)
            .map(|(((&id, name), &(start, end)), &added)| {
                if added != 0 {
                    return special(id, name.clone());
                }
                let (start, end) = inside(text, start, end);
                Token { id, text: text[start..end].to_owned(), start, end, special: false }
            })
            .collect())
    }

    fn failed(&self, cause: &str) -> Error {
        Error::request(
            format!("{} cannot cut this text: {}", self.name, one_line(cause)),
            "use the tokenizer.json that belongs to the model",
        )
    }
}

/// A token that stands for nothing in the text.
fn special(id: u32, name: String) -> Token {
    Token { id, text: name, start: 0, end: 0, special: true }
}

/// The largest tokenizer.json we read, in bytes; the largest public ones are near 35 MB.
const MAX_FILE: u64 = 256 << 20;

/// The nearest range that lies in `text` on character boundaries: widened, never narrowed, so that a
/// token that holds part of a character shows the whole of it.
fn inside(text: &str, start: usize, end: usize) -> (usize, usize) {
    let boundary = |at: &usize| text.is_char_boundary(*at);
    let start = (0..=start.min(text.len())).rev().find(boundary).unwrap_or(0);
    let end = (end.min(text.len())..=text.len()).find(boundary).unwrap_or(text.len());
    (start, end.max(start))
}

pub(super) fn one_line(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A WordPiece tokenizer with the normaliser of BERT, small enough to read.
    fn tiny() -> Tokenizer {
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": null,
                        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [
                {"id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true},
                {"id": 3, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false,
                 "normalized": false, "special": true}],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100,
                      "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "back": 4, "##erin": 5,
                                "zurich": 6, "is": 7, "far": 8, ".": 9, "東": 10, "京": 11}}
        });
        Tokenizer::from_bytes(json.to_string().as_bytes(), "tiny").expect("a sound tokenizer")
    }

    fn cut(text: &str) -> Vec<(String, usize, usize, bool)> {
        let tokens = tiny().encode(text).expect("cuts");
        tokens.into_iter().map(|t| (t.text, t.start, t.end, t.special)).collect()
    }

    #[test]
    fn bytes_are_counted_not_characters_and_nothing_is_cut_or_padded() {
        let expected = [
            ("[CLS]", 0, 0, true),
            ("Bäck", 0, 5, false),
            ("erin", 5, 9, false),
            ("Zürich", 10, 17, false),
            ("東", 18, 21, false),
            ("京", 21, 24, false),
            ("is", 25, 27, false),
            ("far", 28, 31, false),
            (".", 31, 32, false),
            ("[SEP]", 0, 0, true),
        ];
        let expected: Vec<_> = expected.iter().map(|&(t, s, e, x)| (t.to_owned(), s, e, x)).collect();
        assert_eq!(cut("Bäckerin Zürich 東京 is far."), expected);
    }

    #[test]
    fn an_unknown_word_keeps_its_own_bytes() {
        assert_eq!(cut("🦀 is")[1], ("🦀".to_owned(), 0, 4, false));
    }

    #[test]
    fn a_special_token_typed_by_hand_is_text() {
        assert_eq!(cut("is [SEP]")[2], ("[SEP]".to_owned(), 3, 8, false));
    }

    #[test]
    fn empty_text_has_its_special_tokens_only() {
        assert!(cut("").iter().all(|t| t.3));
    }

    #[test]
    fn what_was_written_has_its_bytes() {
        // Ġ is a blank; é, and a crab of four bytes, in pieces as byte-level vocabularies spell them.
        let vocabulary = serde_json::json!({"a": 0, "Ġb": 1, "Ã": 2, "©": 3, "ð": 4, "Ł": 5, "¦": 6, "Ģ": 7});
        let json = serde_json::json!({
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
        });
        let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes(), "tiny").expect("sound");
        let written = tokenizer.decode_after(Some(0), &[1, 2, 3, 4, 5, 6, 7, 0]).expect("written");
        let expected = [0..2, 2..4, 2..4, 4..8, 4..8, 4..8, 4..8, 8..9];
        assert_eq!(written, (" bé🦀a".to_owned(), expected.to_vec()));
        // A character that was not finished is a sign for a broken one.
        let cut = tokenizer.decode_after(None, &[0, 2]).expect("written");
        assert_eq!(cut, ("a\u{FFFD}".to_owned(), vec![0..1, 1..4]));
        assert_eq!(tokenizer.decode_after(Some(0), &[]).expect("nothing"), (String::new(), Vec::new()));
    }

    #[test]
    fn ranges_are_pulled_back_into_the_text() {
        assert_eq!(inside("aé", 2, 2), (1, 3));
        assert_eq!(inside("aé", 7, 900), (3, 3));
        assert_eq!(inside("aé", 1, 0), (1, 1));
        assert_eq!(inside("", 5, usize::MAX), (0, 0));
    }

    #[test]
    fn a_tokenizer_cut_off_anywhere_or_with_a_broken_part_is_refused() {
        let whole = serde_json::json!({
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
        });
        let text = whole.to_string();
        assert!(Tokenizer::from_bytes(text.as_bytes(), "whole").is_ok());
        for length in 0..text.len() {
            let error = Tokenizer::from_bytes(&text.as_bytes()[..length], "cut").expect_err("refused");
            assert!(error.to_string().contains("not JSON"), "{error}");
        }
        let mut broken = whole;
        broken["normalizer"] = serde_json::json!({"type": "Precompiled", "precompiled_charsmap": 3});
        let error = Tokenizer::from_bytes(broken.to_string().as_bytes(), "odd").expect_err("refused");
        assert!(error.to_string().contains("odd is not a tokenizer"), "{error}");
    }

    #[test]
    fn what_is_not_a_tokenizer_is_refused_by_name() {
        for bytes in [&b"{}"[..], b"", b"\xff\xfe", b"[1", b"{\"model\":{\"type\":\"WordPiece\"}}"] {
            let error = Tokenizer::from_bytes(bytes, "some.json").expect_err("refused");
            assert!(error.to_string().contains("some.json"), "{error}");
        }
    }
}
