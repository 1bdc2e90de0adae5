//! Checkpoints that are split over several files: read as one, and refused where the index lies.

use std::fs;
use std::path::Path;

use glasshead::models::load;
use glasshead::weights::{ArrayData, NewArray, Weights, read_safetensors, write_safetensors};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-bert");

/// A folder with two shards of two numbers each, and this index.
fn folder(index: &Value) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    for (file, name, numbers) in
        [("b.safetensors", "x", vec![1.0, 2.0]), ("a.safetensors", "y", vec![3.0, 4.0])]
    {
        let array = NewArray::new(name, &[2], &ArrayData::F32(numbers));
        write_safetensors(&folder.path().join(file), &[array], &Default::default()).expect("written");
    }
    fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).expect("written");
    folder
}

fn open(folder: &TempDir) -> glasshead::Result<Weights> {
    Weights::open_shards(&folder.path().join("model.safetensors.index.json"))
}

fn refused(map: Value, words: &[&str]) {
    let error =
        open(&folder(&json!({"metadata": {"total_size": 16}, "weight_map": map}))).expect_err("refused");
    let said = error.to_string();
    assert!(said.contains("index.json") && words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!said.contains('\n') && said.len() < 700 && !error.hint().is_empty());
}

#[test]
fn every_tensor_is_read_from_its_file_and_the_hash_is_of_all() {
    let folder = folder(&json!({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}));
    let weights = open(&folder).expect("sound");
    assert_eq!(weights.values("x", &[2]).expect("there"), [1.0, 2.0]);
    assert_eq!(weights.values("y", &[2]).expect("there"), [3.0, 4.0]);
    assert!(weights.has("x") && !weights.has("z"));
    let error = weights.values("z", &[2]).expect_err("refused");
    assert!(error.to_string().contains("`z`") && error.hint().contains("`x`, `y`"), "{error}");
    assert!(weights.tensor("y", &[3]).expect_err("refused").to_string().contains("a.safetensors"));
    let all: Vec<u8> = ["a", "b"]
        .iter()
        .flat_map(|name| fs::read(folder.path().join(format!("{name}.safetensors"))).expect("read"))
        .collect();
    let digits: String = Sha256::digest(all).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(weights.sha256().expect("hashed"), digits);
    assert_eq!(weights.sha256().expect("hashed"), digits, "also when it is asked for again");
}

#[test]
fn a_split_model_is_the_same_model() {
    let split = TempDir::new().expect("temporary folder");
    fs::copy(Path::new(TINY).join("config.json"), split.path().join("config.json")).expect("copied");
    let arrays = read_safetensors(&Path::new(TINY).join("model.safetensors")).expect("sound");
    let names: Vec<String> = arrays.list().map(|(name, _)| name.to_owned()).collect();
    let mut map = serde_json::Map::new();
    for (number, names) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", number + 1);
        let parts: Vec<_> = names
            .iter()
            .map(|name| {
                map.insert(name.clone(), json!(file));
                let (data, shape) = arrays.get(name).expect("there");
                NewArray::new(name.clone(), shape, &data)
            })
            .collect();
        write_safetensors(&split.path().join(&file), &parts, &Default::default()).expect("written");
    }
    let index = split.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": map}).to_string()).expect("written");
    let whole = Weights::open(&Path::new(TINY).join("model.safetensors")).expect("sound");
    let parts = Weights::open_shards(&index).expect("sound");
    for name in &names {
        let shape = &arrays.info(name).expect("there").shape;
        assert_eq!(parts.values(name, shape).expect("read"), whole.values(name, shape).expect("read"));
    }
    assert_eq!(load(split.path()).expect("loads").model.info().layers, 2);
}

#[test]
fn files_elsewhere() {
    for name in [
        "/etc/passwd",
        "../b.safetensors",
        "/b.safetensors",
        "sub/b.safetensors",
        "..\\b.safetensors",
        "C:b.safetensors",
        "b.safetensors/../../b.safetensors",
        ".safetensors",
        "b.bin",
        "",
        "b\0.safetensors",
        "model.safetensors.index.json",
    ] {
        refused(json!({"x": name}), &["names the file"]);
    }
}

#[test]
fn files_and_tensors_that_are_not_there() {
    refused(json!({"x": "c.safetensors"}), &["`c.safetensors`", "not there"]);
    refused(json!({"x": "a.safetensors"}), &["`x`", "`a.safetensors`", "not"]);
    refused(json!({}), &["no tensor"]);
    refused(json!({"x": 3}), &["not the index"]);
    refused(json!(["x"]), &["not the index"]);
}

#[test]
fn an_index_that_is_none() {
    let bad = |text: &str| {
        let folder = folder(&json!({}));
        fs::write(folder.path().join("model.safetensors.index.json"), text).expect("written");
        let error = open(&folder).expect_err("refused").to_string();
        assert!(error.contains("index.json") && !error.contains('\n'), "{error}");
        error
    };
    for text in ["", "{", "[]", "{}", "{\"weight_map\":", "\u{1b}[2J"] {
        bad(text);
    }
    let twice = bad("{\"weight_map\":{\"x\":\"b.safetensors\",\"x\":\"a.safetensors\"}}");
    assert!(twice.contains("`x` comes twice"), "{twice}");
}

#[test]
fn a_shard_that_leads_in_a_circle_or_is_cut_off() {
    let folder = folder(&json!({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}));
    let path = folder.path().join("b.safetensors");
    let bytes = fs::read(&path).expect("read");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    assert!(open(&folder).expect_err("refused").to_string().contains("cut off"));
    #[cfg(unix)]
    {
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("b.safetensors", &path).expect("linked");
        assert!(open(&folder).expect_err("refused").to_string().contains("b.safetensors"));
    }
}
