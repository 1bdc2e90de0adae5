//! GGUF files that lie. Each test is named after its attack; each must end in one sentence with a hint, quickly,
//! without a panic and without memory that the file's bytes do not back.

use std::path::Path;
use std::time::{Duration, Instant};

use glasshead::models::{load, open_gguf};
use glasshead::text::Tokenizer;
use glasshead::weights::{Gguf, parse_gguf};
use glasshead::{Error, Fault};
use tempfile::TempDir;

use crate::common::gguf::{F32, File, Listed, Q8_0, string};

/// What is said about these bytes, which has to be one sentence that names the file, said at once.
fn said(bytes: &[u8]) -> Error {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.gguf");
    std::fs::write(&path, bytes).expect("written");
    let started = Instant::now();
    let error = load(&path).err().or_else(|| open_gguf(&path).err()).expect("refused");
    assert!(started.elapsed() < Duration::from_secs(5), "{error}");
    let what = error.to_string();
    assert_eq!(error.fault(), Fault::Request, "{what}");
    assert!(what.contains("hostile.gguf") && !what.contains('\n') && what.len() < 700, "{what}");
    assert!(!error.hint().is_empty());
    error
}

fn refused(file: &File, words: &[&str]) {
    let error = said(&file.bytes());
    let what = error.to_string();
    assert!(words.iter().all(|word| what.contains(word)), "{what}");
}

/// A sound start: one tensor of 4 × 8 numbers.
fn sound() -> File {
    File::default().text("general.architecture", "llama").f32("a", &[4, 8], &[0.5; 32])
}

fn first(mut file: File, change: impl Fn(&mut Listed)) -> File {
    change(&mut file.tensors[0]);
    file
}

#[test]
fn empty_file_and_other_letters() {
    assert!(said(b"").to_string().contains("cut off"));
    assert!(said(b"GGU").to_string().contains("cut off"));
    refused(&File { magic: *b"GGML", ..sound() }, &["letters GGUF"]);
    assert!(said(&[0; 4096]).to_string().contains("letters GGUF"));
}

#[test]
fn version_unknown_old_or_backwards() {
    refused(&File { version: 1, ..sound() }, &["version 1"]);
    refused(&File { version: 4, ..sound() }, &["version 4"]);
    refused(&File { version: u32::MAX, ..sound() }, &["version 4294967295"]);
    refused(&File { version: 3u32.swap_bytes(), ..sound() }, &["big-endian"]);
}

#[test]
fn counts_beyond_the_file() {
    for count in [1 << 20, 1 << 60, 1 << 63, u64::MAX] {
        refused(&File { tensor_count: Some(count), ..sound() }, &["tensors", "can hold"]);
        refused(&File { key_count: Some(count), ..sound() }, &["metadata keys", "can hold"]);
    }
    // Small lies run into what follows: whatever that is taken for, it is refused.
    for count in [0, 2, 3] {
        said(&File { tensor_count: Some(count), ..sound() }.bytes());
        said(&File { key_count: Some(count), ..sound() }.bytes());
    }
}

#[test]
fn string_length_of_2_to_the_63() {
    for length in [1u64 << 63, u64::MAX, u64::MAX - 7, 1 << 40, 5000] {
        let text = [&length.to_le_bytes()[..], b"short"].concat();
        refused(&sound().key("general.name", 8, &text), &["cut off", "`general.name`"]);
        let mut keyless = File::default();
        keyless.keys.push((Vec::new(), Vec::new()));
        let mut bytes = keyless.bytes();
        bytes.truncate(24);
        bytes.extend(length.to_le_bytes());
        bytes.extend([0; 64]);
        assert!(said(&bytes).to_string().contains("a metadata key"));
    }
}

#[test]
fn array_length_absurd() {
    for (kind, count) in [(0u32, u64::MAX), (12, 1 << 61), (8, 1 << 60), (4, 1 << 32), (7, 4096)] {
        refused(
            &sound().array("tokenizer.ggml.scores", kind, count, b"1234"),
            &["`tokenizer.ggml.scores`", "can hold"],
        );
    }
}

