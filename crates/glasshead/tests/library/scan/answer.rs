//! An answer, token by token over the cache, is read as one pass over the whole sequence reads it.

use std::path::{Path, PathBuf};

use crate::common::models::{folder, ids};
use glasshead::attention::{Array, Values};
use glasshead::look::scan::{Choice, Plan, Request, Role, Scan, Source};
use glasshead::models::load;

/// Of one weight: what passes of different sizes are off by, as in `models/passes.rs`.
const WEIGHT: f64 = 1.2e-5;
const BLOCK: usize = 5;
const READ: &str = "lse,entropy,max,top=3,received,first,segments=7:12,blocks=5,distance";

fn request(path: &Path, ids: Vec<u32>, read: &str, answer: usize) -> Request {
    Request {
        source: Source::Ids(ids),
        model: "tiny".into(),
        path: path.to_owned(),
        layers: Choice::Some(vec![1, 0]),
        heads: Choice::Some(vec![3, 0, 2]),
        read: read.into(),
        ask: None,
        answer,
        each: None,
        force_context: false,
        instruction_set: None,
        command: "a test".into(),
    }
}

fn scan(request: Request) -> Scan {
    Plan::new(request).and_then(|plan| plan.run(&mut ())).unwrap_or_else(|error| panic!("{error}"))
}

fn floats(array: &Array) -> &[f32] {
    array.f32().unwrap_or_else(|| panic!("{}", array.name))
}

/// How far a readout of weights that are each off by `WEIGHT` may be off, over `n` keys.
fn tolerance(scan: &Scan, name: &str) -> f64 {
    let n = scan.tokens.len() as f64;
    match name {
        // A sum of up to n weights, and the f32 sums of n passes on top.
        "received" => n * (WEIGHT + n * f64::from(f32::EPSILON)),
        "segments" => n * WEIGHT,
        "blocks" => (BLOCK * BLOCK) as f64 * (WEIGHT + n * f64::from(f32::EPSILON)),
        "distance" => n * n * WEIGHT,
        // d(−Σ p ln p) = −Σ (1 + ln p) dp over all rows, from the rows themselves.
        "entropy" => {
            let rows = floats(scan.readout("rows").expect("rows")).chunks_exact(scan.tokens.len());
            let steep = |p: &f32| if *p > 0.0 { (1.0 + f64::from(*p).ln()).abs() } else { 0.0 };
            WEIGHT * rows.map(|row| row.iter().map(steep).sum()).fold(1.0, f64::max)
        }
        // Logits of numbers near 1 are off like the hidden vectors they come from; their weights say how far:
        // d ln Σ exp(x) = Σ p dx.
        "lse" => 10.0 * WEIGHT,
        _ => WEIGHT,
    }
}

#[track_caller]
fn same(name: &str, got: &Scan, want: &Scan) {
    let names = |scan: &Scan| {
        let mut names: Vec<_> = scan.readouts.iter().map(|array| (array.name, array.shape.clone())).collect();
        names.sort();
        names
    };
    assert_eq!(names(got), names(want), "{name}");
    assert_eq!(got.rows, want.rows, "{name}");
    for want_array in &want.readouts {
        let got_array = got.readout(want_array.name).expect("the same names");
        let most = tolerance(want, want_array.name);
        match (&got_array.values, &want_array.values) {
            (Values::F32(got), Values::F32(want)) => {
                for (at, (got, want)) in got.iter().zip(want).enumerate() {
                    let off = f64::from(got - want).abs();
                    assert!(off <= most, "{name}, {}[{at}]: {got}, not {want}", want_array.name);
                }
            }
            // Which of two keys with nearly the same weight comes first is nobody's promise.
            (Values::I64(got), Values::I64(wanted)) => {
                let weights = floats(want.readout("top_weight").expect("with its weights"));
                for (at, (got, wanted)) in got.iter().zip(wanted).enumerate() {
                    let near = |other: usize| f64::from(weights[at] - weights[other]).abs() <= 2.0 * WEIGHT;
                    let tied = (at % 3 > 0 && near(at - 1)) || at % 3 == 2 || near(at + 1);
                    assert!(got == wanted || tied, "{name}, {}[{at}]", want_array.name);
                }
            }
            _ => panic!("{}", want_array.name),
        }
    }
}

