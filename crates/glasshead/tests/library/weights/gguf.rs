//! GGUF files: numbers against other decoders, names against the published checkpoints, tokens against other
//! tokenizers.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshead::attention::Read;
use glasshead::models::{LayerView, Watch, load, open_gguf};
use glasshead::text::{Message, Tokenizer};
use glasshead::weights::{ArrayData, Gguf, Origin, Undo, Weights, read_safetensors};
use half::f16;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::common::gguf::{File, Q4_1, Q8_0, string};
use crate::common::models::smollm2;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-gguf");
const TINY_BERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-bert");

fn json(name: &str) -> Value {
    let bytes = std::fs::read(Path::new(DATA).join(name)).expect("read");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn written(folder: &TempDir, file: &File) -> PathBuf {
    let path = folder.path().join("written.gguf");
    std::fs::write(&path, file.bytes()).expect("written");
    path
}

/// Tensors under their own names.
fn plain(path: &Path) -> Weights {
    let file = Arc::new(Gguf::open(path).expect("sound"));
    let name = |name: &str| (name.to_owned(), Origin { name: name.to_owned(), undo: Undo::Nothing });
    let names = file.tensors().map(|(own, _)| name(own)).collect();
    Weights::from_gguf(file, names)
}

#[test]
fn every_stored_type_is_what_another_decoder_makes_of_it() {
    let weights = plain(&Path::new(DATA).join("quants.gguf"));
    let expected = read_safetensors(&Path::new(DATA).join("quants.safetensors")).expect("sound");
    let mut types = 0;
    for (name, _) in expected.list() {
        let (ArrayData::F32(numbers), shape) = expected.get(name).expect("there") else { panic!("{name}") };
        let [rows, width] = shape else { panic!("{shape:?}") };
        let found = weights.values(name, shape).expect("read");
        // Both multiply and add f32 numbers, in another order for some types: one rounding apart at most.
        let apart =
            |a: f32, b: f32| (a - b).abs() > f32::EPSILON * a.abs().max(b.abs()).max(f32::MIN_POSITIVE);
        let odd = found.iter().zip(&numbers).find(|(a, b)| apart(**a, **b));
        assert!(odd.is_none() && found.len() == numbers.len(), "{name}: {odd:?}");
        let table = weights.table(name, [*rows, *width]).expect("a table");
        for row in 0..*rows {
            assert_eq!(table.row(row).as_deref(), Some(&found[row * width..][..*width]), "{name}");
        }
        assert_eq!(table.row(*rows), None);
        types += 1;
    }
    assert_eq!(types, 13);
}

#[test]
fn blocks_of_four_and_eight_bits_by_hand() {
    // Two blocks of Q8_0 (scale, 32 signed bytes) and two of Q4_1 (scale, least, 16 bytes of two halves each).
    let [big, small] = [f16::from_f32(0.75), f16::from_f32(-0.001)];
    let mut eight = Vec::new();
    let mut four = Vec::new();
    for (block, scale) in [big, small].into_iter().enumerate() {
        eight.extend(scale.to_le_bytes());
        eight.extend((0..32).map(|n| (n * 8 - 128 + block as i32) as i8 as u8));
        four.extend(scale.to_le_bytes());
        four.extend(big.to_le_bytes());
        four.extend((0..16).map(|n| n | (15 - n) << 4));
    }
    let folder = TempDir::new().expect("temporary folder");
    let file = File::default().tensor("eight", &[1, 64], Q8_0, &eight).tensor("four", &[2, 32], Q4_1, &four);
    let weights = plain(&written(&folder, &file));
    let scale = |n: usize| if n < 32 { big } else { small }.to_f32();
    let expected: Vec<f32> =
        (0..64).map(|n| scale(n) * ((n % 32) as f32 * 8.0 - 128.0 + (n / 32) as f32)).collect();
    assert_eq!(weights.values("eight", &[1, 64]).expect("read"), expected);
    let digit = |n: usize| (if n % 32 < 16 { n % 16 } else { 15 - n % 16 }) as f32;
    let expected: Vec<f32> = (0..64).map(|n| scale(n) * digit(n) + big.to_f32()).collect();
    assert_eq!(weights.values("four", &[2, 32]).expect("read"), expected);
    let whole = std::fs::read(folder.path().join("written.gguf")).expect("read");
    let digits: String = Sha256::digest(whole).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(weights.sha256().expect("hashed"), digits);
}

/// Keeps what comes out of a model.
#[derive(Default)]
struct Last(Vec<f32>);

impl Watch for Last {
    fn layer(&mut self, _: &LayerView<'_>) -> ControlFlow<(), Read> {
        ControlFlow::Continue(Read::new())
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        self.0 = last_hidden.to_vec();
    }
}

#[test]
fn a_bert_in_a_gguf_file_is_the_same_model() {
    let config: Value =
        serde_json::from_slice(&std::fs::read(Path::new(TINY_BERT).join("config.json")).expect("read"))
            .expect("JSON");
    let size = |key: &str| config[key].as_u64().expect("a size") as u32;
    let mut file = File::default()
        .text("general.architecture", "bert")
        .count("bert.block_count", size("num_hidden_layers"))
        .count("bert.context_length", size("max_position_embeddings"))
        .count("bert.embedding_length", size("hidden_size"))
        .count("bert.feed_forward_length", size("intermediate_size"))
        .count("bert.attention.head_count", size("num_attention_heads"))
        .number(
            "bert.attention.layer_norm_epsilon",
            config["layer_norm_eps"].as_f64().expect("a number") as f32,
        )
        .flag("bert.attention.causal", false)
        .count("bert.pooling_type", 1);
    let theirs: BTreeMap<&str, &str> = [
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ]
    .into();
    let arrays = read_safetensors(&Path::new(TINY_BERT).join("model.safetensors")).expect("sound");
    for (name, _) in arrays.list() {
        let (ArrayData::F32(numbers), shape) = arrays.get(name).expect("there") else { panic!("{name}") };
        let name = name.strip_prefix("bert.").unwrap_or(name);
        let (stem, suffix) = name.rsplit_once('.').expect("a suffix");
        let (layer, stem) = match stem.strip_prefix("encoder.layer.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stem)) => (format!("blk.{layer}."), stem),
            None => (String::new(), stem),
        };
        let Some(theirs) = theirs.get(stem) else { continue };
        let shape: Vec<u64> = shape.iter().map(|&axis| axis as u64).collect();
        file = file.f32(&format!("{layer}{theirs}.{suffix}"), &shape, &numbers);
    }
    let folder = TempDir::new().expect("temporary folder");
    let run = |path: &Path| {
        let mut last = Last::default();
        let loaded = load(path).expect("loads");
        loaded.model.forward(&[2, 9, 4, 17, 3], &mut last).expect("runs");
        assert_eq!(loaded.model.info().family, "bert");
        last.0
    };
    let numbers = run(&written(&folder, &file));
    assert!(!numbers.is_empty() && numbers == run(Path::new(TINY_BERT)));
    // A key of the architecture that nobody knows, a tensor that nobody knows, one that is missing.
    let refused = |file: &File| load(&written(&folder, file)).expect_err("refused").to_string();
    assert!(refused(&file.clone().count("bert.attention.twist", 3)).contains("`bert.attention.twist`"));
    assert!(
        refused(&file.clone().f32("blk.0.attn_gate.weight", &[1], &[1.0]))
            .contains("`blk.0.attn_gate.weight`")
    );
    assert!(
        refused(&file.clone().f32("blk.00.attn_q.weight", &[1], &[1.0])).contains("`blk.00.attn_q.weight`")
    );
    assert!(refused(&file.clone().flag("bert.attention.causal", true)).contains("twice"));
    let mut cut = file.clone();
    cut.tensors.retain(|tensor| tensor.name != b"blk.1.ffn_up.bias");
    assert!(refused(&cut).contains("intermediate.dense.bias"));
    let mut other = file;
    other.keys[0].1 = [&8u32.to_le_bytes()[..], &string(b"mamba")].concat();
    assert!(refused(&other).contains("`mamba`"));
}

fn tokenizer(name: &str) -> Tokenizer {
    let file = Gguf::open(&Path::new(DATA).join(format!("{name}.gguf"))).expect("sound");
    Tokenizer::from_gguf(&file).expect("built").expect("has one")
}

/// Ids as expected, and every token's text is what stands in the text.
fn agrees(tokenizer: &Tokenizer, name: &str, cases: &Value) {
    let cases = cases.as_array().expect("a list");
    assert!(cases.len() > 10);
    for case in cases {
        let text = case[0].as_str().expect("a text");
        let expected: Vec<u32> =
            case[1].as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect();
        let tokens = tokenizer.encode(text).expect("cuts");
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        assert_eq!(ids, expected, "{name}: {text:?}");
        let mut end = 0;
        for token in tokens.iter().filter(|token| !token.special) {
            assert_eq!(token.text, text[token.start..token.end], "{name}: {text:?}");
            assert!(token.start <= end.max(token.start) && token.end >= end, "{name}: {text:?} {token:?}");
            end = token.end;
        }
    }
}

#[test]
fn tokenizers_of_three_kinds_cut_as_the_programs_that_trained_them() {
    let ids = json("ids.json");
    let ids = ids.as_object().expect("an object");
    assert_eq!(ids.len(), 8);
    for (name, cases) in ids {
        agrees(&tokenizer(name), name, cases);
    }
}

#[test]
fn tokens_of_byte_pairs_lie_gapless_in_the_text() {
    let tokenizer = tokenizer("bpe-smollm");
    for case in json("ids.json")["bpe-smollm"].as_array().expect("a list") {
        let text = case[0].as_str().expect("a text");
        // Where a character is cut into bytes, each of its tokens shows the whole of it.
        let mut end = 0;
        for token in tokenizer.encode(text).expect("cuts") {
            assert!(token.start <= end && token.end >= end, "{text:?}: {token:?} after {end}");
            end = token.end;
        }
        assert_eq!(end, text.len(), "{text:?}");
    }
}

/// Every text of `ids.json` comes back from its tokens: all at once, and from any token on that starts a character.
#[test]
fn tokenizers_write_back_what_they_have_cut() {
    let mut texts = 0;
    for (name, cases) in json("ids.json").as_object().expect("an object") {
        if name.starts_with("wordpiece") {
            continue; // BERT's vocabularies lose blanks and capitals; nothing is written with them.
        }
        let tokenizer = tokenizer(name);
        for text in cases.as_array().expect("a list").iter().map(|case| case[0].as_str().expect("a text")) {
            // What cutting loses: sentencepiece takes its ▁ for a blank, Qwen composes letters.
            if name.starts_with("spm") && text.contains('▁')
                || name == "bpe-qwen2" && text.contains('\u{301}')
            {
                continue;
            }
            texts += 1;
            let tokens = tokenizer.encode(text).expect("cuts");
            let tokens =
                if tokens.first().is_some_and(|token| token.special) { &tokens[1..] } else { &tokens[..] };
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let (written, ranges) = tokenizer.decode_after(None, &ids).expect("written");
            assert_eq!(written, text, "{name}");
            assert_eq!(ranges.len(), ids.len());
            for (at, (token, range)) in tokens.iter().zip(&ranges).enumerate() {
                let shared = |other: usize| {
                    ranges.get(other).is_some_and(|other| other.start < range.end && range.start < other.end)
                };
                if at > 0 && shared(at - 1) || shared(at + 1) {
                    // Tokens with parts of one character all show what is written when it is whole.
                    assert!(written[range.clone()].contains(&token.text), "{name}: {text:?} {token:?}");
                } else if at > 0 || !range.is_empty() {
                    // The blank that sentencepiece puts in front of a text is no byte of it.
                    assert_eq!(token.text, written[range.clone()], "{name}: {text:?} {token:?}");
                }
            }
            for at in 1..ids.len() {
                // Not in the middle of a character, whose bytes all its tokens show, and not behind one of several
                // tokens: the last of them alone is no character.
                let joined = |at: usize| at > 0 && ranges[at].start < ranges[at - 1].end;
                if joined(at) || joined(at - 1) {
                    continue;
                }
                let (rest, _) = tokenizer.decode_after(Some(ids[at - 1]), &ids[at..]).expect("written");
                assert_eq!(rest, text[ranges[at].start..], "{name}: {text:?} from token {at}");
            }
        }
    }
    assert!(texts > 80, "{texts}");
}

#[test]
fn smollm2_has_the_tensors_that_transformers_reads_bit_for_bit() {
    let Some(path) = smollm2() else { return };
    let opened = open_gguf(&path).expect("opens");
    let golden = json("smollm2.json");
    let tensors = golden["tensors"].as_object().expect("an object");
    assert_eq!(tensors.len(), 272);
    for (name, told) in tensors {
        let shape: Vec<usize> = told[0]
            .as_array()
            .expect("a shape")
            .iter()
            .map(|axis| axis.as_u64().expect("an axis") as usize)
            .collect();
        let numbers = opened.weights.values(name, &shape).expect("there");
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let digits: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told[1], digits, "{name}");
    }
    let sha256 = opened.weights.sha256().expect("hashed");
    assert_eq!(sha256, glasshead::weights::catalogue::find("smollm2").expect("there").files[0].sha256);
    let mut keys = opened.keys;
    assert_eq!(keys.text("model_type").expect("there"), "llama");
    assert_eq!(keys.size("num_key_value_heads").expect("there"), 3);
    assert_eq!(keys.size("head_dim").expect("there"), 64);
    assert_eq!(keys.epsilon_or("rms_norm_eps", 0.0).expect("there"), 1e-5);
    assert!(keys.flag("tie_word_embeddings").expect("there"));
    assert_eq!((opened.bos, opened.eos), (Some(1), vec![2]));
}

#[test]
fn smollm2_cuts_and_converses_as_transformers() {
    let Some(path) = smollm2() else { return };
    let opened = open_gguf(&path).expect("opens");
    let golden = json("smollm2.json");
    let tokenizer = opened.tokenizer.expect("has one");
    agrees(&tokenizer, "smollm2", &golden["ids"]);
    let chat = opened.chat.expect("has one");
    let chats = golden["chats"].as_array().expect("a list");
    assert_eq!(chats.len(), 4);
    for case in chats {
        let turn = |turn: &Value| Message {
            role: turn["role"].as_str().expect("a role").to_owned(),
            content: turn["content"].as_str().expect("a text").to_owned(),
        };
        let turns: Vec<Message> = case[0].as_array().expect("turns").iter().map(turn).collect();
        let text = chat.render(&turns, case[1].as_bool().expect("yes or no")).expect("rendered");
        assert_eq!(text, case[2].as_str().expect("a text"));
        let tokens = tokenizer.encode_as_is(&text).expect("cuts");
        assert_eq!(tokens.first().map(|token| token.id), Some(1), "<|im_start|> is one token");
    }
}
