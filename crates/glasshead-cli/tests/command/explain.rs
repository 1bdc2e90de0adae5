//! `glasshead explain` as a user meets it: the numbers of the worked example, every format, own input.

use crate::common::{self, glasshead, succeeds};
use serde_json::Value;

fn explain(args: &[&str]) -> String {
    String::from_utf8(succeeds(glasshead().arg("explain").args(args))).unwrap()
}

fn json(args: &[&str]) -> Value {
    let text = explain(&[args, &["--format", "json"]].concat());
    assert!(text.ends_with("}\n"));
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn the_worked_example_is_right_to_the_last_digit() {
    let seen = json(&[]);
    let weights = numbers(&seen["weights"]);
    // Softmax by hand, in the same f64.
    let scores = [0.2, 0.8, 0.4, 1.0, 1.0, 0.6, 0.2, 0.3, 0.5f64];
    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
    for (weight, score) in weights.iter().zip(scores) {
        assert!((weight - score.exp() / sum).abs() < 1e-15);
    }
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((seen["checks"]["weights_sum"].as_f64().unwrap() - 1.0).abs() < 1e-12);
    assert!(seen["checks"]["max_abs_error"].as_f64().unwrap() < 1e-6);
    assert_eq!(seen["contributions"].as_array().unwrap().len(), 9);
    let mut output = [0.0; 3];
    for (word, row) in seen["contributions"].as_array().unwrap().iter().enumerate() {
        for (d, x) in numbers(row).into_iter().enumerate() {
            assert!((x - weights[word] * (3 * word + d + 1) as f64 / 10.0).abs() < 1e-15);
            output[d] += x;
        }
    }
    for ((got, sum), expected) in
        numbers(&seen["output"]).into_iter().zip(output).zip([1.256971, 1.356971, 1.456971])
    {
        assert!((got - sum).abs() < 1e-15 && (got - expected).abs() < 5e-7);
    }
    assert_eq!(seen["source"]["kind"], "example");
    assert_eq!(seen["focus"]["text"], "jumps");
    assert_eq!(seen["encoding"][8], serde_json::json!([2.5, 2.6, 2.7]));
    assert_eq!(seen["tokens"][6], serde_json::json!({"index": 6, "text": "the", "start": 31, "end": 34}));
    assert_eq!(seen["claimed"]["wrong"], "scaled_scores");
    let notes = seen["notes"].to_string();
    assert!(notes.contains("add to 1.34") && notes.contains("proportional to the raw scores"));
}

#[test]
fn the_worked_example_for_reading() {
    // How far f32 is off in the last place depends on the instruction set.
    let fixed = |text: String| {
        let (start, rest) = text.split_once("is off by at most ").unwrap();
        let (error, end) = rest.split_once(".\n").unwrap();
        assert!(error.parse::<f64>().unwrap() < 1e-6, "{error}");
        format!("{start}is off by at most SOME ERROR.\n{end}")
    };
    insta::assert_snapshot!("example_table", fixed(explain(&["--format", "table"])));
    insta::assert_snapshot!("example_markdown", fixed(explain(&["--format", "markdown"])));
    assert_eq!(explain(&[]), explain(&["--format", "markdown"]), "no terminal: markdown");
}

#[test]
fn another_focus_of_the_example_is_computed_from_the_vectors() {
    let seen = json(&["--focus", "the"]);
    assert_eq!(seen["focus"]["index"], 6);
    let (query, scale) = (numbers(&seen["query"]), seen["scale"].as_f64().unwrap());
    assert!((scale - 1.0 / 3f64.sqrt()).abs() < 1e-15);
    for (key, score) in seen["keys"].as_array().unwrap().iter().zip(numbers(&seen["scores"])) {
        let dot: f64 = numbers(key).iter().zip(&query).map(|(k, q)| k * q).sum();
        assert!((dot * scale - score).abs() < 1e-12);
    }
    assert!(seen["notes"].to_string().contains("computed from the vectors"));
    assert_eq!(json(&["--focus", "THE:2"])["focus"]["index"], 6);
    assert_eq!(json(&["--focus", "0"])["focus"]["index"], 0);
}

#[test]
fn temperature_flattens_and_sharpens() {
    let heaviest = |args: &[&str]| numbers(&json(args)["weights"]).into_iter().fold(0.0, f64::max);
    let plain = heaviest(&[]);
    assert!(heaviest(&["--temperature", "0.1"]) > 0.4);
    assert!(heaviest(&["--temperature", "100"]) < 0.112 && plain > 0.16);
    assert_eq!(json(&["--temperature", "2"])["scores"][3], 0.5);
}

#[test]
fn own_scores_own_vectors_and_claims() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.csv");
    std::fs::write(&file, "word,x,y\nα,1,0\nβ,0,1\nα,1,1\n").unwrap();
    let file = file.to_str().unwrap();
    let seen = json(&["--vectors", file, "--focus", "α:2", "--scale", "1"]);
    assert_eq!(seen["source"]["kind"], "vectors");
    assert_eq!(seen["text"], "α β α");
    assert_eq!(seen["tokens"][2], serde_json::json!({"index": 2, "text": "α", "start": 6, "end": 8}));
    assert_eq!(numbers(&seen["scores"]), [1.0, 1.0, 2.0]);

    let seen = json(&["--vectors", file, "--scores", "[0, null, 0]", "--claimed", "0.5,0.0,0.5"]);
    assert_eq!(numbers(&seen["weights"]), [0.5, 0.0, 0.5]);
    assert_eq!(seen["scores"][1], Value::Null);
    assert_eq!(seen["claimed"]["wrong"], Value::Null);
    assert!(seen.get("query").is_none());

    let list = folder.path().join("scores.txt");
    std::fs::write(&list, "0\n0\n0\n").unwrap();
    let seen = json(&["--vectors", file, "--scores", list.to_str().unwrap(), "--claimed", "0.9,0.05,0.05"]);
    assert_eq!(seen["claimed"]["wrong"], "values");
}

