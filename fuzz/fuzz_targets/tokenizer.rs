//! `text::Tokenizer`: a `tokenizer.json` of any bytes and any text.
//!
//! The parser is the tokenizers crate's; checked is our wrapper: byte ranges lie in the text on character
//! boundaries, a token's text is what stands there, and `words` takes every token along. With JSON that is refused the
//! sound tokenizer of `seeds` is used, so that the text is explored as well.
#![no_main]

use std::sync::LazyLock;

use glasshead::text::{Tokenizer, words};
use libfuzzer_sys::fuzz_target;

static SOUND: LazyLock<Tokenizer> = LazyLock::new(|| {
    Tokenizer::from_bytes(include_bytes!("../seeds/tokenizer.json"), "seed").expect("sound")
});

fuzz_target!(|input: (&str, &[u8])| {
    let (text, json) = input;
    let fuzzed = Tokenizer::from_bytes(json, "fuzzed");
    let tokenizer = fuzzed.as_ref().unwrap_or(&SOUND);
    let tokens = match tokenizer.encode(text) {
        Ok(tokens) => tokens,
        Err(error) => return assert!(!error.to_string().contains('\n') && !error.hint().is_empty()),
    };
    for token in &tokens {
        if token.special {
            assert_eq!((token.start, token.end), (0, 0));
        } else {
            assert_eq!(token.text, text[token.start..token.end]);
        }
    }
    let units = words(text, &tokens);
    assert!(units.iter().flat_map(|unit| unit.pieces.iter().copied()).eq(0..tokens.len()));
});