#[test]
fn arrays_in_arrays() {
    let mut nested = Vec::new();
    for _ in 0..100_000 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    refused(&sound().key("general.tags", 9, &nested), &["arrays inside the array `general.tags`"]);
}

#[test]
fn value_type_unknown_and_odd_truth() {
    refused(&sound().key("general.name", 13, b"1234"), &["`general.name`", "unknown type 13"]);
    refused(&sound().array("general.tags", 99, 1, b"1234"), &["`general.tags`", "unknown type 99"]);
    refused(&sound().key("general.odd", 7, &[2]), &["`general.odd`", "[2]"]);
}

#[test]
fn names_not_utf8() {
    let mut file = sound();
    file.keys.push((vec![0xff, 0xfe], 4u32.to_le_bytes().repeat(2)));
    refused(&file, &["a metadata key that is not UTF-8"]);
    refused(&first(sound(), |tensor| tensor.name = vec![0xc3]), &["a tensor name that is not UTF-8"]);
    refused(&sound().key("general.name", 8, &string(b"\xff")), &["`general.name`", "UTF-8"]);
}

#[test]
fn keys_and_tensors_twice() {
    refused(&sound().text("general.architecture", "gpt2"), &["`general.architecture` twice"]);
    refused(&sound().f32("a", &[1], &[1.0]), &["`a` twice"]);
}

#[test]
fn alignment_that_is_none() {
    for alignment in [0u32, 3, 48, 1 << 31] {
        let file = sound().count("general.alignment", alignment);
        refused(&file, &["`general.alignment`", "power of two"]);
    }
    refused(&sound().text("general.alignment", "32"), &["`general.alignment`", "whole number"]);
    refused(&sound().key("general.alignment", 5, &(-32i32).to_le_bytes()), &["-32"]);
}

#[test]
fn axes_too_many_none_or_empty() {
    refused(&first(sound(), |tensor| tensor.shape = vec![]), &["`a`", "0 axes"]);
    refused(&first(sound(), |tensor| tensor.shape = vec![1; 5]), &["`a`", "5 axes"]);
    refused(&first(sound(), |tensor| tensor.shape = vec![4, 0]), &["`a`", "axis of 0"]);
    let mut bytes = sound().bytes();
    let name = bytes.windows(9).position(|window| window == string(b"a")).expect("there");
    bytes[name + 9..name + 13].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(said(&bytes).to_string().contains("4294967295 axes"));
}

#[test]
fn shape_product_overflow() {
    for shape in
        [vec![1 << 32, 1 << 32], vec![u64::MAX, 2], vec![1 << 62], vec![1 << 61, 1], vec![1 << 20; 4]]
    {
        refused(&first(sound(), |tensor| tensor.shape = shape.clone()), &["`a`", "overflows"]);
    }
    // No overflow, but larger than the file; also where f32 would be: 2^60 bytes.
    refused(&first(sound(), |tensor| tensor.shape = vec![1 << 58]), &["cut off", "`a`"]);
    refused(&first(sound(), |tensor| tensor.shape = vec![4, 9]), &["cut off", "`a`", "144"]);
}

#[test]
fn rows_that_are_no_whole_blocks() {
    let file = File::default().tensor("a", &[2, 48], Q8_0, &[0; 102]);
    refused(&file, &["`a`", "[2, 48]", "blocks of 32", "Q8_0"]);
}

#[test]
fn offsets_outside_unaligned_or_overlapping() {
    refused(&first(sound(), |tensor| tensor.offset = 32), &["`a`", "cut off"]);
    refused(&first(sound(), |tensor| tensor.offset = u64::MAX - 31), &["`a`", "cut off"]);
    refused(&first(sound(), |tensor| tensor.offset = 1 << 63), &["`a`", "cut off"]);
    refused(&first(sound(), |tensor| tensor.offset = 4), &["`a`", "no multiple of 32"]);
    let two = sound().f32("b", &[4, 8], &[1.0; 32]);
    let mut shared = two.clone();
    shared.tensors[1].offset = 0;
    refused(&shared, &["overlapping", "`a`", "`b`"]);
    let mut half = two;
    half.tensors[1].offset = 64;
    refused(&half, &["overlapping", "`a`", "`b`"]);
}

