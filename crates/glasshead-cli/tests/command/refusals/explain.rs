//! Bad requests to `explain`: focus, text, vectors and scores of one's own, models that are none.

use std::fs;

use crate::common::desk::{BANK, Desk, REQUEST, raw_safetensors, safetensors, tokenizer};
use glasshead::weights::ArrayData;
use serde_json::json;

#[test]
fn no_such_focus() {
    let desk = Desk::new();
    desk.refused(
        REQUEST,
        &["explain", "--focus", "cat"],
        "\"cat\"",
        "The quick brown fox jumps over the lazy dog",
    );
    desk.refused(REQUEST, &["explain", "--focus", "9"], "--focus 9", "0 to 8");
    desk.refused(REQUEST, &["explain", "--focus", "99999999999999999999999"], "out of range", "0 to 8");
    desk.refused(REQUEST, &["explain", "--focus", "fox:2"], "occurs once", "fox:1");
    desk.refused(REQUEST, &["explain", "--focus", "fox:0"], "occurs once", "fox:1");
    desk.refused(REQUEST, &["explain", "--focus", ""], "\"\"", "The quick");
    desk.refused(REQUEST, &["explain", "--focus", "-1"], "\"-1\"", "The quick");
    desk.refused(REQUEST, &["explain", "--focus", "\u{1b}[2J\n"], "\\u{1b}[2J\\n", "The quick");
    desk.tiny(json!({}));
    desk.refused(
        REQUEST,
        &["explain", BANK, "--model", "tiny", "--focus", "river"],
        "\"river\"",
        "the banker far bank",
    );
    desk.refused(
        REQUEST,
        &["explain", BANK, "--model", "tiny", "--focus", "the:3"],
        "occurs 2 times",
        "the:1 to the:2",
    );
    desk.refused(
        REQUEST,
        &["explain", BANK, "--model", "tiny", "--focus", "banker", "--units", "tokens"],
        "\"banker\"",
        "bank | er",
    );
}

#[test]
fn empty_text() {
    let desk = Desk::new();
    desk.refused(REQUEST, &["explain", "the", "cat"], "'cat'", "into quotes");
    for text in ["", " \t\n"] {
        desk.refused(REQUEST, &["explain", text], "the text is empty", "give a sentence");
    }
    desk.refused(REQUEST, &["explain", "", "--vectors", "v.csv"], "the text is empty", "give a sentence");
}

#[test]
fn layer_and_head() {
    let desk = Desk::new();
    desk.write("v.csv", "fox,1,2\n").tiny(json!({}));
    for flag in ["--layer", "--head"] {
        for wrong in ["x", "-1"] {
            desk.refused(
                REQUEST,
                &["explain", flag, wrong],
                "expected a whole number from 0",
                "explain --help",
            );
        }
        desk.refused(REQUEST, &["explain", flag, "0"], "need a model", "--model");
        desk.refused(REQUEST, &["explain", "--vectors", "v.csv", flag, "0"], "need a model", "--model");
        desk.refused(REQUEST, &["explain", BANK, flag, "x"], "'x'", "--help");
        desk.refused(REQUEST, &["explain", BANK, &format!("{flag}=-1")], "-1", "--help");
    }
    desk.refused(REQUEST, &["explain", BANK, "--model", "tiny", "--layer", "2"], "--layer 2", "0 to 1");
    desk.refused(REQUEST, &["explain", BANK, "--model", "tiny", "--head", "4"], "--head 4", "0 to 3");
}

// ---- explain: vectors, scores and numbers of one's own

#[test]
fn vectors_that_are_none() {
    let desk = Desk::new();
    let long = format!("fox,{}", "x".repeat(5000));
    for (contents, error) in [
        (&b"fox,1,nan\n"[..], "line 1 (\"fox\"), number 2 is NaN"),
        (b"fox,1\ndog,-inf\n", "line 2 (\"dog\"), number 1 is -inf"),
        (b"fox,1,2\ndog,1\n", "line 2 (\"dog\") has 1 number"),
        (b"fox,1,2\ndog\n", "line 2 (\"dog\") has no numbers"),
        (b"fox,1\n,2\n", "line 2"),
        (b"fox,1\ndog,,\n", "no number"),
        (b"", "no vectors"),
        (b"\n\n", "no vectors"),
        (b"word,x,y\n", "no vectors"),
        (b"\x7fELF\x02\x01\0\0\xff\xfe,\0\n", "UTF-8"),
        (b"\0\0\0\0", "no numbers"),
        (long.as_bytes(), "no vectors"),
    ] {
        desk.write("bad.csv", contents);
        desk.refused(REQUEST, &["explain", "--vectors", "bad.csv"], error, "word,x1,x2");
    }
    desk.refused(REQUEST, &["explain", "--vectors", "none.csv"], "there is no file none.csv", "path");
    desk.refused(REQUEST, &["explain", "--vectors", "."], "is a folder", "file");
    desk.write("two.csv", "fox,1\ndog,2\n");
    desk.refused(REQUEST, &["explain", "a b c", "--vectors", "two.csv"], "same words", "leave the text out");
    desk.refused(REQUEST, &["explain", "--vectors", "two.csv", "--model", "minilm"], "--model", "--help");
}

