//! The forward of the BERT family against what its authors' code computes.

use std::ops::ControlFlow;
use std::path::Path;

use glasshead::attention::{Array, Read};
use glasshead::models::{LayerView, Model, Watch, load};
use glasshead::weights::{ArrayData, NewArray, read_safetensors, write_safetensors};
use serde_json::json;
use tempfile::TempDir;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-bert");

/// Keeps the attention of every layer, `[layers, heads, queries, keys]`, and what comes out at the end.
#[derive(Default)]
struct Seen {
    weights: Vec<f64>,
    inputs: Vec<Vec<f32>>,
    last: Vec<f32>,
    stop_at: Option<usize>,
    stop_after: Option<usize>,
}

impl Watch for Seen {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        self.inputs.push(view.input.to_vec());
        if self.stop_at == Some(view.layer) {
            return ControlFlow::Break(());
        }
        let (q, k) = (view.attention.q(), view.attention.k());
        let [_, heads, tokens, dim] = q.shape();
        for head in 0..heads {
            for query in 0..tokens {
                let q = q.vector(0, head, query).to_f64();
                let score = |key| {
                    let k = k.vector(0, head, key).to_f64();
                    q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()
                };
                let scores: Vec<f64> = (0..tokens).map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = exps.iter().sum();
                self.weights.extend(exps.iter().map(|exp| exp / sum));
            }
        }
        ControlFlow::Continue(Read::new())
    }

    fn seen(&mut self, layer: usize, _: Vec<Array>) -> ControlFlow<()> {
        if self.stop_after == Some(layer) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        self.last = last_hidden.to_vec();
    }
}

fn run(model: &dyn Model, ids: &[u32]) -> Seen {
    let mut seen = Seen::default();
    model.forward(ids, &mut seen).expect("runs");
    seen
}

fn tiny_ids() -> Vec<u32> {
    let ids = std::fs::read(Path::new(TINY).join("ids.json")).expect("read");
    serde_json::from_slice(&ids).expect("a list of numbers")
}

fn golden(name: &str) -> Vec<f32> {
    let arrays = read_safetensors(&Path::new(TINY).join("golden.safetensors")).expect("sound");
    match arrays.get(name).expect("there").0 {
        ArrayData::F32(data) => data,
        other => panic!("{:?}", other.dtype()),
    }
}

#[track_caller]
fn agree(found: impl IntoIterator<Item = f64>, expected: &[f32], atol: f64, rtol: f64) {
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    for (index, (found, &expected)) in found.iter().zip(expected).enumerate() {
        let expected = f64::from(expected);
        assert!(
            (found - expected).abs() <= atol + rtol * expected.abs(),
            "[{index}] {found} instead of {expected}"
        );
    }
}

#[test]
fn tiny_bert_agrees_with_transformers() {
    let loaded = load(Path::new(TINY)).expect("loads");
    let seen = run(loaded.model.as_ref(), &tiny_ids());
    agree(seen.weights, &golden("expect_attention"), 2e-5, 2e-4);
    agree(seen.last.iter().map(|&x| x.into()), &golden("expect_last_hidden_state"), 2e-4, 2e-4);
}

#[test]
fn a_pass_that_is_stopped_computes_no_more() {
    let loaded = load(Path::new(TINY)).expect("loads");
    let mut seen = Seen { stop_at: Some(0), ..Seen::default() };
    loaded.model.forward(&tiny_ids(), &mut seen).expect("runs");
    assert_eq!((seen.inputs.len(), seen.weights.len(), seen.last.len()), (1, 0, 0));

    let whole = run(loaded.model.as_ref(), &tiny_ids());
    let layers = whole.inputs.len();
    let mut seen = Seen { stop_after: Some(layers - 1), ..Seen::default() };
    loaded.model.forward(&tiny_ids(), &mut seen).expect("runs");
    assert_eq!((seen.inputs.len(), seen.last.len()), (layers, 0));
    assert!(seen.weights == whole.weights);
}

#[test]
fn ids_that_do_not_fit_are_refused_before_anything_is_computed() {
    let model = load(Path::new(TINY)).expect("loads").model;
    let refused = |ids: &[u32], words: &[&str]| {
        let mut seen = Seen::default();
        let said = model.forward(ids, &mut seen).expect_err("refused").to_string();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(seen.inputs.is_empty());
    };
    refused(&[], &["no tokens"]);
    refused(&[96], &["96"]);
    refused(&[u32::MAX], &["4294967295"]);
    refused(&[1; 41], &["41 tokens", "at most 40"]);
    run(model.as_ref(), &[1; 40]);
}

/// Writes the tiny BERT again under another family's config and tensor names.
fn rewritten(config: &serde_json::Value, rename: impl Fn(&str) -> Option<String>) -> TempDir {
    let folder = TempDir::new().expect("temporary folder");
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    let arrays = read_safetensors(&Path::new(TINY).join("model.safetensors")).expect("sound");
    let renamed: Vec<NewArray<'_>> = arrays
        .list()
        .filter_map(|(name, _)| {
            let (data, shape) = arrays.get(name).expect("there");
            Some(NewArray::new(rename(name)?, shape, &data))
        })
        .collect();
    write_safetensors(&folder.path().join("model.safetensors"), &renamed, &Default::default())
        .expect("written");
    folder
}

fn config_of_tiny() -> serde_json::Value {
    let config = std::fs::read(Path::new(TINY).join("config.json")).expect("read");
    serde_json::from_slice(&config).expect("JSON")
}