#[test]
fn stored_type_that_is_not_read() {
    refused(&first(sound(), |tensor| tensor.dtype = 16), &["`a`", "IQ2_XXS"]);
    refused(&first(sound(), |tensor| tensor.dtype = 28), &["`a`", "F64"]);
    refused(&first(sound(), |tensor| tensor.dtype = 4), &["`a`", "type 4"]);
    refused(&first(sound(), |tensor| tensor.dtype = u32::MAX), &["`a`", "type 4294967295"]);
}

#[test]
fn name_that_floods_the_terminal() {
    let name = "\u{1b}[2J\n".repeat(5000);
    refused(
        &first(sound(), |tensor| {
            tensor.name = name.clone().into_bytes();
            tensor.dtype = 99;
        }),
        &["\\u{1b}", "type 99"],
    );
    refused(&sound().key(&name, 13, b""), &["\\u{1b}", "type 13"]);
}

#[test]
fn no_model_or_a_part_of_one() {
    refused(&File::default().f32("a", &[1], &[1.0]), &["general.architecture"]);
    refused(&File::default().text("general.architecture", "mamba"), &["`mamba`"]);
    refused(&File::default().count("general.architecture", 7), &["`general.architecture`", "not a text"]);
    refused(&sound().text("general.type", "adapter"), &["`general.type`"]);
    refused(&sound().count("general.type", 7), &["`general.type`"]);
    refused(&sound().count("split.count", 3), &["one part"]);
    refused(&sound(), &["`llama.embedding_length`"]);
}

/// A Llama of one layer with these sizes in its metadata, and nothing else.
fn llama(heads: u32, hidden: u32) -> File {
    File::default()
        .text("general.architecture", "llama")
        .count("llama.block_count", 1)
        .count("llama.context_length", 16)
        .count("llama.embedding_length", hidden)
        .count("llama.feed_forward_length", 16)
        .count("llama.attention.head_count", heads)
        .number("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .f32("token_embd.weight", &[2, 8], &[0.25; 16])
}

#[test]
fn sizes_absurd_or_of_the_wrong_kind() {
    refused(&llama(0, 8), &["`llama.attention.head_count`", "is 0"]);
    refused(&llama(u32::MAX, 8), &["`llama.attention.head_count`", "2^31"]);
    refused(&llama(3, 8), &["`llama.attention.head_count`", "divide"]);
    refused(&llama(2, 8).key("llama.attention.key_length", 10, &u64::MAX.to_le_bytes()), &["key_length"]);
    refused(&llama(2, 8).key("llama.attention.head_count_kv", 5, &(-1i32).to_le_bytes()), &["head_count_kv"]);
    refused(&llama(2, 8).array("llama.attention.head_count_kv", 4, 1, &[2, 0, 0, 0]), &["head_count_kv"]);
    refused(&llama(2, 8).count("llama.attention.value_length", 5), &["value_length"]);
    refused(&llama(2, 8).count("llama.rope.dimension_count", 2), &["dimension_count"]);
    refused(&llama(2, 8).number("llama.rope.freq_base", f32::NAN), &["freq_base", "finite"]);
    refused(&llama(2, 8).text("llama.rope.scaling.type", "su"), &["rope.scaling.type"]);
    refused(&llama(2, 8).text("llama.rope.scaling.type", "yarn"), &["rope.scaling.factor"]);
    refused(&llama(2, 8).count("llama.expert_count", 8), &["expert_count"]);
    refused(&llama(2, 8).count("llama.logit_scale", 8), &["`llama.logit_scale`"]);
    refused(&llama(2, 8).f32("rope_freqs.weight", &[3], &[1.0; 3]), &["`rope_freqs.weight`"]);
    refused(&llama(2, 8).f32("rope_freqs.weight", &[2], &[1.0, 0.0]), &["`rope_freqs.weight`", "positive"]);
    refused(&llama(2, 8).f32("blk.1.attn_q.weight", &[1], &[1.0]), &["`blk.1.attn_q.weight`"]);
    refused(&llama(2, 8).f32("blk.18446744073709551616.attn_q.weight", &[1], &[1.0]), &["attn_q.weight`"]);
    refused(&llama(2, 8).f32("blk.+0.attn_q.weight", &[1], &[1.0]), &["`blk.+0.attn_q.weight`"]);
}

#[test]
fn heads_that_do_not_fit_the_rows() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.gguf");
    // Heads of one number, and rows that are no whole heads: nothing can be put back in its order.
    for (heads, rows) in [(8, 8), (2, 6)] {
        let file = llama(heads, 8).f32("blk.0.attn_q.weight", &[rows, 8], &vec![0.5; rows as usize * 8]);
        std::fs::write(&path, file.bytes()).expect("written");
        let opened = open_gguf(&path).expect("sound so far");
        let error = opened.weights.values("model.layers.0.self_attn.q_proj.weight", &[rows as usize, 8]);
        assert!(error.expect_err("refused").to_string().contains("attn_q.weight"));
        let error =
            opened.weights.tensor("model.embed_tokens.weight", &[1 << 40, 1 << 40]).expect_err("refused");
        assert!(error.to_string().contains("[2, 8]"), "{error}");
    }
}