#[test]
fn vectors_in_a_safetensors_file() {
    let desk = Desk::new();
    let file =
        |arrays: &[(&str, &[usize], ArrayData)]| safetensors(&desk.path().join("v.safetensors"), arrays);
    let run: &[&str] = &["explain", "--vectors", "v.safetensors"];
    file(&[("x", &[2, 1], ArrayData::F32(vec![1.0, f32::NAN]))]);
    desk.refused(REQUEST, run, "NaN at [1, 0]", "[tokens, dim]");
    file(&[("x", &[2], ArrayData::F32(vec![1.0, 2.0]))]);
    desk.refused(REQUEST, run, "0 arrays of two axes", "vectors");
    file(&[("x", &[1, 1], ArrayData::F32(vec![1.0])), ("y", &[1, 1], ArrayData::F32(vec![1.0]))]);
    desk.refused(REQUEST, run, "2 arrays of two axes", "vectors");
    file(&[("x", &[0, 4], ArrayData::F32(vec![]))]);
    desk.refused(REQUEST, run, "[0, 4]", "[1, 1]");
    file(&[("x", &[1, 2], ArrayData::I64(vec![1, 2]))]);
    desk.refused(REQUEST, run, "`x`", "F32");
    file(&[("x", &[1, 2], ArrayData::F64(vec![1.0, 2.0]))]);
    desk.refused(
        REQUEST,
        &["explain", "two words", "--vectors", "v.safetensors"],
        "1 vectors for the 2 words",
        "shape",
    );
}

#[test]
fn lists_that_are_none() {
    let desk = Desk::new();
    desk.write("words.txt", "0.1, two, 0.3").write("binary", b"\xff\xfe");
    for flag in ["--scores", "--claimed"] {
        for (list, error) in [
            ("1,2", "2 numbers for 9 words"),
            ("1,2,3,4,5,6,7,8,9,10", "10 numbers for 9 words"),
            ("", "no number"),
            ("[]", "no number"),
            ("1,2,x", "`x` is no number"),
            ("nan,1", "`nan`"),
            ("1e999", "`1e999`"),
            ("none.txt", "no file"),
            ("words.txt", "`two`"),
            ("binary", "UTF-8"),
        ] {
            desk.refused(REQUEST, &["explain", flag, list], error, "give");
            desk.refused(REQUEST, &["explain", flag, list], flag, "");
        }
    }
    let hidden = ["-inf"; 9].join(",");
    desk.refused(REQUEST, &["explain", "--scores", &hidden], "hidden", "--scores");
    desk.tiny(json!({}));
    let words = &["explain", BANK, "--model", "tiny", "--scores", "1,2,3,4,5,6,7"];
    desk.refused(REQUEST, words, "words of several tokens", "--units tokens");
}

#[test]
fn scale_and_temperature() {
    let desk = Desk::new();
    for value in ["0", "-1", "nan", "inf"] {
        desk.refused(REQUEST, &["explain", "--temperature", value], "--temperature", "--temperature");
    }
    for value in ["nan", "inf", "-inf"] {
        desk.refused(
            REQUEST,
            &["explain", "--focus", "fox", &format!("--scale={value}")],
            "--scale",
            "--scale",
        );
    }
    desk.refused(REQUEST, &["explain", "--scale", "x"], "'x'", "--help");
    desk.refused(REQUEST, &["explain", "--scale", "2"], "given, not computed", "--temperature");
    let overflow = &["explain", "--focus", "fox", "--scale", "1e308", "--temperature", "1e-300"];
    desk.refused(REQUEST, overflow, "scale", "--temperature");
}

// ---- explain: models

#[test]
fn no_such_model() {
    let desk = Desk::new();
    desk.write("model.gguf", "GGUF").write("file", "");
    fs::create_dir(desk.path().join("empty")).unwrap();
    for (model, error, hint) in [
        ("minilm2", "`minilm2`", "minilm"),
        ("./none", "./none", "config.json"),
        ("empty", "empty has no config.json", "config.json"),
        ("file", "file is a file", "folder"),
        ("model.gguf", "GGUF", "download"),
        ("", "``", "minilm"),
    ] {
        desk.refused(REQUEST, &["explain", BANK, "--model", model], error, hint);
    }
}