#[test]
fn a_prefix_and_old_norm_names_make_no_difference() {
    let old = |name: &str| {
        let name =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        (!name.starts_with("pooler")).then(|| format!("bert.{name}"))
    };
    let folder = rewritten(&config_of_tiny(), old);
    let seen = run(load(folder.path()).expect("loads").model.as_ref(), &tiny_ids());
    agree(seen.weights, &golden("expect_attention"), 2e-5, 2e-4);
}

#[test]
fn roberta_counts_positions_from_behind_its_padding() {
    let mut config = config_of_tiny();
    config["model_type"] = json!("roberta");
    config["pad_token_id"] = json!(1);
    let folder = rewritten(&config, |name| Some(format!("roberta.{name}")));
    let roberta = load(folder.path()).expect("loads").model;
    assert_eq!((roberta.info().family, roberta.info().max_tokens), ("roberta", 38));
    // Position 0 of RoBERTa is row 2 of the table: what BERT gives its third token.
    let same = run(load(Path::new(TINY)).expect("loads").model.as_ref(), &[7, 7, 7, 8]).inputs.swap_remove(0);
    let seen = run(roberta.as_ref(), &[7, 8]).inputs.swap_remove(0);
    assert_eq!(seen, same[2 * 48..]);
    // A padding token has row 1 and does not count.
    let padded = run(roberta.as_ref(), &[7, 1, 8]).inputs.swap_remove(0);
    assert_eq!((&padded[..48], &padded[2 * 48..]), (&seen[..48], &seen[48..]));
    assert!(roberta.forward(&[7; 39], &mut Seen::default()).is_err());
}

#[test]
fn distilbert_is_bert_without_token_types_under_other_names() {
    let config = json!({
        "model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 48, "dropout": 0.1,
        "hidden_dim": 80, "initializer_range": 0.02, "max_position_embeddings": 40, "n_heads": 4, "n_layers": 2,
        "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": false,
        "tie_weights_": true, "vocab_size": 96
    });
    let distil = |name: &str| {
        if name.contains("token_type") || name.starts_with("pooler") {
            return None;
        }
        let new = name
            .replace("encoder.layer", "transformer.layer")
            .replace("attention.self.query", "attention.q_lin")
            .replace("attention.self.key", "attention.k_lin")
            .replace("attention.self.value", "attention.v_lin")
            .replace("attention.output.dense", "attention.out_lin")
            .replace("attention.output.LayerNorm", "sa_layer_norm")
            .replace("intermediate.dense", "ffn.lin1")
            .replace("output.dense", "ffn.lin2")
            .replace("output.LayerNorm", "output_layer_norm");
        Some(format!("distilbert.{new}"))
    };
    let folder = rewritten(&config, distil);
    let distil = load(folder.path()).expect("loads").model;
    assert_eq!((distil.info().family, distil.info().layers, distil.info().hidden), ("distilbert", 2, 48));
    // Fed with what a BERT without type embeddings is fed with, it computes the same.
    let typeless = TempDir::new().expect("temporary folder");
    std::fs::write(typeless.path().join("config.json"), config_of_tiny().to_string()).expect("written");
    let arrays = read_safetensors(&Path::new(TINY).join("model.safetensors")).expect("sound");
    let zeroed = arrays.list().map(|(name, info)| {
        let (data, shape) = arrays.get(name).expect("there");
        let zeros = ArrayData::F32(vec![0.0; info.shape.iter().product()]);
        NewArray::new(name, shape, if name.contains("token_type") { &zeros } else { &data })
    });
    let zeroed: Vec<_> = zeroed.collect();
    write_safetensors(&typeless.path().join("model.safetensors"), &zeroed, &Default::default())
        .expect("written");
    let bert = load(typeless.path()).expect("loads").model;
    let (a, b) = (run(distil.as_ref(), &tiny_ids()), run(bert.as_ref(), &tiny_ids()));
    assert_eq!((a.weights, a.last), (b.weights, b.last));
}

#[test]
fn other_float_types_are_read() {
    let folder = TempDir::new().expect("temporary folder");
    std::fs::copy(Path::new(TINY).join("config.json"), folder.path().join("config.json")).expect("copied");
    let arrays = read_safetensors(&Path::new(TINY).join("model.safetensors")).expect("sound");
    let wide = arrays.list().map(|(name, _)| {
        let (data, shape) = arrays.get(name).expect("there");
        let ArrayData::F32(data) = data else { panic!("{name}") };
        NewArray::new(name, shape, &ArrayData::F64(data.into_iter().map(f64::from).collect()))
    });
    let wide: Vec<_> = wide.collect();
    write_safetensors(&folder.path().join("model.safetensors"), &wide, &Default::default()).expect("written");
    let seen = run(load(folder.path()).expect("loads").model.as_ref(), &tiny_ids());
    agree(seen.weights, &golden("expect_attention"), 2e-5, 2e-4);
}

/// The real MiniLM, where it is on this machine: in the cache, or in `$GLASSHEAD_TEST_MODELS/minilm`.
#[test]
fn minilm_reads_a_sentence() {
    let named = std::env::var_os("GLASSHEAD_TEST_MODELS").map(|folder| Path::new(&folder).join("minilm"));
    let cached = || glasshead::weights::locate("minilm").ok().flatten();
    let Some(folder) = named.filter(|folder| folder.exists()).or_else(cached) else {
        eprintln!("skipped: MiniLM is not on this machine (glasshead models pull minilm)");
        return;
    };
    let loaded = load(&folder).expect("loads");
    let tokens = loaded.tokenizer.expect("has one").encode("The Bäckerin’s 東京 bank").expect("cuts");
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let seen = run(loaded.model.as_ref(), &ids);
    assert_eq!(seen.weights.len(), 6 * 12 * ids.len() * ids.len());
    assert!(seen.last.iter().all(|x| x.is_finite()));
}
