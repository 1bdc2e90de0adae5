//! Configs of decoders: both spellings of the rotary settings, and what a forward would compute wrongly.

use std::fs;

use crate::common::models::{self, Seen, folder, ids, run};
use glasshead::Fault;
use glasshead::models::{Input, Model, load};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of a tiny model with some config keys changed: `"remove"` removes one, all else is set.
fn changed(name: &str, changes: &Value) -> TempDir {
    let copy = TempDir::new().expect("temporary folder");
    let config = fs::read(folder(name).join("config.json")).expect("read");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    for (key, value) in changes.as_object().expect("an object") {
        if value == "remove" {
            config.as_object_mut().expect("an object").remove(key);
        } else {
            config[key] = value.clone();
        }
    }
    fs::write(copy.path().join("config.json"), config.to_string()).expect("written");
    fs::copy(folder(name).join("model.safetensors"), copy.path().join("model.safetensors")).expect("copied");
    copy
}

#[track_caller]
fn loaded(name: &str, changes: Value) -> Box<dyn Model> {
    load(changed(name, &changes).path()).unwrap_or_else(|error| panic!("{name}: {error}")).model
}

#[track_caller]
fn refused(name: &str, changes: Value, words: &[&str]) {
    let error = load(changed(name, &changes).path()).expect_err("refused");
    let said = error.to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(error.fault() == Fault::Request && !error.hint().is_empty() && !said.contains('\n'));
}

fn seen(model: &dyn Model, name: &str) -> Seen {
    run(model, Input::text(&ids(name)))
}

#[track_caller]
fn same(name: &str, changes: Value) {
    let changed = seen(loaded(name, changes).as_ref(), name);
    let as_is = seen(models::model(name).as_ref(), name);
    assert_eq!((changed.weights, changed.last), (as_is.weights, as_is.last), "{name}");
}

#[track_caller]
fn other(name: &str, changes: Value) {
    let changed = seen(loaded(name, changes).as_ref(), name);
    assert_ne!(changed.last, seen(models::model(name).as_ref(), name).last, "{name}");
}