/// The folder of a tiny model with other keys in its config.
fn changed(name: &str, key: &str, value: serde_json::Value) -> (tempfile::TempDir, PathBuf) {
    let desk = tempfile::tempdir().expect("a folder");
    let config = std::fs::read(folder(name).join("config.json")).expect("read");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config[key] = value;
    std::fs::write(desk.path().join("config.json"), config.to_string()).expect("written");
    std::fs::copy(folder(name).join("model.safetensors"), desk.path().join("model.safetensors"))
        .expect("copied");
    let path = desk.path().to_owned();
    (desk, path)
}

#[test]
fn every_readout_of_an_answer_is_that_of_one_pass() {
    const ANSWER: usize = 8;
    for name in ["llama3", "mistral", "qwen3", "gpt2", "gemma2"] {
        // Without an end, the answer is as long as it may be.
        let (_desk, path) = changed(name, "eos_token_id", serde_json::json!(null));
        let prompt: Vec<u32> = ids(name)[..14].to_vec();
        let answered = scan(request(&path, prompt.clone(), READ, ANSWER));
        let all: Vec<u32> = answered.tokens.iter().map(|token| token.id).collect();
        assert_eq!((all.len(), &all[..14]), (14 + ANSWER, &prompt[..]), "{name}");
        assert!(answered.tokens[14..].iter().all(|token| token.role == Role::Answer));
        assert_eq!(answered.rows, (14..14 + ANSWER).collect::<Vec<_>>());
        let rows = answered.rows.iter().map(usize::to_string).collect::<Vec<_>>().join(":");
        let whole = scan(request(&path, all.clone(), &format!("{READ},rows={rows}"), 0));
        same(name, &answered, &whole);
        // Rows that were named stay as they are, with keys up to the end of the answer.
        let read = format!("{READ},rows=13:2");
        let named = scan(request(&path, prompt, &read, ANSWER));
        assert_eq!(named.rows, [13, 2]);
        same(name, &named, &scan(request(&path, all, &read, 0)));
    }
}

#[test]
fn an_answer_ends_before_an_end_of_text() {
    let (_desk, endless) = changed("llama3", "eos_token_id", serde_json::json!(null));
    let prompt: Vec<u32> = ids("llama3")[..14].to_vec();
    let long = scan(request(&endless, prompt.clone(), READ, 12));
    let written: Vec<u32> = long.tokens[14..].iter().map(|token| token.id).collect();
    // The first token that was not written before ends the answer of a model that calls it its end.
    let place = (1..12).find(|&at| !written[..at].contains(&written[at])).expect("not one word all the time");
    let (_desk, path) = changed("llama3", "eos_token_id", serde_json::json!([written[place]]));
    let short = scan(request(&path, prompt, READ, 12));
    let all: Vec<u32> = short.tokens.iter().map(|token| token.id).collect();
    assert_eq!(all[14..], written[..place]);
    let rows = short.rows.iter().map(usize::to_string).collect::<Vec<_>>().join(":");
    same("llama3", &short, &scan(request(&path, all, &format!("{READ},rows={rows}"), 0)));
}

#[test]
fn a_long_text_is_read_when_it_is_forced() {
    let path = folder("llama3");
    let most = load(&path).expect("loads").model.info().max_tokens;
    let long: Vec<u32> = ids("llama3").into_iter().cycle().take(most + 6).collect();
    let error = Plan::new(request(&path, long.clone(), "entropy", 0)).expect_err("too long").to_string();
    assert!(error.contains(&format!("ends after {most}")), "{error}");
    let forced = scan(Request { force_context: true, ..request(&path, long.clone(), "entropy", 2) });
    let entropy = forced.readout("entropy").expect("asked for");
    assert_eq!(entropy.shape, [2, 3, forced.tokens.len()]);
    assert!(forced.tokens.len() >= most + 6 && floats(entropy).iter().all(|x| x.is_finite()));
    // The context counts the answer, too.
    let error = Plan::new(request(&path, long[..most - 1].to_vec(), "entropy", 2)).expect_err("too long");
    assert!(error.to_string().contains("ends 1 tokens behind"), "{error}");
    let endless = Request { force_context: true, ..request(&path, long, "entropy", usize::MAX) };
    assert!(Plan::new(endless).expect_err("too long").to_string().contains("at most 65536"));
    // A table of positions has an end, whatever one wants.
    let path = folder("gpt2");
    let most = load(&path).expect("loads").model.info().max_tokens;
    let long: Vec<u32> = ids("gpt2").into_iter().cycle().take(most + 1).collect();
    let plan = Plan::new(Request { force_context: true, ..request(&path, long, "entropy", 0) });
    assert!(plan.and_then(|plan| plan.run(&mut ())).is_err());
}