/// A file with a tokenizer of this kind and of three tokens, and what more is said.
fn tokenizer(kind: &str, more: impl Fn(File) -> File) -> Result<Option<Tokenizer>, Error> {
    let tokens = ["<unk>", "a", "b"];
    let file = File::default().text("tokenizer.ggml.model", kind).texts("tokenizer.ggml.tokens", &tokens);
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.gguf");
    std::fs::write(&path, more(file).bytes()).expect("written");
    Tokenizer::from_gguf(&Gguf::open(&path).expect("sound"))
}

#[test]
fn tokenizer_whose_lists_lie() {
    let refused = |kind: &str, more: &dyn Fn(File) -> File, words: &[&str]| {
        let error = tokenizer(kind, more).expect_err("refused");
        let what = error.to_string();
        assert!(what.contains("hostile.gguf") && words.iter().all(|word| what.contains(word)), "{what}");
        assert!(!what.contains('\n') && !error.hint().is_empty());
    };
    let pre = |file: File| file.text("tokenizer.ggml.pre", "gpt-2");
    let scores = |file: File| file.array("tokenizer.ggml.scores", 6, 3, &[0; 12]);
    refused("rwkv", &|file| file, &["`rwkv`"]);
    refused("gpt2", &|file| file, &["`tokenizer.ggml.pre`"]);
    refused("gpt2", &|file| file.text("tokenizer.ggml.pre", "tekken"), &["`tekken`"]);
    refused("gpt2", &pre, &["`tokenizer.ggml.merges`"]);
    refused("gpt2", &|file| pre(file).texts("tokenizer.ggml.merges", &["ab"]), &["`ab`"]);
    refused("gpt2", &|file| pre(file).texts("tokenizer.ggml.merges", &["a b"]), &["tokenizer"]);
    refused("gpt2", &|file| pre(file).texts("tokenizer.ggml.merges", &["x y"]), &["tokenizer"]);
    refused("gpt2", &|file| pre(file).count("tokenizer.ggml.merges", 1), &["`tokenizer.ggml.merges`"]);
    let short = |file: File| file.array("tokenizer.ggml.token_type", 5, 2, &[1, 0, 0, 0, 1, 0, 0, 0]);
    refused("llama", &short, &["2 types for 3 tokens"]);
    refused("llama", &|file| file, &["`tokenizer.ggml.scores`"]);
    refused("llama", &|file| file.array("tokenizer.ggml.scores", 6, 2, &[0; 8]), &["2 scores for 3 tokens"]);
    refused("llama", &|file| scores(file).text("tokenizer.ggml.pre", "other"), &["`other`"]);
    refused("llama", &|file| scores(file).count("tokenizer.ggml.bos_token_id", 3), &["bos_token_id", "is 3"]);
    refused("llama", &|file| scores(file).flag("tokenizer.ggml.add_eos_token", true), &["eos_token_id"]);
    refused(
        "llama",
        &|file| scores(file).count("tokenizer.ggml.unknown_token_id", 1 << 31),
        &["unknown_token_id"],
    );
}