#[test]
fn csv_is_one_tidy_table() {
    let text = explain(&["--format", "csv"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(
        lines[0],
        "index,text,start,end,focus,score,weight,influence,value_0,value_1,value_2,contribution_0,contribution_1,contribution_2"
    );
    assert!(lines[5].starts_with("4,jumps,20,25,true,1,0.1655"));
}

#[test]
fn the_page_holds_everything_and_asks_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    explain(&["-o", path.to_str().unwrap()]);
    // The name space of SVG is a name, no address.
    let page = std::fs::read_to_string(path).unwrap().replace("http://www.w3.org/2000/svg", "");
    for part in [
        "\"given_scores\":{\"focus\":4",
        "<noscript>",
        "default-src 'none'",
        "\"command\",\"glasshead explain -o",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["{{", "/*{{", "http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn words_of_a_page_cannot_end_its_script() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("evil.csv");
    std::fs::write(&file, "</script><script>alert(1)</script>,1\n{{data}},2\n/*{{js}}*/,3\n").unwrap();
    let page = explain(&["--vectors", file.to_str().unwrap(), "--format", "html"]);
    assert_eq!(page.matches("</script").count(), explain(&["--format", "html"]).matches("</script").count());
    assert!(page.contains("\\u003c/script>\\u003cscript>alert(1)"));
}

#[test]
fn a_real_model_in_words_and_tokens() {
    let Some(folder) = common::minilm() else {
        eprintln!("NOT TESTED: minilm is not on this disk; `glasshead models pull minilm` fetches it");
        return;
    };
    let folder = folder.to_str().unwrap();
    let text = "The unbuttered fox isn't the fox.";
    let common =
        |more: &[&str]| json(&[&[text, "--model", folder, "--layer", "2", "--head", "3"], more].concat());
    let words = common(&["--focus", "unbuttered"]);
    let texts: Vec<&str> =
        words["tokens"].as_array().unwrap().iter().map(|t| t["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["[CLS]", "The", "unbuttered", "fox", "isn't", "the", "fox", ".", "[SEP]"]);
    let rows: Vec<Value> =
        ["2", "3", "4"].map(|focus| common(&["--units", "tokens", "--focus", focus])).to_vec();
    assert_eq!(rows[0]["tokens"][2]["start"], 4);
    // A word's weight is the sum over its pieces, its own row the mean over its pieces.
    let mean = |columns: std::ops::Range<usize>| {
        rows.iter().map(|row| numbers(&row["weights"])[columns.clone()].iter().sum::<f64>()).sum::<f64>()
            / 3.0
    };
    let weights = numbers(&words["weights"]);
    assert!((weights[2] - mean(2..5)).abs() < 1e-12);
    assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let output = numbers(&words["output"]);
    for (d, x) in output.iter().enumerate() {
        let sum: f64 =
            words["contributions"].as_array().unwrap().iter().map(|row| row[d].as_f64().unwrap()).sum();
        assert!((x - sum).abs() < 1e-12);
    }
    // The middle layer and the head of lowest entropy are chosen, and said.
    let chosen = json(&[text, "--model", folder]);
    assert_eq!(chosen["source"]["layer"], 3);
    assert_eq!(chosen["focus"]["text"], "fox");
    let entropy = |head: u64| {
        let seen = json(&[text, "--model", folder, "--layer", "3", "--head", &head.to_string()]);
        -numbers(&seen["weights"]).iter().map(|p| p * p.ln()).sum::<f64>()
    };
    let best = chosen["source"]["head"].as_u64().unwrap();
    assert!((0..12).all(|head| entropy(best) <= entropy(head)));
    assert!(chosen["notes"].to_string().contains("lowest entropy"));
}

/// What somebody may have meant by the same flag is said.
#[test]
fn a_focus_that_could_be_another_one_is_told() {
    let vectors = ["--vectors", "tests/command/common/pears.csv"];
    for (focus, index, note) in [
        ("3", 3, "“pears”; the word “3” is --focus 3:1"),
        ("and", 1, "“and” stands 2 times; this is the first, and --focus and:2 is the second"),
        ("and:2", 4, ""),
        ("pears", 3, ""),
    ] {
        let seen = json(&[&vectors[..], &["--focus", focus]].concat());
        assert_eq!(seen["focus"]["index"], index);
        let notes = seen["notes"].to_string();
        assert!(notes.contains(note) && (notes.contains("--focus") != note.is_empty()), "{focus}: {notes}");
    }
}
