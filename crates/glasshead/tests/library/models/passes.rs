//! One pass, several texts in a pass, and token by token over a cache: the same numbers each way.

use crate::common::models::{Seen, close, ids, model, run, wide};
use glasshead::models::{Cache, Input, Limit, Model, Unwatched, generate};

const DECODERS: &[&str] = &[
    "llama3",
    "llama-linear",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "gpt2",
    "gemma2",
    "gemma3",
    "gemma3-new",
];

/// Passes of different sizes add up in different orders: what the goldens know as the noise of f32 in such small
/// models (at most 6e-6 of numbers near 1), once for each of two passes.
const TOLERANCE: f64 = 1.2e-5;

/// The weights of some queries of one layer, `[heads, queries, keys]`, cut from those of all of them.
fn cut(
    all: &[f32],
    heads: usize,
    size: usize,
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
) -> Vec<f32> {
    let mut cut = Vec::new();
    for head in 0..heads {
        for query in queries.clone() {
            let row = (head * size + query) * size;
            cut.extend(&all[row + keys.start..row + keys.end]);
        }
    }
    cut
}

/// Reads `ids` piece by piece and compares each with the part of `whole` that it stands for.
fn piece_by_piece(name: &str, model: &dyn Model, ids: &[u32], ends: &[usize], whole: &Seen) {
    let (heads, hidden) = (model.info().heads, model.info().hidden);
    let mut cache = Cache::new(model.info(), ids.len()).expect("small");
    let mut start = 0;
    for &end in ends {
        let seen = run(model, Input::after(&ids[start..end], &mut cache));
        assert_eq!(cache.len(), end);
        assert!(seen.offsets.iter().all(|&offset| offset == start), "{name}");
        for (layer, all) in seen.weights.iter().zip(&whole.weights) {
            let expected = cut(all, heads, ids.len(), start..end, 0..end);
            close(name, layer, &wide(&expected), TOLERANCE);
        }
        close(name, &seen.last, &wide(&whole.last[start * hidden..end * hidden]), TOLERANCE);
        start = end;
    }
}

#[test]
fn token_by_token_is_all_at_once() {
    for name in DECODERS {
        let (model, ids) = (model(name), ids(name));
        let whole = run(model.as_ref(), Input::text(&ids));
        let single: Vec<usize> = (1..=ids.len()).collect();
        piece_by_piece(name, model.as_ref(), &ids, &single, &whole);
        // Pieces on both sides of where the engine changes its way of computing (16 queries).
        piece_by_piece(name, model.as_ref(), &ids, &[20, 21, 24, ids.len()], &whole);
    }
}

#[test]
fn texts_of_one_pass_do_not_see_each_other() {
    for name in DECODERS.iter().chain(&["phi3", "bert"]) {
        let (model, ids) = (model(name), ids(name));
        let (heads, hidden) = (model.info().heads, model.info().hidden);
        // Of Phi-3, one text longer than 18 tokens and others that are shorter: each with its own frequencies.
        let ends = [3, 4, ids.len(), ids.len() + 17];
        let all = [&ids[..], &ids[..17]].concat();
        let packed = run(model.as_ref(), Input::several(&all, &ends));
        let mut start = 0;
        for end in ends {
            let alone = run(model.as_ref(), Input::text(&all[start..end]));
            close(name, &packed.last[start * hidden..end * hidden], &wide(&alone.last), TOLERANCE);
            for (packed, alone) in packed.weights.iter().zip(&alone.weights) {
                let own = cut(packed, heads, all.len(), start..end, start..end);
                close(name, &own, &wide(alone), TOLERANCE);
                let others = cut(packed, heads, all.len(), start..end, 0..start);
                assert!(others.iter().all(|&weight| weight == 0.0), "{name}");
            }
            start = end;
        }
    }
}

#[test]
fn a_pass_that_was_stopped_leaves_the_cache_as_it_was() {
    let (model, ids) = (model("llama3"), ids("llama3"));
    let whole = run(model.as_ref(), Input::text(&ids));
    let mut cache = Cache::new(model.info(), ids.len()).expect("small");
    run(model.as_ref(), Input::after(&ids[..9], &mut cache));
    let mut stopped = Seen { stop_at: Some(1), ..Seen::default() };
    model.run(Input::after(&ids[3..9], &mut cache), &mut stopped).expect("runs");
    assert_eq!((cache.len(), stopped.last.len(), stopped.weights.len()), (9, 0, 1));
    let rest = run(model.as_ref(), Input::after(&ids[9..], &mut cache));
    close("llama3", &rest.last, &wide(&whole.last[9 * model.info().hidden..]), TOLERANCE);
    // And back: a cache that was cut goes on from there.
    cache.truncate(4);
    let again = run(model.as_ref(), Input::after(&ids[4..], &mut cache));
    close("llama3", &again.last, &wide(&whole.last[4 * model.info().hidden..]), TOLERANCE);
}

#[track_caller]
fn refused(model: &dyn Model, input: Input<'_>, words: &[&str]) {
    let mut seen = Seen::default();
    let error = model.run(input, &mut seen).expect_err("refused");
    let said = error.to_string();
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert!(!error.hint().is_empty() && seen.inputs.is_empty());
}

