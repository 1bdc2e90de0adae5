//! A question in the chat template of a model: what the model reads, and whose each token is.

use std::path::{Path, PathBuf};

use crate::common::models::{folder, smollm2};
use glasshead::look::scan::{Choice, Plan, Request, Role, Scan, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

const TEXT: &str = "the fox ran.\n\nit slept. who\n";
const ASK: &str = " who slept? ";
const TURNS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}\
                     {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A vocabulary of letters for the 61 ids of the tiny Llama.
fn letters() -> Value {
    let special = |id: u32, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let names = ["<|im_start|>", "<|im_end|>", "Ġ", "Ċ", ".", "?"].map(str::to_owned);
    let names = names.into_iter().chain(('a'..='z').map(String::from));
    let vocabulary: Value = names.enumerate().map(|(id, name)| (name, json!(id))).collect();
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
           "added_tokens": [special(0, "<|im_start|>"), special(1, "<|im_end|>")],
           "pre_tokenizer": bytes, "decoder": bytes,
           "model": {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": null}})
}

/// The tiny Llama with letters and this `tokenizer_config.json`.
fn speaking(tokenizer_config: &Value) -> TempDir {
    let desk = TempDir::new().expect("temporary folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder("llama3").join(name), desk.path().join(name)).expect("copied");
    }
    let write = |name: &str, value: &Value| {
        std::fs::write(desk.path().join(name), value.to_string()).expect("written");
    };
    write("tokenizer.json", &letters());
    write("tokenizer_config.json", tokenizer_config);
    // Nothing ends an answer, so that there is one.
    write("generation_config.json", &json!({"eos_token_id": []}));
    desk
}

fn request(path: PathBuf, text: &str, answer: usize) -> Request {
    Request {
        source: Source::Text(text.into()),
        model: "tiny".into(),
        path,
        layers: Choice::Some(vec![1]),
        heads: Choice::Some(vec![0]),
        read: "entropy,segments=paragraph".into(),
        ask: Some(ASK.into()),
        answer,
        each: None,
        force_context: true,
        instruction_set: None,
        command: "a test".into(),
    }
}

fn scan(path: &Path, answer: usize) -> Scan {
    let plan = Plan::new(request(path.to_owned(), TEXT, answer));
    plan.and_then(|plan| plan.run(&mut ())).unwrap_or_else(|error| panic!("{error}"))
}

/// The texts of neighbouring tokens with one role, side by side.
fn parts(scan: &Scan) -> Vec<(Role, String)> {
    let mut parts: Vec<(Role, String)> = Vec::new();
    for token in &scan.tokens {
        match parts.last_mut() {
            Some((role, text)) if *role == token.role => text.push_str(&token.text),
            _ => parts.push((token.role, token.text.clone())),
        }
    }
    parts
}

#[test]
fn the_question_stands_in_the_template_and_every_token_has_its_role() {
    let desk = speaking(&json!({"chat_template": TURNS}));
    let scan = scan(desk.path(), 3);
    let answer = scan.answer().expect("written");
    let expected = [
        (Role::Template, "<|im_start|>user\n"),
        (Role::Text, TEXT),
        (Role::Template, "\n"),
        (Role::Question, "who slept?"),
        (Role::Template, "<|im_end|>\n<|im_start|>assistant\n"),
        (Role::Answer, &answer),
    ];
    assert_eq!(parts(&scan), expected.map(|(role, text)| (role, text.to_owned())));
    let all: String = expected.map(|(_, text)| text).concat();
    assert_eq!((scan.text.as_str(), &scan.text[scan.own.clone()]), (all.as_str(), TEXT));
    for token in &scan.tokens {
        assert_eq!(token.text, scan.text[token.start..token.end]);
    }
    // Passages are those of the text alone; rows those of question and answer.
    let passages: Vec<&str> = scan.segments.iter().map(|part| &scan.text[part.start..part.end]).collect();
    assert_eq!(passages.concat(), TEXT);
    let rows: String = scan.rows.iter().map(|&row| scan.tokens[row].text.as_str()).collect();
    assert_eq!(rows, format!("who slept?{answer}"));
    let asked: Vec<usize> = scan.of_interest().collect();
    assert_eq!(asked, scan.rows);
}

#[test]
fn the_default_of_several_templates_and_a_file_of_its_own() {
    let list = json!([{"name": "tools", "template": "no"}, {"name": "default", "template": TURNS}]);
    let desk = speaking(&json!({"chat_template": list}));
    let whole = scan(desk.path(), 0).text;
    assert!(whole.starts_with("<|im_start|>user\nthe fox") && whole.ends_with("assistant\n"), "{whole:?}");
    // A file counts more.
    let other = TURNS.replace("assistant", "fox").replace(" | trim", "");
    std::fs::write(desk.path().join("chat_template.jinja"), other).expect("written");
    assert!(scan(desk.path(), 0).text.ends_with("who slept?<|im_end|>\n<|im_start|>fox\n"));
}

#[test]
fn without_a_template_the_question_follows_the_text() {
    let desk = speaking(&json!({}));
    let scan = scan(desk.path(), 0);
    assert_eq!(scan.text, format!("{TEXT}\nwho slept?"));
    let roles = [Role::Text, Role::Template, Role::Question];
    assert_eq!(parts(&scan).iter().map(|(role, _)| *role).collect::<Vec<_>>(), roles);
}

#[test]
fn blanks_that_a_template_trims_are_no_bytes_of_the_text() {
    let desk = speaking(&json!({"chat_template": TURNS}));
    let plan = Plan::new(request(desk.path().to_owned(), "\n\nthe fox", 0)).expect("sound");
    let scan = plan.run(&mut ()).expect("runs");
    assert_eq!(&scan.text[scan.own.clone()], "the fox");
    assert_eq!(parts(&scan)[1], (Role::Text, "the fox".to_owned()));
    assert_eq!(parts(&scan)[3], (Role::Question, "who slept?".to_owned()));
}

#[test]
fn a_template_that_changes_the_text_or_refuses_it_is_told() {
    for (template, words) in [
        (TURNS.replace("| trim", "| upper"), "changes the text"),
        ("{{ raise_exception('no users here') }}".to_owned(), "no users here"),
    ] {
        let desk = speaking(&json!({"chat_template": template}));
        let error = Plan::new(request(desk.path().to_owned(), TEXT, 0)).expect_err("refused");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn smollm2_is_asked_as_it_was_trained() {
    let Some(path) = smollm2() else { return };
    let text = "Anna signed the contract on Monday.\n\nBen made tea.\n";
    let asked = Request { ask: Some("Who signed the contract?".into()), ..request(path, text, 8) };
    let scan = Plan::new(asked).and_then(|plan| plan.run(&mut ())).unwrap_or_else(|error| panic!("{error}"));
    let system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n";
    let answer = scan.answer().expect("written");
    let expected = format!(
        "{system}<|im_start|>user\n{text}\nWho signed the contract?<|im_end|>\n<|im_start|>assistant\n{answer}"
    );
    assert_eq!(scan.text, expected);
    assert_eq!(&scan.text[scan.own.clone()], text);
    assert!(answer.contains("Anna"), "{answer:?}");
    let question: String = scan
        .tokens
        .iter()
        .filter(|token| token.role == Role::Question)
        .map(|token| token.text.as_str())
        .collect();
    assert_eq!(question, "Who signed the contract?");
}
