//! Every architecture of GGUF files: the forward of a file that follows llama.cpp's converter is that of the folder
//! which it was made from (`bench/goldens/tiny_gguf.py`; the folders are judged by `decoders.rs`).

use std::path::Path;

use crate::common::models::{close, folder, golden, ids, run, wide};
use glasshead::models::{Input, Model, load};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The folder `tiny-NAME` with other keys in its config: what a GGUF file cannot say.
fn changed(name: &str, changes: Value) -> Box<dyn Model> {
    let temporary = TempDir::new().expect("temporary folder");
    let config = std::fs::read(folder(name).join("config.json")).expect("read");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    std::fs::write(temporary.path().join("config.json"), config.to_string()).expect("written");
    let weights = "model.safetensors";
    std::fs::copy(folder(name).join(weights), temporary.path().join(weights)).expect("copied");
    load(temporary.path()).unwrap_or_else(|error| panic!("{name}: {error}")).model
}

/// What the file stores rounded (norms with 1 added, factors of frequencies) is off by half a unit of f32, as every
/// step of the forward is: `rounded` allows what `decoders.rs` does, for norms and for angles. All else is the
/// same arithmetic on the same numbers.
#[track_caller]
fn agrees(name: &str, changes: Value, rounded: bool) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/tiny-gguf/model-{name}.gguf"));
    let (ours, theirs) =
        (load(&file).unwrap_or_else(|error| panic!("{name}: {error}")).model, changed(name, changes));
    let [mut mine, mut other] = [ours.info().clone(), theirs.info().clone()];
    (mine.sha256, other.sha256) = Default::default();
    assert_eq!(mine, other, "{name}");
    let ids = ids(name);
    let [found, expected] = [&ours, &theirs].map(|model| run(model.as_ref(), Input::text(&ids)));
    let logits = [(&ours, &found), (&theirs, &expected)]
        .map(|(model, seen)| model.logits(&seen.last).expect("has a head"));
    let noise = golden(name, "noise");
    let angles = 26.0 * 2f64.powi(-24) * 8.0;
    let tolerance = |part: usize| if rounded { 3.0 * noise[part] + angles } else { 0.0 };
    close(name, &found.weights.concat(), &wide(&expected.weights.concat()), tolerance(0));
    close(name, &found.last, &wide(&expected.last), tolerance(1));
    close(name, &logits[0], &wide(&logits[1]), tolerance(2));
}

#[test]
fn llama_with_factors_for_its_frequencies() {
    agrees("llama3", json!({}), true);
    // They matter here, and are not those of no scaling.
    let plain = changed("llama3", json!({"rope_scaling": null}));
    let scaled = changed("llama3", json!({}));
    let [plain, scaled] = [plain, scaled].map(|model| run(model.as_ref(), Input::text(&ids("llama3"))).last);
    assert!(plain.iter().zip(&scaled).any(|(a, b)| (a - b).abs() > 0.01));
}

#[test]
fn llama_with_biases_and_linear_scaling() {
    agrees("llama-linear", json!({}), false);
}

#[test]
fn llama_with_yarn() {
    agrees("llama-yarn", json!({}), false);
}

#[test]
fn mistral_with_a_window() {
    agrees("mistral", json!({}), false);
}

#[test]
fn qwen2_with_biases() {
    agrees("qwen2", json!({"use_sliding_window": false}), false);
}

#[test]
fn qwen3_with_norms_of_heads() {
    agrees("qwen3", json!({}), false);
}

#[test]
fn phi3_with_both_lists_of_longrope() {
    agrees("phi3", json!({}), false);
}

#[test]
fn gpt2_with_transposed_matrices() {
    agrees("gpt2", json!({"scale_attn_by_inverse_layer_idx": false}), false);
}

#[test]
fn gemma2_with_caps_and_norms_around_one() {
    agrees("gemma2", json!({"query_pre_attn_scalar": 8}), true);
}

#[test]
fn gemma3_with_two_rotaries() {
    agrees("gemma3", json!({"query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0}), true);
}
