//! Bad requests: each ends in one sentence that names the culprit, one hint, the right exit code, and leaves
//! nothing behind. No test here needs a network or a model of the catalogue.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use crate::common::desk::{Desk, REQUEST, SURROUNDINGS, tokenizer};
use glasshead::weights::{ArrayData, NewArray, write_safetensors};
use serde_json::json;

const BANK: &str = "the banker the far bank";

// ---- explain: the focus and the text

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
            file(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                    "b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#,
                6,
            ),
            "overlapping arrays: `a` and `b`",
        ),
        (
            file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,4]}}"#, 4),
            "overflows",
        ),
        (file(r#"{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}"#, 4), "[9]"),
        (file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 4), "has no array"),
    ];
    for (bytes, error) in cases {
        desk.write("tiny/model.safetensors", bytes);
        desk.refused(REQUEST, run, error, "");
        desk.refused(REQUEST, run, "tiny/model.safetensors", "");
    }
}

fn file(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

// ---- what is written, and where

#[test]
fn output_that_cannot_be_written() {
    let desk = Desk::new();
    fs::create_dir(desk.path().join("folder")).unwrap();
    desk.write("file", "old").write("out.json", "old").tiny(json!({}));
    let explain = |out: &str, error: &str, hint: &str, code: i32| {
        desk.refused(code, &["explain", "-o", out, "--format", "json"], error, hint);
    };
    explain("none/out.json", "none/out.json", "folder", REQUEST);
    explain("folder", "is a folder", "file", REQUEST);
    explain("file/out.json", "file/out.json", "folder", SURROUNDINGS);
    desk.refused(REQUEST, &["explain", "-o", "folder"], "is a folder", "file");
    desk.refused(REQUEST, &["explain", "-o", "out.xyz"], "out.xyz", "--format");
    desk.refused(REQUEST, &["explain", "-o", "out"], "ending", "--format");
    desk.refused(REQUEST, &["explain", "--format", "xml"], "'xml'", "html");
    desk.refused(REQUEST, &["explain", "-o", ""], "", "");
    // A request that fails leaves the old file as it was.
    desk.refused(REQUEST, &["explain", "-o", "out.json", "--focus", "cat"], "cat", "fox");
    desk.refused(
        REQUEST,
        &["explain", BANK, "--model", "tiny", "--layer", "9", "-o", "out.json"],
        "--layer 9",
        "0 to",
    );
    assert_eq!(fs::read(desk.path().join("out.json")).unwrap(), b"old");
}

#[test]
fn unknown_words_on_the_command_line() {
    let desk = Desk::new();
    desk.refused(REQUEST, &["explain", "--fcous", "fox"], "--fcous", "--focus");
    desk.refused(REQUEST, &["explain", "The", "quick"], "'quick'", "--help");
    desk.refused(REQUEST, &["explane"], "'explane'", "explain");
    desk.refused(REQUEST, &["attend"], "--output", "attend --help");
    desk.refused(REQUEST, &["explain", "--units", "letters"], "letters", "tokens");
    desk.refused(REQUEST, &["models", "fetch"], "fetch", "--help");
    desk.refused(REQUEST, &["models", "pull"], "<NAME>", "--help");
    desk.refused(REQUEST, &["doctor", "now"], "'now'", "--help");
}

// ---- models, caches and networks

#[test]
fn no_network() {
    let desk = Desk::new();
    for args in [&["models", "pull", "minilm"][..], &["explain", BANK]] {
        desk.refused(SURROUNDINGS, args, "could not be fetched", "models pull minilm");
        desk.refused(SURROUNDINGS, args, "there is no python3", "--model FOLDER");
        desk.refused(SURROUNDINGS, args, "HF_HUB_OFFLINE", "");
    }
    // A hub that is not there: nobody listens on the discard port of this machine.
    let mut offline = desk.glasshead(&["models", "pull", "minilm"]);
    offline.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", "http://127.0.0.1:9");
    desk.refuses(offline, SURROUNDINGS, "http://127.0.0.1:9", "models pull minilm");
}

#[cfg(unix)]
#[test]
fn no_network_and_a_pip_that_fails() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    fs::create_dir(desk.path().join("bin")).unwrap();
    desk.write("bin/python3", "#!/bin/sh\necho 'ERROR: no route to the index' >&2\nexit 1\n");
    fs::set_permissions(desk.path().join("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = desk.glasshead(&["models", "pull", "minilm"]);
    command.env("PATH", desk.path().join("bin"));
    desk.refuses(command, SURROUNDINGS, "no route to the index", "--model FOLDER");
}

#[test]
fn cache_folder_that_cannot_be_made() {
    let desk = Desk::new();
    desk.write("file", "");
    // Below a regular file: not even root can write there.
    for cache in ["file", "file/cache"] {
        for args in [&["models", "pull", "minilm"][..], &["explain", BANK]] {
            let mut command = desk.glasshead(args);
            command.env("GLASSHEAD_CACHE", desk.path().join(cache));
            desk.refuses(command, SURROUNDINGS, cache, "GLASSHEAD_CACHE");
        }
    }
}

#[cfg(unix)]
#[test]
fn cache_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let cache = desk.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(cache.join("probe"), "").is_ok() {
        eprintln!("skipped: this user (root?) may write to a read-only folder");
        return;
    }
    let args = &["models", "pull", "minilm"];
    desk.refused(SURROUNDINGS, args, "cannot be written to: Permission denied", "GLASSHEAD_CACHE");
}

#[test]
fn models_that_are_not_there() {
    let desk = Desk::new();
    desk.refused(
        SURROUNDINGS,
        &["models", "path", "minilm"],
        "minilm is not on this disk",
        "models pull minilm",
    );
    desk.refused(REQUEST, &["models", "path", "nope"], "`nope`", "minilm");
    desk.refused(REQUEST, &["models", "pull", "nope"], "`nope`", "minilm");
}

#[test]
fn cached_model_with_other_bytes() {
    let desk = Desk::new();
    let folder = desk.path().join("cache/models/minilm");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::write(folder.join(file), "{}").unwrap();
    }
    let done = desk.glasshead(&["explain", BANK]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(SURROUNDINGS), "{said}");
    assert!(said.contains("config.json has 2 bytes instead of 612; it was removed\nhint: "), "{said}");
    assert!(!folder.join("config.json").exists());
}

