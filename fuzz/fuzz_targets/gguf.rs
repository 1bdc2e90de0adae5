//! A GGUF file of any bytes: header, typed metadata, tensors, tokenizer, and what the families see of it.
//!
//! Checked: the header of a part of the file is never taken for the whole one; every tensor lies in the file and
//! has as many numbers as its shape says; refusals are one line; a tokenizer that is built cuts text on character
//! boundaries.
#![no_main]

use std::fs;

use glasshead::models::open_gguf;
use glasshead::text::Tokenizer;
use glasshead::weights::{Gguf, parse_gguf};
use libfuzzer_sys::fuzz_target;

fn one_line(error: &glasshead::Error) {
    assert!(!error.to_string().contains('\n') && !error.hint().is_empty(), "{error}");
}

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    if let Ok(Some(early)) = parse_gguf(&bytes[..bytes.len() / 2], size) {
        let whole = parse_gguf(bytes, size).expect("sound already").expect("all is there");
        assert_eq!((early.bytes, early.tensors), (whole.bytes, whole.tensors));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fuzzed.gguf");
    fs::write(&path, bytes).expect("written");
    let Ok(file) = Gguf::open(&path).inspect_err(one_line) else {
        return assert!(parse_gguf(bytes, size).is_err());
    };
    for key in file.keys() {
        let _ = file.text(key).inspect_err(one_line);
        let _ = file.flag(key).inspect_err(one_line);
        let _ = file.count(key).inspect_err(one_line);
        let _ = file.number(key).inspect_err(one_line);
        let _ = file.texts(key).inspect_err(one_line);
        let _ = file.integers(key).inspect_err(one_line);
        let _ = file.floats(key).inspect_err(one_line);
    }
    for (_, tensor) in file.tensors() {
        assert!(tensor.bytes.end <= size);
        let numbers = file.values(tensor).expect("it lies in the file");
        assert_eq!(numbers.len(), tensor.shape.iter().product::<usize>());
    }
    if let Ok(Some(tokenizer)) = Tokenizer::from_gguf(&file).inspect_err(one_line) {
        let text = "It's 12 °C — 東京 🦀,\n\n <s>x</s>";
        match tokenizer.encode(text) {
            Ok(tokens) => {
                for token in tokens.iter().filter(|token| !token.special) {
                    assert_eq!(token.text, text[token.start..token.end]);
                }
            }
            Err(error) => one_line(&error),
        }
    }
    let Ok(opened) = open_gguf(&path).inspect_err(one_line) else { return };
    let _ = opened.weights.sha256().inspect_err(one_line);
    for name in ["model.layers.0.self_attn.q_proj.weight", "transformer.h.0.attn.c_attn.weight", "model.norm.weight"] {
        let _ = opened.weights.values(name, &[8, 8]).inspect_err(one_line);
    }
});