#[test]
fn tokens_not_utf8_or_endless() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("hostile.gguf");
    let open = |file: File| {
        std::fs::write(&path, file.bytes()).expect("written");
        Tokenizer::from_gguf(&Gguf::open(&path).expect("sound")).expect_err("refused").to_string()
    };
    let start = || File::default().text("tokenizer.ggml.model", "llama");
    let tokens = [string(b"a"), string(b"\xff")].concat();
    assert!(open(start().array("tokenizer.ggml.tokens", 8, 2, &tokens)).contains("not UTF-8 at place 1"));
    assert!(open(start().array("tokenizer.ggml.tokens", 8, 0, b"")).contains("no tokens"));
    assert!(open(start().array("tokenizer.ggml.tokens", 4, 1, &[0; 4])).contains("not a list of texts"));
    let long = "a".repeat(100_000);
    let endless =
        start().texts("tokenizer.ggml.tokens", &[&long]).array("tokenizer.ggml.scores", 6, 1, &[0; 4]);
    assert!(open(endless).contains("more than 256 bytes"));
}

#[test]
fn any_truncation_of_a_sound_file() {
    let file = sound().texts("tokenizer.ggml.tokens", &["a", "b"]).array("general.ids", 5, 3, &[0; 12]);
    let bytes = file.bytes();
    assert!(parse_gguf(&bytes, bytes.len() as u64).expect("sound").is_some());
    for length in 0..bytes.len() {
        parse_gguf(&bytes[..length], length as u64).expect_err("cut off");
        // The same bytes as the beginning of a longer file: never refused, never taken for the whole header.
        let early = parse_gguf(&bytes[..length], bytes.len() as u64).expect("goes on");
        assert!(early.is_none_or(|header| header.bytes <= length));
    }
}

#[test]
fn any_flipped_bit_of_a_sound_header() {
    let bytes = sound().count("general.alignment", 32).texts("tokenizer.ggml.tokens", &["a", "b"]).bytes();
    for bit in 0..(bytes.len() - 128) * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(header) = parse_gguf(&bytes, bytes.len() as u64) {
            let header = header.expect("all of the file was there");
            assert!(header.tensors.values().all(|tensor| tensor.bytes.end <= bytes.len() as u64));
        }
    }
}

#[cfg(unix)]
#[test]
fn stream_without_end_and_folder() {
    let folder = TempDir::new().expect("temporary folder");
    let link = folder.path().join("endless.gguf");
    std::os::unix::fs::symlink("/dev/zero", &link).expect("linked");
    assert!(Gguf::open(&link).expect_err("refused").to_string().contains("no regular file"));
    assert!(load(&link).is_err());
    assert!(Gguf::open(folder.path()).expect_err("refused").to_string().contains("folder"));
    assert!(Gguf::open(Path::new("no.gguf")).expect_err("refused").to_string().contains("no.gguf"));
}

#[test]
fn file_that_shrinks_after_its_header_was_read() {
    let folder = TempDir::new().expect("temporary folder");
    let path = folder.path().join("shrinks.gguf");
    let bytes = sound().bytes();
    std::fs::write(&path, &bytes).expect("written");
    let file = Gguf::open(&path).expect("sound");
    let out = std::fs::File::options().write(true).open(&path).expect("opened");
    out.set_len(bytes.len() as u64 - 64).expect("cut");
    let info = file.info("a").expect("there");
    assert_eq!(info.dtype, candle_core::quantized::GgmlDType::F32);
    assert!(file.values(info).expect_err("refused").to_string().contains("shrinks.gguf"));
    assert_eq!(F32, 0);
}