// ---- attend

fn safetensors(path: &Path, arrays: &[(&str, &[usize], ArrayData)]) {
    let arrays: Vec<_> = arrays.iter().map(|(name, shape, data)| NewArray::new(*name, shape, data)).collect();
    write_safetensors(path, &arrays, &BTreeMap::new()).unwrap();
}

fn zeros(shape: &[usize]) -> ArrayData {
    ArrayData::F32(vec![0.0; shape.iter().product()])
}

/// q `[1, 4, 3, 8]`, k and v `[1, 2, 5, 8]`, with some of them replaced and others added.
fn attend(desk: &Desk, changed: &[(&'static str, &'static [usize], ArrayData)]) {
    let sound: [(&str, &[usize]); 3] = [("q", &[1, 4, 3, 8]), ("k", &[1, 2, 5, 8]), ("v", &[1, 2, 5, 8])];
    let mut arrays = changed.to_vec();
    for (name, shape) in sound {
        if !changed.iter().any(|(taken, ..)| *taken == name) {
            arrays.push((name, shape, zeros(shape)));
        }
    }
    safetensors(&desk.path().join("in.safetensors"), &arrays);
}

#[test]
fn arrays_that_do_not_fit() {
    let f32s = |name: &'static str, shape: &'static [usize]| (name, shape, zeros(shape));
    let bools =
        |shape: &'static [usize]| ("mask", shape, ArrayData::Bool(vec![true; shape.iter().product()]));
    let lengths =
        |lengths: &[i64], shape: &'static [usize]| ("kv_lengths", shape, ArrayData::I64(lengths.to_vec()));
    for (array, error, hint) in [
        (f32s("q", &[1, 3, 3, 8]), "q: [1, 3, 3, 8]", "shapes"),
        (f32s("q", &[4, 3, 8]), "q has the shape [4, 3, 8]", "four axes"),
        (f32s("q", &[1, 4, 3, 7]), "k: [1, 2, 5, 8]", "shapes"),
        (f32s("q", &[2, 4, 3, 8]), "k: [1, 2, 5, 8]", "shapes"),
        (f32s("k", &[1, 2, 6, 8]), "v: [1, 2, 5, 8]", "shapes"),
        (f32s("v", &[1, 1, 5, 8]), "v: [1, 1, 5, 8]", "shapes"),
        (f32s("v", &[1, 2, 5, 0]), "v: [1, 2, 5, 0]", ""),
        (f32s("k", &[1, 0, 5, 8]), "[1, 0, 5, ", ""),
        (("q", &[1, 4, 3, 8], ArrayData::F64(vec![0.0; 96])), "k is F32 and q is F64", "one dtype"),
        (("q", &[1], ArrayData::I64(vec![0])), "q is I64", "F32"),
        (("v", &[1, 2, 5, 1], ArrayData::Bool(vec![true; 10])), "v is BOOL", "one dtype"),
        (bools(&[6]), "mask: [1, 1, 1, 6]", "last axis"),
        (bools(&[2, 5]), "mask: [1, 1, 2, 5]", "mask"),
        (bools(&[1, 1, 1, 1, 5]), "mask: [1, 1, 1, 1, 5]", "mask"),
        (bools(&[]), "mask: []", "mask"),
        (("mask", &[5], ArrayData::I64(vec![1; 5])), "mask is I64 [5]", "BOOL"),
        (lengths(&[6], &[1]), "kv_lengths 6", "batch"),
        (lengths(&[-1], &[1]), "kv_lengths -1", "batch"),
        (lengths(&[1, 1], &[2]), "kv_lengths: [2]", "batch"),
        (f32s("kv_lengths", &[1]), "kv_lengths is F32 [1]", "I64"),
        (f32s("sinks", &[3]), "sinks: [3]", "per head"),
        (f32s("sinks", &[4, 1]), "sinks is F32 [4, 1]", "F32 [heads of q]"),
        (f32s("alibi_slopes", &[5]), "alibi_slopes: [5]", "per head"),
        (("alibi_slopes", &[4], ArrayData::F64(vec![0.0; 4])), "alibi_slopes is F64", "F32"),
    ] {
        let desk = Desk::new();
        attend(&desk, &[array]);
        desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "out.safetensors"], error, hint);
        desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "out.safetensors"], "in.safetensors: ", "");
    }
}

