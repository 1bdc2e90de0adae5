//! Configs that a forward would compute wrongly, and folders that are no models: refused by name.

use std::fs;
use std::path::Path;

use glasshead::models::load;
use glasshead::{Error, Fault};
use serde_json::{Value, json};
use tempfile::TempDir;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-bert");

/// A copy of the tiny BERT with some config keys changed (`null` removes one).
fn changed(changes: &Value) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    let config = fs::read(Path::new(TINY).join("config.json")).expect("read");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => drop(config.as_object_mut().expect("an object").remove(key)),
            value => config[key] = value.clone(),
        }
    }
    fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    fs::copy(Path::new(TINY).join("model.safetensors"), folder.path().join("model.safetensors"))
        .expect("copied");
    folder
}

fn refusal(folder: &Path) -> Error {
    let error = load(folder).expect_err("refused");
    assert_eq!(error.fault(), Fault::Request, "{error}");
    assert!(!error.hint().is_empty() && !error.to_string().contains('\n'));
    error
}

fn refused(changes: Value, words: &[&str]) {
    let error = refusal(changed(&changes).path());
    let said = error.to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn unchanged_it_loads_without_a_tokenizer() {
    let loaded = load(Path::new(TINY)).expect("loads");
    let info = loaded.model.info();
    assert_eq!((info.family, info.layers, info.heads, info.kv_heads, info.head_dim), ("bert", 2, 4, 4, 12));
    assert_eq!((info.hidden, info.max_tokens, info.vocabulary, info.sha256.len()), (48, 40, 96, 64));
    assert!(loaded.tokenizer.is_none());
}

#[test]
fn architecture_unknown() {
    refused(json!({"model_type": "mamba"}), &["config.json", "mamba"]);
    assert!(refusal(changed(&json!({"model_type": "mamba"})).path()).hint().contains("distilbert"));
}

#[test]
fn architecture_missing_or_no_text() {
    refused(json!({"model_type": null}), &["`model_type`", "missing"]);
    refused(json!({"model_type": 7}), &["`model_type`", "7"]);
}

#[test]
fn needed_key_missing() {
    for key in
        ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size", "max_position_embeddings"]
    {
        refused(json!({key: null}), &[key, "missing", "config.json"]);
    }
}

#[test]
fn key_unknown() {
    refused(json!({"rotary_dim": 12}), &["`rotary_dim`", "bert forward"]);
}

#[test]
fn key_with_a_value_that_changes_the_forward() {
    refused(json!({"position_embedding_type": "relative_key"}), &["position_embedding_type", "relative_key"]);
    refused(json!({"hidden_act": "silu"}), &["hidden_act", "silu"]);
    refused(json!({"is_decoder": true}), &["is_decoder", "true"]);
    refused(json!({"add_cross_attention": true}), &["add_cross_attention"]);
    refused(json!({"pruned_heads": {"0": [1]}}), &["pruned_heads"]);
}

#[test]
fn sizes_that_are_no_sizes() {
    for value in [json!(0), json!(-4), json!(1.5), json!("48"), json!([48]), json!(1e300)] {
        refused(json!({"hidden_size": value}), &["`hidden_size`"]);
    }
}

#[test]
fn heads_that_do_not_divide_the_vector() {
    refused(json!({"num_attention_heads": 5}), &["48", "5"]);
}

#[test]
fn sizes_that_the_weights_do_not_have() {
    refused(json!({"hidden_size": 96}), &["`embeddings.", "96"]);
    refused(json!({"vocab_size": 97}), &["word_embeddings", "97"]);
    refused(json!({"intermediate_size": usize::MAX}), &["intermediate"]);
}

#[test]
fn more_layers_than_the_weights_have() {
    refused(json!({"num_hidden_layers": 3}), &["encoder.layer.2."]);
    refused(json!({"num_hidden_layers": u64::MAX}), &["encoder.layer.2."]);
}

#[test]
fn config_not_json() {
    let folder = changed(&json!({}));
    for text in ["{", "[]", "", "\u{0}"] {
        fs::write(folder.path().join("config.json"), text).expect("written");
        assert!(refusal(folder.path()).to_string().contains("config.json"));
    }
}

#[test]
fn folder_without_its_files() {
    let folder = TempDir::new().expect("temporary folder");
    assert!(refusal(folder.path()).to_string().contains("config.json"));
    let folder = changed(&json!({}));
    fs::remove_file(folder.path().join("model.safetensors")).expect("removed");
    assert!(refusal(folder.path()).to_string().contains("no model.safetensors"));
    fs::write(folder.path().join("model.safetensors.index.json"), "{}").expect("written");
    assert!(refusal(folder.path()).to_string().contains("split"));
}

#[test]
fn no_folder_at_all() {
    let folder = TempDir::new().expect("temporary folder");
    assert!(refusal(&folder.path().join("no")).to_string().contains("there is no model folder"));
    let file = folder.path().join("model.gguf");
    fs::write(&file, b"GGUF").expect("written");
    assert!(refusal(&file).to_string().contains("GGUF"));
    let file = folder.path().join("model.bin");
    fs::write(&file, b"").expect("written");
    assert!(refusal(&file).to_string().contains("not a model folder"));
}

#[test]
fn tokenizer_broken() {
    let folder = changed(&json!({}));
    fs::write(folder.path().join("tokenizer.json"), "{}").expect("written");
    assert!(refusal(folder.path()).to_string().contains("tokenizer.json"));
}