#[test]
fn both_spellings_of_rotary_settings_are_read() {
    // Old in the file, new here, and the other way round.
    let mut llama3 = json!({
        "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
        "original_max_position_embeddings": 12
    });
    same("llama3", json!({"rope_scaling": null, "rope_theta": 10000, "rope_parameters": llama3}));
    llama3["rope_theta"] = json!(10000.0);
    same("llama3", json!({"rope_scaling": "remove", "rope_theta": "remove", "rope_parameters": llama3}));
    // Both at once, as long as they agree.
    same("llama3", json!({"rope_parameters": llama3}));
    let linear = json!({"type": "linear", "factor": 2.5});
    same("llama-linear", json!({"rope_parameters": "remove", "rope_theta": 500, "rope_scaling": linear}));
    same("mistral", json!({"rope_theta": "remove"}));
    let full = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0});
    let new =
        json!({"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}});
    same("gemma3", json!({"rope_parameters": new}));
    let gone = "remove";
    same(
        "gemma3",
        json!({"rope_parameters": new, "rope_theta": gone, "rope_local_base_freq": gone, "rope_scaling": gone}),
    );
}

#[test]
fn spellings_that_contradict_each_other_are_refused() {
    let default = |base: f64| json!({"rope_type": "default", "rope_theta": base});
    refused("mistral", json!({"rope_parameters": default(5e5)}), &["`rope_theta`", "10000", "500000"]);
    refused("llama3", json!({"rope_parameters": default(1e4)}), &["rope_scaling", "rope_parameters"]);
    let twice = json!({"type": "linear", "rope_type": "default", "factor": 2.0, "rope_theta": 500.0});
    refused("llama-linear", json!({"rope_parameters": twice}), &["rope_type", "type"]);
    let new = json!({"full_attention": {"rope_type": "default", "rope_theta": 1000.0}});
    refused("gemma3", json!({"rope_parameters": new}), &["rope_parameters.full_attention"]);
    let sliding = json!({"sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}});
    refused("gemma3", json!({"rope_parameters": sliding}), &["rope_parameters.sliding_attention"]);
}

#[test]
fn rotary_settings_that_are_not_done_here() {
    let settings = |change: Value| {
        let mut settings = json!({"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5});
        settings.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        json!({"rope_parameters": settings})
    };
    refused(
        "llama-linear",
        settings(json!({"rope_type": "dynamic"})),
        &["rope_parameters.rope_type", "dynamic"],
    );
    refused("llama-linear", settings(json!({"rope_type": "mrope"})), &["mrope"]);
    refused("llama-linear", settings(json!({"factor": 0})), &["rope_parameters.factor", "0"]);
    refused("llama-linear", settings(json!({"factor": null})), &["rope_parameters.factor", "missing"]);
    refused("llama-linear", settings(json!({"factor": "2"})), &["rope_parameters.factor"]);
    refused("llama-linear", settings(json!({"mrope_section": [1, 2]})), &["rope_parameters.mrope_section"]);
    refused("llama-linear", settings(json!({"partial_rotary_factor": 0.5})), &["0.5"]);
    refused("llama-linear", json!({"rope_parameters": [1]}), &["rope_parameters", "object"]);
    refused("llama3", json!({"rope_interleaved": true}), &["rope_interleaved"]);
    refused("llama3", json!({"head_dim": 5}), &["5 numbers", "pairs"]);
    let short = |factors: Value| json!({"rope_scaling": {"rope_type": "longrope", "long_factor": [1.0, 1.0], "short_factor": factors}});
    refused("phi3", short(json!([1.0])), &["rope_scaling.short_factor", "2 positive"]);
    refused("phi3", short(json!([1.0, -1.0])), &["rope_scaling.short_factor"]);
    refused("phi3", short(json!(null)), &["rope_scaling.short_factor", "missing"]);
    refused("phi3", json!({"partial_rotary_factor": 1.5}), &["1.5"]);
    refused("gemma3", json!({"rope_parameters": {"rope_theta": 1000.0}}), &["rope_parameters.rope_theta"]);
}

#[test]
fn what_a_config_leaves_out_is_what_its_authors_code_takes() {
    same("mistral", json!({"head_dim": null, "rope_scaling": "remove", "rms_norm_eps": 1e-6}));
    // Mistral without a word about it has the window of its first version, longer than this text.
    let all = json!({"sliding_window": null});
    let silent = seen(loaded("mistral", json!({"sliding_window": "remove"})).as_ref(), "mistral");
    assert_eq!(silent.last, seen(loaded("mistral", all.clone()).as_ref(), "mistral").last);
    other("mistral", all);
    // Qwen2's window is used only where it says so.
    other("qwen2", json!({"use_sliding_window": false}));
    same("qwen2", json!({"layer_types": ["full_attention", "sliding_attention"]}));
    other("qwen2", json!({"layer_types": ["sliding_attention", "full_attention"]}));
    other("qwen2", json!({"max_window_layers": "remove"}));
    // Gemma 2 has a window in every other layer, beginning with the first.
    same("gemma2", json!({"layer_types": "remove"}));
    same("gemma2", json!({"hidden_act": "silu", "cache_implementation": "hybrid"}));
    other("gemma2", json!({"attn_logit_softcapping": null}));
    other("gemma3", json!({"sliding_window_pattern": 2}));
    other("gpt2", json!({"scale_attn_weights": false}));
    other("gpt2", json!({"scale_attn_by_inverse_layer_idx": false}));
    same("gpt2", json!({"tie_word_embeddings": null, "scale_attn_weights": null}));
    // Four times the vector, which these weights are not.
    refused("gpt2", json!({"n_inner": null}), &["mlp.c_fc", "128"]);
    same("gpt2", json!({"reorder_and_upcast_attn": true, "n_ctx": 40}));
    same("llama3", json!({"pretraining_tp": 2, "is_llama_config": true, "rope_interleaved": false}));
}

#[test]
fn keys_that_change_the_forward_are_refused_by_name() {
    refused("llama3", json!({"sliding_window": 8}), &["`sliding_window`", "llama"]);
    refused("llama3", json!({"quantization_config": {"bits": 4}}), &["quantization_config"]);
    refused("llama3", json!({"hidden_act": "swiglu"}), &["hidden_act", "swiglu"]);
    refused("llama3", json!({"is_encoder_decoder": true}), &["is_encoder_decoder"]);
    refused("mistral", json!({"layer_types": ["full_attention"]}), &["layer_types"]);
    refused("qwen2", json!({"layer_types": ["full_attention"]}), &["1 `layer_types` for 2 layers"]);
    refused("qwen2", json!({"layer_types": ["full_attention", "chunked"]}), &["layer_types", "chunked"]);
    let slides = json!({"layer_types": ["full_attention", "sliding_attention"], "use_sliding_window": false});
    refused("qwen2", slides, &["no window"]);
    refused("qwen2", json!({"use_mrope": true}), &["use_mrope"]);
    refused("qwen3", json!({"head_dim": null}), &["head_dim"]);
    refused("phi3", json!({"lm_head_bias": true}), &["lm_head_bias"]);
    refused("gemma2", json!({"use_bidirectional_attention": true}), &["use_bidirectional_attention"]);
    refused("gemma3", json!({"attn_logit_softcapping": 50.0}), &["attn_logit_softcapping", "50"]);
    refused("gpt2", json!({"add_cross_attention": true}), &["add_cross_attention"]);
    refused("gpt2", json!({"activation_function": "tanh"}), &["activation_function", "tanh"]);
}

#[test]
fn sizes_that_do_not_fit_together_are_refused() {
    refused("llama3", json!({"num_key_value_heads": 3}), &["4 heads", "3"]);
    refused("mistral", json!({"num_attention_heads": 5, "head_dim": null}), &["32", "5"]);
    refused("llama3", json!({"head_dim": usize::MAX - 1}), &["numbers of each head"]);
    refused("llama3", json!({"head_dim": 12}), &["q_proj"]);
    refused("llama3", json!({"num_hidden_layers": u64::MAX}), &["layers.2."]);
    refused("phi3", json!({"intermediate_size": usize::MAX}), &["gate_up_proj"]);
    refused("gemma2", json!({"num_hidden_layers": u64::MAX}), &["layer"]);
    refused("gemma2", json!({"layer_types": "remove", "num_hidden_layers": u64::MAX}), &["layer"]);
    refused("gemma3", json!({"sliding_window_pattern": 0}), &["sliding_window_pattern"]);
    refused("gpt2", json!({"n_head": 5}), &["32", "5"]);
    refused("gpt2", json!({"n_embd": usize::MAX, "n_inner": null}), &["heads"]);
    refused("llama3", json!({"tie_word_embeddings": 1}), &["tie_word_embeddings"]);
    refused("llama3", json!({"rms_norm_eps": -1}), &["rms_norm_eps"]);
}

#[test]
fn a_checkpoint_without_its_head_can_be_looked_at_but_cannot_write() {
    use glasshead::weights::{NewArray, read_safetensors, write_safetensors};
    let copy = changed("llama3", &json!({}));
    let arrays = read_safetensors(&folder("llama3").join("model.safetensors")).expect("sound");
    let renamed: Vec<NewArray<'_>> = arrays
        .list()
        .filter(|(name, _)| *name != "lm_head.weight")
        .map(|(name, _)| {
            let (data, shape) = arrays.get(name).expect("there");
            NewArray::new(name.strip_prefix("model.").expect("of the model").to_owned(), shape, &data)
        })
        .collect();
    write_safetensors(&copy.path().join("model.safetensors"), &renamed, &Default::default())
        .expect("written");
    let headless = load(copy.path()).expect("loads").model;
    let found = seen(headless.as_ref(), "llama3");
    assert_eq!(found.last, seen(models::model("llama3").as_ref(), "llama3").last);
    let error = headless.logits(&found.last).expect_err("refused");
    assert!(error.to_string().contains("lm_head.weight"), "{error}");
}
