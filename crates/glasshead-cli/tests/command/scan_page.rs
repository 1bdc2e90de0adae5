//! The page of a scan, as far as it can be judged without a browser (`tests/page/check_scan.py` drives one): what it
//! holds, what it says is missing, and that no text of a reader becomes part of the page.

use crate::common::desk::Desk;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const TEXT: &str = "The banker, far.\n\nthe bank & <far>\nBank\n";
const READ: &str = "entropy,first,top=3,received,rows=1:4,blocks=2,segments=paragraph";

/// A desk with the tiny model and this text as `text.txt`.
fn desk(text: &str) -> Desk {
    let desk = Desk::new();
    desk.tiny(json!({})).write("text.txt", text);
    desk
}

fn page(desk: &Desk, args: &[&str]) -> String {
    let done = desk.done(&[&["scan", "--model", "tiny", "--format", "html"], args].concat());
    String::from_utf8(done.stdout).unwrap()
}

/// What stands between two marks.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0
}

/// The data of a page, read as a browser would: up to the end of the script element.
fn data(page: &str) -> Value {
    serde_json::from_str(between(page, "<script type=\"application/json\" id=\"data\">", "</script>"))
        .unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()).into()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The means are taken in f64 of the same f32 numbers, and rounded to f32 once.
#[track_caller]
fn agree(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= f64::from(f32::EPSILON) * want.abs(), "{got}, expected {want}");
    }
}

#[test]
fn means_are_those_of_the_readouts() {
    let desk = desk(TEXT);
    let data = data(&page(&desk, &["text.txt", "--read", READ]));
    let done = desk.done(&["scan", "text.txt", "--model", "tiny", "--format", "json", "--read", READ]);
    let scan: Value = serde_json::from_slice(&done.stdout).unwrap();
    let readout = |name: &str| numbers(&scan["readouts"][name]["values"]);
    let tokens = scan["tokens"].as_array().unwrap().len();
    let heads = 8;
    let groups = data["groups"].as_array().unwrap();
    assert_eq!(
        groups.iter().map(|group| group["queries"].clone()).collect::<Vec<_>>(),
        [json!([1, 4]), Value::Null]
    );
    let mean_of = |values: &[f64], queries: &[usize]| -> Vec<f64> {
        let rows = values.chunks_exact(tokens);
        rows.map(|row| queries.iter().map(|&query| row[query]).sum::<f64>() / queries.len() as f64).collect()
    };
    let all: Vec<usize> = (0..tokens).collect();
    for (group, queries) in groups.iter().zip([&[1, 4][..], &all]) {
        agree(&floats(&group["first"]), &mean_of(&readout("first_weight"), queries));
        agree(&floats(&group["numbers"][0][1]), &mean_of(&readout("entropy"), queries));
    }
    let mean_over = |values: Vec<f64>, rows: usize| -> Vec<f64> {
        (0..tokens).map(|t| values.iter().skip(t).step_by(tokens).sum::<f64>() / rows as f64).collect()
    };
    agree(&floats(&groups[0]["tokens"]), &mean_over(readout("rows"), 2 * heads));
    agree(&floats(&groups[1]["tokens"]), &mean_over(readout("received"), tokens * heads));
    assert_eq!(data["missing"], json!([["max_weight", "max"], ["distance", "distance"]]));
    assert_eq!((&data["map"]["block"], &data["top"]["keys"]), (&json!(2), &json!(3)));
}

/// Offsets are those of JavaScript: a letter beyond U+FFFF counts twice.
#[test]
fn a_text_cannot_become_part_of_the_page() {
    let text = "The 🏠 bank </script><script>alert(1)</script> <!-- {{data}} far\n";
    let page = page(&desk(text), &["text.txt"]);
    let data = data(&page);
    assert_eq!(data["text"], text);
    let packed = 1 + 2 + 8; // passages, layers, heads
    assert_eq!(page.matches("<script").count(), 1 + packed + 1, "data, packed numbers, the page's own");
    assert!(!page.contains("alert(1)</script>") && page.contains("default-src 'none'"));
    let units: Vec<u16> = text.encode_utf16().collect();
    let place = |key: &str, token: usize| data["tokens"][key][token].as_u64().unwrap() as usize;
    let bank = (0..data["tokens"]["start"].as_array().unwrap().len()).find(|&token| {
        String::from_utf16_lossy(&units[place("start", token)..place("end", token)]) == "bank"
    });
    assert!(bank.is_some(), "{}", data["tokens"]);
}

#[test]
fn what_was_not_read_is_named() {
    let desk = desk(TEXT);
    let page = page(&desk, &["text.txt", "--read", "entropy"]);
    let data = data(&page);
    let missing: Vec<&str> =
        data["missing"].as_array().unwrap().iter().map(|m| m[1].as_str().unwrap()).collect();
    assert_eq!(
        missing,
        ["segments=paragraph", "received", "rows=last", "first", "max", "distance", "blocks", "top=8"]
    );
    assert_eq!((&data["map"], &data["top"], &data["segments"]), (&Value::Null, &Value::Null, &json!([])));
    assert!(!page.contains("id=\"packed-head"), "nothing to unpack");
}

/// Without a question the last token looks, with one the question's tokens; the mark at the end of an encoder's text
/// does not stand for the text.
#[test]
fn who_looks() {
    let desk = desk(TEXT);
    let names = |args: &[&str]| -> (Vec<String>, Value) {
        let data = data(&page(&desk, &[&["text.txt"], args].concat()));
        let groups = data["groups"].as_array().unwrap();
        (
            groups.iter().map(|group| group["name"].as_str().unwrap().to_owned()).collect(),
            data["group"].clone(),
        )
    };
    assert_eq!(names(&[]), (vec!["the last token “[SEP]”".into(), "all 15 tokens".into()], json!(1)));
    let (asked, begin) = names(&["--ask", "The bank?"]);
    assert_eq!((asked[0].as_str(), asked.len(), begin), ("the question", 2, json!(0)));
    let (asked, _) = names(&["--ask", "The bank?", "--read", "rows=2,received"]);
    assert_eq!(asked[..2], ["the question", "token 2 “bank”"]);
}

#[test]
fn ids_have_names_and_no_text() {
    let desk = desk(TEXT);
    desk.write("ids.json", "[2, 5, 6, 7, 3]");
    let data = data(&page(&desk, &["--ids", "ids.json"]));
    assert_eq!(data["tokens"]["names"][1], json!([1, "#5"]));
    assert_eq!((&data["text"], &data["segments"]), (&json!(""), &json!([])));
}

/// [CLS] is no part of a paragraph, and the first token of the first range of tokens.
#[test]
fn the_passage_of_the_first_token_is_known() {
    let desk = desk(TEXT);
    let held = |read: &str| -> Vec<bool> {
        let data = data(&page(&desk, &["text.txt", "--read", read]));
        let segments = data["segments"].as_array().unwrap().iter();
        segments.map(|segment| segment["holds_first"].as_bool().unwrap()).collect()
    };
    assert_eq!(held("first,segments=paragraph"), [false, false]);
    assert_eq!(held("first,segments=0:2:6"), [false, true, false]);
}