#[test]
fn arrays_that_are_missing_or_unreadable() {
    let desk = Desk::new();
    let run = &["attend", "in.safetensors", "-o", "out.safetensors"];
    desk.refused(REQUEST, run, "there is no file in.safetensors", "path");
    safetensors(&desk.path().join("in.safetensors"), &[("k", &[1], zeros(&[1]))]);
    desk.refused(REQUEST, run, "no array `q`", "it has `k`");
    safetensors(&desk.path().join("in.safetensors"), &[("q", &[1, 1, 1, 1], zeros(&[1]))]);
    desk.refused(REQUEST, run, "no array `k`", "it has `q`");
    safetensors(&desk.path().join("in.safetensors"), &[]);
    desk.refused(REQUEST, run, "no array `q`", "empty");
    desk.write("in.safetensors", file(r#"{"q":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#, 4));
    desk.refused(REQUEST, run, "`q`", "F32");
    desk.write("in.safetensors", "q,k,v\n1,2,3\n");
    desk.refused(REQUEST, run, "in.safetensors", "safetensors file");
    desk.refused(REQUEST, &["attend", ".", "-o", "out.safetensors"], "is a folder", "file");
}

/// Arrays of no numbers may have axes of any length: a file of 300 bytes that asks for terabytes.
#[test]
fn axes_without_end() {
    const HUGE: usize = 1 << 50;
    for (q, k, v, read) in [
        ([1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, HUGE], "lse"),
        ([HUGE, 1, 0, 1], [HUGE, 1, 0, 1], [HUGE, 1, 0, 1], "lse"),
        ([1, HUGE, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1], "all"),
    ] {
        let desk = Desk::new();
        let path = desk.path().join("in.safetensors");
        safetensors(&path, &[("q", &q, zeros(&q)), ("k", &k, zeros(&k)), ("v", &v, zeros(&v))]);
        let run = &["attend", "in.safetensors", "-o", "out.safetensors", "--read", read];
        desk.refused(REQUEST, run, "memory", "");
    }
}

#[test]
fn attend_flags() {
    let desk = Desk::new();
    attend(&desk, &[]);
    for (flag, value, error, hint) in [
        ("--causal", "left", "'left'", "--help"),
        ("--causal", "1.5", "'1.5'", "--help"),
        ("--causal", "99999999999999999999", "whole number", "--help"),
        ("--window", "3", "LEFT,RIGHT", "--help"),
        ("--window", "-2,0", "-2", "--help"),
        ("--window", "1,2,3", "2,3", "--help"),
        ("--window", "", "LEFT,RIGHT", "--help"),
        ("--scale", "nan", "--scale", ""),
        ("--scale", "x", "'x'", "--help"),
        ("--softcap", "-1", "--softcap -1", ""),
        ("--softcap", "inf", "--softcap inf", ""),
        ("--threads", "0", "0", "--help"),
        ("--threads", "many", "many", "--help"),
        ("--isa", "sse", "\"sse\"", "--isa"),
        ("--isa", "", "\"\"", "--isa"),
        ("--read", "enropy", "\"enropy\"", "lse,entropy"),
        ("--read", "rows=3", "row 3", "--read"),
        ("--read", "rows=a", "\"a\"", "--read"),
        ("--read", "top", "\"top\"", "--read"),
        ("--read", "top=0", "\"0\"", "--read"),
        ("--read", "top=99999999999", "99999999999", "--read"),
        ("--read", "segments=4:2", "ascend", "--read"),
        ("--read", "segments=6", "past the 5 keys", "--read"),
        ("--read", "blocks=0", "\"0\"", "--read"),
        ("--read", "lse=1", "\"lse=1\"", "--read"),
    ] {
        let flag_and_value = format!("{flag}={value}");
        let run = &["attend", "in.safetensors", "-o", "out.safetensors", &flag_and_value];
        desk.refused(REQUEST, run, error, hint);
    }
    let mut command = desk.glasshead(&["attend", "in.safetensors", "-o", "out.safetensors"]);
    command.env("GLASSHEAD_ISA", "sse");
    desk.refuses(command, REQUEST, "\"sse\"", "GLASSHEAD_ISA");
}

#[test]
fn attend_leaves_the_old_output_as_it_was() {
    let desk = Desk::new();
    attend(&desk, &[]);
    fs::create_dir(desk.path().join("folder")).unwrap();
    desk.write("out.safetensors", "old");
    let out = desk.path().join("out.safetensors");
    desk.refused(
        REQUEST,
        &["attend", "in.safetensors", "-o", "out.safetensors", "--read", "rows=9"],
        "row 9",
        "",
    );
    assert_eq!(fs::read(&out).unwrap(), b"old");
    desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "folder"], "is a folder", "file");
    desk.refused(REQUEST, &["attend", "in.safetensors", "-o", "none/out"], "none/out", "folder");
    desk.done(&["attend", "in.safetensors", "-o", "out.safetensors"]);
    assert_ne!(fs::read(&out).unwrap(), b"old");
}

// ---- manners

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    for args in [
        &["explain"][..],
        &["explain", BANK, "--model", "tiny", "--format", "json"],
        &["doctor"],
        &["--help"],
    ] {
        let mut child = desk.glasshead(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take()); // gone before the first byte
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{args:?}: {done:?}");
    }
}

#[test]
fn a_bare_command_shows_the_help_and_help_is_no_error() {
    let desk = Desk::new();
    let bare = desk.glasshead(&[]).output().unwrap();
    assert_eq!((bare.status.code(), bare.stdout.len()), (Some(REQUEST), 0));
    assert!(String::from_utf8_lossy(&bare.stderr).contains("explain"));
    for args in [&["--help"][..], &["explain", "--help"], &["--version"], &["help", "attend"]] {
        let done = desk.done(args);
        assert!(!done.stdout.is_empty() && done.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn no_colour_where_nobody_wants_it() {
    let desk = Desk::new();
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm-256color")] {
        for args in [&["explain", "--format", "table"][..], &["doctor"], &["--help"], &["explane"]] {
            let done = desk.glasshead(args).env(name, value).output().unwrap();
            assert!(![done.stdout, done.stderr].concat().contains(&0x1b), "{args:?}");
        }
    }
}
