//! The forward of every family of decoders against what its authors' code computes.

use crate::common::models::{close, golden, ids, model, run};
use glasshead::look::gather;
use glasshead::models::{Cache, Input, Limit, Unwatched, generate};

/// All weights of all layers, the last hidden vectors, the logits and the greedy continuation.
///
/// The goldens are f32 as well, with a known distance from f64 at its worst. Ours is another f32 computation of the
/// same, in another order: as far away, twice as far if it is the worst of so many numbers by chance. Both errors
/// may point in opposite directions: 3 times that distance. The angles of the rotary embedding are f64 here and f32
/// there, wrong by up to 26 · 2⁻²⁴ of a turn's radian and not in that distance: 26 · 2⁻²⁴ · |score| (8 here) more.
#[track_caller]
fn agrees(name: &str) {
    let (model, ids) = (model(name), ids(name));
    let noise = golden(name, "noise");
    let angles = 26.0 * 2f64.powi(-24) * 8.0;
    let mut cache = Cache::new(model.info(), ids.len() + 8).expect("small");
    let seen = run(model.as_ref(), Input::after(&ids, &mut cache));
    let weights: Vec<f32> = seen.weights.concat();
    close(name, &weights, &golden(name, "expect_attention"), 3.0 * noise[0] + angles);
    close(name, &seen.last, &golden(name, "expect_last_hidden_state"), 3.0 * noise[1] + angles);
    // Without a cache it is the same pass.
    let alone = run(model.as_ref(), Input::text(&ids));
    assert_eq!((alone.weights.concat(), &alone.last), (weights, &seen.last));

    let last = &seen.last[seen.last.len() - model.info().hidden..];
    let logits = model.logits(last).expect("has a head");
    close(name, &logits, &golden(name, "expect_logits"), 3.0 * noise[2] + angles);
    let limit = Limit { tokens: 8, stop: &[], force_context: false, instruction_set: None };
    let written = generate(model.as_ref(), &mut cache, last, limit, &mut Unwatched).expect("writes");
    let written: Vec<f64> = written.into_iter().map(f64::from).collect();
    assert_eq!(written, golden(name, "expect_written"), "{name}");
}

#[test]
fn llama_with_groups_and_llama3_scaling() {
    agrees("llama3");
}

#[test]
fn llama_with_biases_and_linear_scaling() {
    agrees("llama-linear");
}

#[test]
fn llama_with_yarn() {
    agrees("llama-yarn");
}

#[test]
fn mistral_with_a_window() {
    agrees("mistral");
}

#[test]
fn qwen2_with_biases_and_a_window_in_the_last_layer() {
    agrees("qwen2");
}

#[test]
fn qwen3_with_norms_of_heads() {
    agrees("qwen3");
}

#[test]
fn phi3_with_longrope_and_part_of_a_head_turned() {
    agrees("phi3");
}

#[test]
fn gpt2_with_scores_scaled_by_layer() {
    agrees("gpt2");
}

#[test]
fn gemma2_with_caps_and_alternating_windows() {
    agrees("gemma2");
}

#[test]
fn gemma3_as_published() {
    agrees("gemma3");
}

#[test]
fn gemma3_with_a_kind_per_layer() {
    agrees("gemma3-new");
}

#[test]
fn the_four_steps_are_refused_where_a_layer_does_more() {
    let refused = |name: &str, layer, words: &str| {
        let error = gather(model(name).as_ref(), &ids(name), layer).expect_err("refused");
        assert!(error.to_string().contains(words) && error.to_string().contains(name), "{error}");
    };
    refused("gemma2", 1, "softcap");
    refused("mistral", 0, "window");
    refused("qwen2", 1, "window");
    assert!(gather(model("qwen2").as_ref(), &ids("qwen2"), 0).is_ok());
    let short = gather(model("mistral").as_ref(), &ids("mistral")[..7], 0).expect("fits into the window");
    assert!(short.causal && short.q.len() == 4 && short.k.len() == 4);
}