#[test]
fn model_folder_with_something_missing() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    let run = &["explain", BANK, "--model", "tiny"];
    desk.done(run);
    for (file, error, hint) in [
        ("tokenizer.json", "no tokenizer.json", "tokenizer.json"),
        ("model.safetensors", "no model.safetensors", "model.safetensors"),
        ("config.json", "no config.json", "config.json"),
    ] {
        fs::remove_file(desk.path().join("tiny").join(file)).unwrap();
        desk.refused(REQUEST, run, error, hint);
    }
}

#[test]
fn configs_that_cannot_be_run() {
    for (change, error, hint) in [
        (json!({"model_type": "mamba"}), "`mamba`", "bert"),
        (json!({"model_type": 3}), "`model_type`", "config.json"),
        (json!({"hidden_size": null}), "`hidden_size` is missing", "config.json"),
        (json!({"hidden_size": 64}), "embeddings", "config.json"),
        (json!({"hidden_size": -48}), "`hidden_size`", "config.json"),
        (json!({"num_attention_heads": 5}), "5 heads", "config.json"),
        (json!({"num_hidden_layers": 3}), "encoder.layer.2", ""),
        (json!({"num_hidden_layers": u64::MAX}), "encoder.layer.2", ""),
        (json!({"vocab_size": u64::MAX}), "word_embeddings", "config.json"),
        (json!({"hidden_act": "swish"}), "\"swish\"", "gelu"),
        (json!({"position_embedding_type": "relative_key"}), "relative_key", "absolute"),
        (json!({"is_decoder": true}), "`is_decoder`", "false"),
        (json!({"rotary_pct": 0.5}), "`rotary_pct`", "remove it"),
    ] {
        let desk = Desk::new();
        desk.tiny(change).refused(REQUEST, &["explain", BANK, "--model", "tiny"], error, hint);
    }
    let desk = Desk::new();
    desk.tiny(json!({}));
    for text in ["", "{", "[]", "\u{0}", &"[".repeat(100_000)] {
        desk.write("tiny/config.json", text);
        desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "tiny/config.json", "config.json");
    }
    desk.write("tiny/config.json", vec![b' '; 5 << 20]);
    desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "more than", "file");
}

#[test]
fn tokenizers_that_are_none() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    for text in ["", "{}", "[1", "\u{0}"] {
        desk.write("tiny/tokenizer.json", text);
        desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "tiny/tokenizer.json", "tokenizer.json");
    }
    // Cut off in the middle, also where the tokenizers crate panics on it.
    let whole =
        tokenizer().replace("\"decoder\":null", "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\"}");
    for end in [1, whole.find("\"prefix\"").unwrap(), whole.len() - 1] {
        desk.write("tiny/tokenizer.json", &whole[..end]);
        desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "not JSON", "tokenizer.json");
    }
    let odd = r#""normalizer":{"type":"Precompiled","precompiled_charsmap":3},"old":{"#;
    desk.write("tiny/tokenizer.json", tokenizer().replace("\"normalizer\":{", odd));
    desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "broken", "tokenizer.json");
    // One that belongs to a larger model.
    desk.write("tiny/tokenizer.json", tokenizer().replace("\"far\":7", "\"far\":96"));
    desk.refused(REQUEST, &["explain", BANK, "--model", "tiny"], "token id 96", "another model");
}

#[test]
fn text_longer_than_the_model_reads() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    let text = "far ".repeat(50);
    desk.refused(REQUEST, &["explain", &text, "--model", "tiny"], "52 tokens", "nothing was cut");
    let mut words = "far ".repeat(38);
    desk.done(&["explain", &words, "--model", "tiny"]);
    words.push_str("far");
    desk.refused(REQUEST, &["explain", &words, "--model", "tiny"], "41 tokens", "nothing was cut");
}

#[test]
fn weights_that_lie() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    let sound = fs::read(desk.path().join("tiny/model.safetensors")).unwrap();
    let run = &["explain", BANK, "--model", "tiny"];
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "0 bytes"),
        (sound[..5].to_vec(), "5 bytes"),
        (sound[..1000].to_vec(), "ends after 992"),
        (sound[..sound.len() - 1].to_vec(), "cut off"),
        ([&sound[..], b"x"].concat(), "behind its last array"),
        ([&u64::MAX.to_le_bytes()[..], &sound[8..]].concat(), "header"),
        ([&1u64.to_le_bytes()[..], &sound[8..]].concat(), "not JSON"),
        (
            raw_safetensors(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
                6,
            ),
            "overlapping arrays: `a` and `b`",
        ),
        (
            raw_safetensors(
                r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#,
                4,
            ),
            "overflows",
        ),
        (raw_safetensors(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}"#, 4), "[9]"),
        (raw_safetensors(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4), "has no array"),
    ];
    for (bytes, error) in cases {
        desk.write("tiny/model.safetensors", bytes);
        desk.refused(REQUEST, run, error, "");
        desk.refused(REQUEST, run, "tiny/model.safetensors", "");
    }
}