#[test]
fn caches_and_ends_that_do_not_fit_are_refused() {
    let llama = model("llama3");
    let mut cache = Cache::new(llama.info(), 5).expect("small");
    assert!(cache.is_empty() && cache.capacity() == 5);
    refused(llama.as_ref(), Input::after(&[1; 6], &mut cache), &["6 more tokens", "0 of 5"]);
    run(llama.as_ref(), Input::after(&[1; 5], &mut cache));
    refused(llama.as_ref(), Input::after(&[1], &mut cache), &["1 more tokens", "5 of 5"]);
    refused(model("qwen3").as_ref(), Input::after(&[1], &mut cache), &["another model"]);
    refused(model("bert").as_ref(), Input::after(&[1], &mut cache), &["bert", "no cache"]);
    let mut cache = Cache::new(llama.info(), 5).expect("small");
    let several = Input { cache: Some(&mut cache), ..Input::several(&[1; 4], &[2, 4]) };
    refused(llama.as_ref(), several, &["several texts"]);
    for ends in [&[2usize, 3][..], &[3, 2, 4], &[5], &[usize::MAX]] {
        refused(llama.as_ref(), Input::several(&[1; 4], ends), &["ends", "4"]);
    }
    refused(llama.as_ref(), Input::several(&[1; 4], &[2, 2, 4]), &["no tokens"]);
    refused(llama.as_ref(), Input::several(&[1, 61], &[1, 2]), &["61"]);
    assert!(Cache::new(llama.info(), usize::MAX).is_err());
}

#[test]
fn a_context_can_be_forced_where_positions_are_computed() {
    let long = [5u32; 65];
    let llama = model("llama3");
    refused(llama.as_ref(), Input::text(&long), &["65 tokens", "at most 64"]);
    let mut cache = Cache::new(llama.info(), 65).expect("small");
    run(llama.as_ref(), Input::after(&long[..60], &mut cache));
    refused(llama.as_ref(), Input::after(&long[60..], &mut cache), &["65 tokens", "at most 64"]);
    let forced = run(llama.as_ref(), Input { force_context: true, ..Input::text(&long) });
    assert_eq!(forced.last.len(), 65 * 32);
    // A table of positions has no more of them.
    let forced = Input { force_context: true, ..Input::text(&long[..41]) };
    refused(model("gpt2").as_ref(), forced, &["41 tokens", "at most 40"]);
}

#[test]
fn a_cache_that_grows_past_the_first_context_of_longrope_is_refused() {
    let (model, ids) = (model("phi3"), ids("phi3"));
    let mut cache = Cache::new(model.info(), 40).expect("small");
    run(model.as_ref(), Input::after(&ids[..18], &mut cache));
    refused(model.as_ref(), Input::after(&ids[18..20], &mut cache), &["past 18 tokens"]);
    // Inside of either it is the same as all at once.
    piece_by_piece(
        "phi3",
        model.as_ref(),
        &ids[..18],
        &[5, 18],
        &run(model.as_ref(), Input::text(&ids[..18])),
    );
}

#[test]
fn writing_stops_where_it_is_told_to() {
    let (model, ids) = (model("mistral"), ids("mistral"));
    let hidden = model.info().hidden;
    let write = |tokens, stop: &[u32]| {
        let mut cache = Cache::new(model.info(), 64).expect("small");
        let seen = run(model.as_ref(), Input::after(&ids, &mut cache));
        let last = &seen.last[seen.last.len() - hidden..];
        let limit = Limit { tokens, stop, force_context: false, instruction_set: None };
        let written = generate(model.as_ref(), &mut cache, last, limit, &mut Unwatched).expect("writes");
        assert_eq!(cache.len(), ids.len() + written.len());
        written
    };
    let eight = write(8, &[]);
    assert_eq!(eight.len(), 8);
    let stop = eight[5];
    let first = eight.iter().position(|&id| id == stop).expect("there");
    assert_eq!(write(8, &[stop]), eight[..first]);
    assert!(write(0, &[]).is_empty());
    let mut seen = Seen { stop_at: Some(0), ..Seen::default() };
    let mut cache = Cache::new(model.info(), 64).expect("small");
    let start = run(model.as_ref(), Input::after(&ids, &mut cache));
    let last = &start.last[start.last.len() - hidden..];
    let limit = Limit { tokens: 8, stop: &[], force_context: false, instruction_set: None };
    let written = generate(model.as_ref(), &mut cache, last, limit, &mut seen).expect("writes");
    assert_eq!(written, eight[..1], "a watch that breaks ends it");
}

#[test]
fn a_model_without_a_head_says_so() {
    let error = model("bert").logits(&[0.0; 48]).expect_err("refused");
    assert!(error.to_string().contains("bert") && !error.hint().is_empty());
    let llama = model("llama3");
    for wrong in [0, 31, 33] {
        let error = llama.logits(&vec![0.0; wrong]).expect_err("refused");
        assert!(error.to_string().contains(&wrong.to_string()), "{error}");
    }
    assert_eq!(llama.logits(&[0.1; 64]).expect("two vectors").len(), 2 * 61);
}
