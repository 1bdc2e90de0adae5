//! `glasshead scan` as a user meets it: every readout of the tiny BERT against transformers, words and bytes in
//! every output, passages, questions, pictures.

use std::path::Path;

use crate::common::{self, desk::Desk, glasshead, succeeds};
use glasshead::weights::{ArrayData, Arrays, read_safetensors};
use serde_json::{Value, json};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../glasshead/tests/data/tiny-bert");
const TEXT: &str = "The banker, far.\n\nthe bank & <far>\nBank\n";

fn floats(arrays: &Arrays, name: &str) -> (Vec<f32>, Vec<usize>) {
    match arrays.get(name).unwrap_or_else(|error| panic!("{error}")) {
        (ArrayData::F32(values), shape) => (values, shape.to_vec()),
        (other, _) => panic!("{name} is {:?}", other.dtype()),
    }
}

fn indices(arrays: &Arrays, name: &str) -> (Vec<i64>, Vec<usize>) {
    match arrays.get(name).unwrap_or_else(|error| panic!("{error}")) {
        (ArrayData::I64(values), shape) => (values, shape.to_vec()),
        (other, _) => panic!("{name} is {:?}", other.dtype()),
    }
}

/// A desk with the tiny model and `text.txt`.
fn desk() -> Desk {
    let desk = Desk::new();
    desk.tiny(json!({})).write("text.txt", TEXT);
    desk
}

/// Runs a scan of `text.txt` and returns its JSON.
fn json_of(desk: &Desk, args: &[&str]) -> Value {
    let done = desk.done(&[&["scan", "text.txt", "--model", "tiny", "--format", "json"], args].concat());
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A readout of a JSON scan: its shape and its numbers.
fn readout(scan: &Value, name: &str) -> (Vec<usize>, Vec<f64>) {
    let list = |value: &Value| value.as_array().unwrap_or_else(|| panic!("no {name} in {scan}")).clone();
    let of = &scan["readouts"][name];
    let shape = list(&of["shape"]).iter().map(|x| x.as_u64().unwrap() as usize).collect();
    (shape, list(&of["values"]).iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect())
}

#[track_caller]
fn agree(name: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= tolerance, "{name}[{at}]: {got}, expected {want}");
    }
}

/// The tolerance of one weight is that of `models/bert.rs` of the library (2e-5, ten times the float32 noise of this
/// checkpoint); a sum of n weights may be off by n of them, an entropy by Σ |1 + ln p| of them.
#[test]
fn every_readout_agrees_with_transformers() {
    const WEIGHT: f64 = 2e-5;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let read = "lse,entropy,max,top=3,received,first,rows=0:1:23,segments=7:24,blocks=5,distance";
    let ids = Path::new(TINY).join("ids.json");
    let mut command = glasshead();
    command.arg("scan").arg("--ids").arg(&ids).args(["--model", TINY, "--read", read, "-o"]).arg(&out);
    succeeds(&mut command);
    let (got, golden) = (
        read_safetensors(&out).unwrap(),
        read_safetensors(&Path::new(TINY).join("golden.safetensors")).unwrap(),
    );
    let (weights, shape) = floats(&golden, "expect_attention");
    let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
    let [layers, heads, n, _] = *shape.as_slice() else { panic!("{shape:?}") };
    let rows = || weights.chunks_exact(n).enumerate().map(|(index, row)| (index % n, row));
    let maps = || weights.chunks_exact(n * n);
    let check = |name: &str, axes: &[usize], want: Vec<f64>, tolerance: f64| {
        let (values, shape) = floats(&got, name);
        assert_eq!(shape, [&[layers, heads], axes].concat(), "{name}");
        agree(name, &values, &want, tolerance);
    };
    let entropy = |row: &[f64]| -row.iter().map(|p| p * p.ln()).sum::<f64>();
    let steepest = |row: &[f64]| row.iter().map(|p| (1.0 + p.ln()).abs()).sum::<f64>();
    let steepest = rows().map(|(_, row)| steepest(row)).fold(0.0, f64::max);
    check("entropy", &[n], rows().map(|(_, row)| entropy(row)).collect(), WEIGHT * steepest);
    let most = |row: &[f64]| row.iter().copied().fold(0.0, f64::max);
    check("max_weight", &[n], rows().map(|(_, row)| most(row)).collect(), WEIGHT);
    check("first_weight", &[n], rows().map(|(_, row)| row[0]).collect(), WEIGHT);
    let distance = |(query, row): (usize, &[f64])| -> f64 {
        row.iter().enumerate().map(|(key, p)| p * query.abs_diff(key) as f64).sum()
    };
    check("distance", &[n], rows().map(distance).collect(), WEIGHT * (n * n) as f64);
    let received = maps().flat_map(|map| (0..n).map(|key| (0..n).map(|query| map[query * n + key]).sum()));
    check("received", &[n], received.collect(), WEIGHT * n as f64);
    let chosen = maps().flat_map(|map| [0, 1, 23].map(|row| &map[row * n..(row + 1) * n]).concat());
    check("rows", &[3, n], chosen.collect(), WEIGHT);
    let segments = rows().flat_map(|(_, row)| [row[..7].iter().sum(), row[7..24].iter().sum::<f64>()]);
    check("segments", &[n, 2], segments.collect(), WEIGHT * n as f64);
    let side = n.div_ceil(5);
    let square = |map: &[f64], place: usize| -> f64 {
        let (down, across) = (place / side * 5, place % side * 5);
        let row = |query: usize| map[query * n + across..query * n + n.min(across + 5)].iter().sum::<f64>();
        (down..n.min(down + 5)).map(row).sum()
    };
    let blocks = maps().flat_map(|map| (0..side * side).map(|place| square(map, place)).collect::<Vec<_>>());
    check("blocks", &[side, side], blocks.collect(), WEIGHT * 25.0);
    let (index, shape) = indices(&got, "top_index");
    assert_eq!(shape, [layers, heads, n, 3]);
    let heaviest = rows().flat_map(|(_, row)| {
        let mut sorted = row.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        sorted[..3].to_vec()
    });
    check("top_weight", &[n, 3], heaviest.collect(), WEIGHT);
    for ((_, row), keys) in rows().zip(index.chunks_exact(3)) {
        let third = row.iter().filter(|&&p| p > row[keys[2] as usize] + 2.0 * WEIGHT).count();
        assert!(third <= 2, "key {} is not among the three heaviest", keys[2]);
    }
    let ids: Vec<i64> = serde_json::from_slice(&std::fs::read(ids).unwrap()).unwrap();
    assert_eq!(indices(&got, "tokens"), (ids.clone(), vec![n]));
    let metadata = got.metadata();
    assert!(metadata["command"].starts_with("glasshead scan --ids "));
    assert_eq!((metadata["quantity"].as_str(), metadata["layers"].as_str()), (read, "0,1"));
    assert_eq!(metadata["sha256"].len(), 64);
    let texts: Vec<String> = serde_json::from_str(&metadata["token_text"]).unwrap();
    assert_eq!(texts[1], format!("#{}", ids[1]));
}

#[test]
fn chosen_layers_and_heads_are_those_of_all() {
    let desk = desk();
    let read = ["--read", "entropy,top=2"];
    let (all, some) = (
        json_of(&desk, &read),
        json_of(&desk, &[&read[..], &["--layers", "1,0", "--heads", "3,1"]].concat()),
    );
    let tokens = all["tokens"].as_array().unwrap().len();
    for (name, each) in [("entropy", tokens), ("top_weight", 2 * tokens), ("top_index", 2 * tokens)] {
        let ((shape, all), (chosen, some)) = (readout(&all, name), readout(&some, name));
        assert_eq!((&shape[..2], &chosen[..2]), (&[2, 4][..], &[2, 2][..]));
        let expected: Vec<f64> = [(1, 3), (1, 1), (0, 3), (0, 1)]
            .iter()
            .flat_map(|(layer, head)| all[(layer * 4 + head) * each..][..each].to_vec())
            .collect();
        assert_eq!(some, expected, "{name}");
    }
    assert_eq!((some["layers"].clone(), some["heads"].clone()), (json!([1, 0]), json!([3, 1])));
    // A pass that needs no later layer says so.
    let done = desk.done(&["scan", "text.txt", "--model", "tiny", "--layers", "0"]);
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("15 tokens through 1 layer of 4 heads"),
        "{done:?}"
    );
}

#[test]
fn words_and_bytes_go_through() {
    let scan = json_of(&desk(), &["--read", "rows=@BANKER:last"]);
    let tokens = scan["tokens"].as_array().unwrap();
    let texts: Vec<&str> = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    let expected =
        ["[CLS]", "The", "bank", "er", ",", "far", ".", "the", "bank", "&", "<", "far", ">", "Bank", "[SEP]"];
    assert_eq!(texts, expected);
    for token in tokens {
        let (start, end) =
            (token["start"].as_u64().unwrap() as usize, token["end"].as_u64().unwrap() as usize);
        if token["role"] == "special" {
            assert_eq!(start, end);
        } else {
            assert_eq!(
                (&TEXT[start..end], &token["role"]),
                (token["text"].as_str().unwrap(), &json!("text"))
            );
        }
    }
    assert_eq!(scan["text"], TEXT);
    assert_eq!((scan["rows"].clone(), scan["own"].clone()), (json!([2, 3, 14]), json!([0, TEXT.len()])));
    let (shape, rows) = readout(&scan, "rows");
    assert_eq!(shape, [2, 4, 3, 15]);
    assert!(rows.chunks(15).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-5));
    assert_eq!(scan["model"]["family"], "bert");
}

#[test]
fn passages_are_the_sums_of_their_tokens() {
    let desk = desk();
    desk.write("ranges.json", r#"[[4, 10], {"start": 18, "end": 26, "label": "the bank"}]"#);
    let rows = (0..15).map(|row| row.to_string()).collect::<Vec<_>>().join(":");
    for (kind, passages) in [
        ("paragraph", vec![vec![1, 2, 3, 4, 5, 6], vec![7, 8, 9, 10, 11, 12, 13]]),
        ("line", vec![vec![1, 2, 3, 4, 5, 6], vec![], vec![7, 8, 9, 10, 11, 12], vec![13]]),
        ("ranges.json", vec![vec![2, 3], vec![7, 8]]),
    ] {
        let scan = json_of(&desk, &["--read", &format!("segments={kind},rows={rows},first")]);
        let ((shape, segments), (_, weights)) = (readout(&scan, "segments"), readout(&scan, "rows"));
        assert_eq!(shape, [2, 4, 15, passages.len()], "{kind}");
        for (row, found) in weights.chunks(15).zip(segments.chunks(passages.len())) {
            for (tokens, found) in passages.iter().zip(found) {
                let sum: f64 = tokens.iter().map(|&token: &usize| row[token]).sum();
                // At most seven f32 additions of numbers below 1.
                assert!(
                    (sum - found).abs() < 8.0 * f64::from(f32::EPSILON),
                    "{kind}: {found}, expected {sum}"
                );
            }
        }
        let counts = scan["segments"].as_array().unwrap().iter().map(|s| s["tokens"].as_u64().unwrap());
        assert!(counts.eq(passages.iter().map(|tokens| tokens.len() as u64)), "{kind}");
        let (_, first) = readout(&scan, "first_weight");
        assert!(first.iter().zip(weights.chunks(15)).all(|(first, row)| (first - row[0]).abs() < 1e-6));
    }
    let scan = json_of(&desk, &["--read", "segments=ranges.json"]);
    assert_eq!(
        scan["segments"][1],
        json!({"index": 1, "label": "the bank", "start": 18, "end": 26, "tokens": 2})
    );
    assert_eq!(scan["segments"][0]["label"], "banker");
}

#[test]
fn a_question_stands_behind_the_text_and_its_rows_are_kept() {
    let scan = json_of(&desk(), &["--read", "entropy,segments=paragraph", "--ask", " The far bank? "]);
    assert_eq!(scan["text"], format!("{TEXT}\nThe far bank?"));
    let roles: Vec<&str> =
        scan["tokens"].as_array().unwrap().iter().map(|token| token["role"].as_str().unwrap()).collect();
    let expected = [&["special"][..], &["text"; 13], &["question"; 4], &["special"]].concat();
    assert_eq!(roles, expected);
    assert_eq!(scan["rows"], json!([14, 15, 16, 17]));
    assert_eq!(readout(&scan, "rows").0, [2, 4, 4, 19]);
    assert_eq!(readout(&scan, "segments").0, [2, 4, 19, 2]);
    let rows = json_of(&desk(), &["--read", "rows=0", "--ask", "far?"]);
    assert_eq!(rows["rows"], json!([0]), "rows that were named stay");
}

#[test]
fn the_table_for_reading() {
    let desk = desk();
    let done = desk.done(&["scan", "text.txt", "--model", "tiny"]);
    insta::assert_snapshot!("scan_table", String::from_utf8(done.stdout).unwrap());
    let done =
        desk.done(&["scan", "text.txt", "--model", "tiny", "--ask", "far?", "--read", "segments=line,first"]);
    insta::assert_snapshot!("scan_table_ask", String::from_utf8(done.stdout).unwrap());
}

#[test]
fn files_hold_the_same_numbers_and_standard_input_is_a_text() {
    use std::io::Write as _;
    let desk = desk();
    let args = ["--model", "tiny", "--read", "all", "--threads", "1"];
    desk.done(&[&["scan", "text.txt", "-o", "out.safetensors"], &args[..]].concat());
    let arrays = read_safetensors(&desk.path().join("out.safetensors")).unwrap();
    let mut command = desk.glasshead(&["scan", "-", "--model", "tiny", "--read", "all", "--format", "json"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(TEXT.as_bytes()).unwrap();
    let scan: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    let names: Vec<&str> = arrays.list().map(|(name, _)| name).filter(|name| *name != "tokens").collect();
    assert_eq!(names.len(), scan["readouts"].as_object().unwrap().len());
    for name in names.iter().filter(|name| **name != "top_index") {
        let ((a, a_shape), (b_shape, b)) = (floats(&arrays, name), readout(&scan, name));
        assert_eq!(a_shape, b_shape, "{name}");
        assert!(a.iter().zip(&b).all(|(a, b)| *a == *b as f32), "{name}");
    }
}

/// The lines of a Parquet file as JSON objects.
fn lines(path: &Path) -> Vec<Value> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row};
    let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let metadata = file.metadata().file_metadata().key_value_metadata().unwrap();
    let command = metadata.iter().find(|pair| pair.key == "command").unwrap().value.clone().unwrap();
    assert!(command.starts_with("glasshead scan text.txt --model tiny"), "{command}");
    let value = |field: &Field| match field {
        Field::Long(number) => json!(number),
        Field::Str(text) => json!(text),
        Field::Float(number) => json!(number),
        other => panic!("{other:?}"),
    };
    let object = |row: Row| row.get_column_iter().map(|(name, field)| (name.clone(), value(field))).collect();
    file.get_row_iter(None).unwrap().map(|row| Value::Object(object(row.unwrap()))).collect()
}

#[test]
fn parquet_is_a_tidy_table_per_readout() {
    let desk = desk();
    let read = "entropy,top=20,received,segments=line,blocks=6,rows=@banker";
    let args = ["scan", "text.txt", "--model", "tiny", "--layers", "1", "--heads", "2,0", "--read", read];
    let done = desk.done(&[&args[..], &["-o", "out.parquet"]].concat());
    assert!(String::from_utf8_lossy(&done.stderr).contains("out.top.parquet"));
    let scan: Value =
        serde_json::from_slice(&desk.done(&[&args[..], &["--format", "json"]].concat()).stdout).unwrap();
    let table = |name: &str| lines(&desk.path().join(format!("out.{name}.parquet")));
    for name in ["entropy", "received", "segments", "blocks", "rows"] {
        let (lines, (_, values)) = (table(name), readout(&scan, name));
        assert_eq!(lines.len(), values.len(), "{name}");
        let same = |(line, value): (&Value, &f64)| line["value"].as_f64().unwrap() as f32 == *value as f32;
        assert!(lines.iter().zip(&values).all(same), "{name}");
        assert!(
            lines[..lines.len() / 2].iter().all(|line| line["head"] == 2 && line["layer"] == 1),
            "{name}"
        );
    }
    let first =
        json!({"layer": 1, "head": 2, "token": 2, "text": "bank", "start": 4, "end": 8, "role": "text"});
    let entropy = &table("entropy")[2];
    assert!(first.as_object().unwrap().iter().all(|(key, value)| entropy[key] == *value), "{entropy}");
    assert_eq!(table("segments")[4 * 5 + 3]["label"], "Bank");
    assert_eq!(table("rows")[17]["key_text"], "bank");
    let block = &table("blocks")[4];
    assert_eq!((&block["first_query"], &block["first_key"]), (&json!(6), &json!(6)));
    // Twenty were asked for; the fifteen that there are stand in the table.
    let top = table("top");
    assert_eq!(top.len(), 2 * 15 * 15);
    let (_, weights) = readout(&scan, "top_weight");
    assert_eq!(top[16]["weight"].as_f64().unwrap() as f32, weights[21] as f32);
    assert_eq!((&top[16]["token"], &top[16]["rank"]), (&json!(1), &json!(1)));
    assert!(!desk.path().join("out.parquet").exists());
    desk.done(&["scan", "text.txt", "--model", "tiny", "--read", "top=2", "-o", "one.parquet"]);
    assert_eq!(lines(&desk.path().join("one.parquet")).len(), 8 * 15 * 2);
}

#[test]
fn pictures_say_what_they_show() {
    let desk = desk();
    let one = ["scan", "text.txt", "--model", "tiny", "--layers", "1", "--heads", "2"];
    desk.done(&[&one[..], &["-o", "map.svg"]].concat());
    let map = std::fs::read_to_string(desk.path().join("map.svg")).unwrap();
    for part in
        ["layer 1, head 2: map of queries (down)", "squares of 1 × 1 tokens", "SHA-256 ", "-o map.svg"]
    {
        assert!(map.contains(part), "{part}");
    }
    desk.done(&[&one[..], &["--read", "rows=@banker:last", "-o", "rows.svg"]].concat());
    desk.done(&[&one[..], &["--read", "rows=last", "-o", "strip.svg"]].concat());
    let strip = std::fs::read_to_string(desk.path().join("strip.svg")).unwrap();
    for part in ["weights of the query at token 14", "[SEP]", ">&lt;<", ">&amp;<", "--read"] {
        assert!(strip.contains(part), "{part}");
    }
    desk.done(&[&one[..], &["--read", "received", "-o", "strip.png"]].concat());
    let png = std::fs::read(desk.path().join("strip.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    let said = String::from_utf8_lossy(&png);
    for part in ["layer 1, head 2: received", "glasshead scan text.txt --model tiny"] {
        assert!(said.contains(part), "{part}");
    }
}

#[test]
fn the_instruction_set_changes_nothing_but_the_last_digits() {
    let desk = desk();
    let best = json_of(&desk, &["--read", "entropy"]);
    let scalar = json_of(&desk, &["--read", "entropy", "--isa", "scalar"]);
    let ((_, best), (_, scalar)) = (readout(&best, "entropy"), readout(&scalar, "entropy"));
    assert!(best.iter().zip(&scalar).all(|(a, b)| (a - b).abs() < 1e-4));
    let sets = glasshead::attention::InstructionSet::here();
    assert!(sets.len() == 1 || best != scalar, "another set adds up in another order");
}

/// Every line by itself is that line scanned alone, whatever stands beside it.
#[test]
fn each_line_is_a_text_of_its_own() {
    let desk = desk();
    let lines = ["The banker, far.", "bank", "far the bank, far"];
    desk.write("lines.txt", format!("{}\n\n  \n{}\r\n{}\n", lines[0], lines[1], lines[2]));
    let read = "lse,entropy,max,top=3,received,distance,first";
    let args = ["scan", "lines.txt", "--model", "tiny", "--each", "line", "--read", read];
    let all = desk.done(&[&args[..], &["--format", "json"]].concat());
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    let texts = all["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 3);
    let total = all["tokens"].as_array().unwrap().len();
    let mut first = 0;
    for (index, (line, text)) in lines.iter().zip(texts).enumerate() {
        desk.write("line.txt", line);
        let alone = ["scan", "line.txt", "--model", "tiny", "--read", read, "--format", "json"];
        let alone: Value = serde_json::from_slice(&desk.done(&alone).stdout).unwrap();
        let own = alone["tokens"].as_array().unwrap();
        let range = |key: &str| text[key].as_u64().unwrap() as usize;
        assert_eq!((range("index"), range("first_token"), range("tokens")), (index, first, own.len()));
        let whole = all["text"].as_str().unwrap();
        assert_eq!(&whole[range("start")..range("end")], *line);
        for (token, own) in all["tokens"].as_array().unwrap()[first..].iter().zip(own) {
            assert_eq!(
                (&token["text"], &token["id"], &token["role"]),
                (&own["text"], &own["id"], &own["role"])
            );
            let bytes = |key: &str| token[key].as_u64().unwrap() as usize;
            if bytes("end") > 0 {
                assert_eq!(&whole[bytes("start")..bytes("end")], token["text"].as_str().unwrap());
            }
        }
        for name in [
            "lse",
            "entropy",
            "max_weight",
            "received",
            "distance",
            "first_weight",
            "top_weight",
            "top_index",
        ] {
            let ((shape, all), (_, alone)) = (readout(&all, name), readout(&alone, name));
            let across = shape.get(3).copied().unwrap_or(1);
            assert_eq!(&shape[..3], &[2, 4, total]);
            for (map, alone) in all.chunks_exact(total * across).zip(alone.chunks_exact(own.len() * across)) {
                let part = &map[first * across..][..own.len() * across];
                let place =
                    |key: &f64| if name == "top_index" && *key >= 0.0 { key + first as f64 } else { *key };
                for (got, want) in part.iter().zip(alone.iter().map(place)) {
                    // The linear layers' sums are in another order when more tokens go through at once.
                    let tied = name == "top_index";
                    assert!(
                        (got - want).abs() <= 1e-4 || tied && got.fract() == 0.0,
                        "{line}, {name}: {got}, {want}"
                    );
                }
            }
        }
        first += own.len();
    }
    assert_eq!(first, total);
    // The same starts in the other formats.
    desk.done(&[&args[..], &["-o", "out.safetensors"]].concat());
    let out = read_safetensors(&desk.path().join("out.safetensors")).unwrap();
    let starts: Vec<i64> =
        texts.iter().map(|text| text["first_token"].as_i64().unwrap()).chain([total as i64]).collect();
    assert_eq!(indices(&out, "text_starts"), (starts, vec![4]));
    assert!(out.metadata()["text_list"].contains("far the bank"));
    let table = String::from_utf8(desk.done(&args).stdout).unwrap();
    assert!(table.contains(&format!("tiny read 3 texts of {total} tokens")), "{table}");
}

#[test]
fn cards_of_heads_over_texts() {
    let desk = desk();
    desk.write("other.txt", "far bank, far the bank. the banker");
    let args = ["heads", "--model", "tiny", "text.txt", "other.txt"];
    let done = desk.done(&[&args[..], &["--format", "json"]].concat());
    let cards: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(cards["heads"].as_array().unwrap().len(), 8);
    assert_eq!(cards["texts"][1], json!({"name": "other.txt", "tokens": 12}));
    // The same numbers from the rows of both texts.
    let previous = |file: &str| {
        let rows = (0..if file == "text.txt" { 15 } else { 12 }).map(|row| row.to_string());
        let read = format!("rows={}", rows.collect::<Vec<_>>().join(":"));
        let done = desk.done(&["scan", file, "--model", "tiny", "--format", "json", "--read", &read]);
        let (shape, rows) = readout(&serde_json::from_slice(&done.stdout).unwrap(), "rows");
        let n = shape[3];
        let map = &rows[5 * n * n..6 * n * n];
        (1..n).map(|query| map[query * n + query - 1]).sum::<f64>() / (n - 1) as f64
    };
    let (a, b) = (previous("text.txt"), previous("other.txt"));
    let card = &cards["heads"][5]["previous"];
    // Rows are f32; a mean of numbers below 1.
    assert!((card["mean"].as_f64().unwrap() - (a + b) / 2.0).abs() < 1e-6, "{card}");
    assert!((card["deviation"].as_f64().unwrap() - (a - b).abs() / 2f64.sqrt()).abs() < 1e-6, "{card}");
    let done = desk.done(&[&args[..], &["-o", "cards.csv"]].concat());
    assert!(done.stdout.is_empty());
    let csv = std::fs::read_to_string(desk.path().join("cards.csv")).unwrap();
    assert!(csv.starts_with("layer,head,entropy,entropy_deviation,first,") && csv.lines().count() == 9);
    let table = String::from_utf8(desk.done(&args).stdout).unwrap();
    assert!(table.contains("text.txt (15 tokens)") && table.contains(" ± "), "{table}");
}

#[test]
fn minilm_is_verified() {
    let Some(folder) = common::minilm() else {
        eprintln!("NOT TESTED: minilm is not on this disk; `glasshead models pull minilm` fetches it");
        return;
    };
    let said = String::from_utf8(succeeds(glasshead().arg("verify").arg("--model").arg(folder))).unwrap();
    assert!(said.contains("attention weights") && said.contains("last hidden state"), "{said}");
    assert_eq!(said.matches(" yes").count(), 3, "{said}");
}

/// Every query's weight is somewhere: the rows of the table add to all of it, question and special tokens too.
#[test]
fn the_table_of_passages_leaves_no_weight_out() {
    let desk = desk();
    desk.write("text.txt", "the bank\n\nfar far\n\n".repeat(6));
    for more in [&[][..], &["--read", "segments=paragraph"], &["--ask", "far bank?"]] {
        let done = desk.done(&[&["scan", "text.txt", "--model", "tiny"], more].concat());
        let table = String::from_utf8(done.stdout).unwrap();
        let passages = table.split("Passages, by the share").nth(1).unwrap();
        let shares: Vec<f64> =
            passages.lines().filter_map(|line| line.split_once(" %")?.0.trim().parse().ok()).collect();
        assert!((shares.iter().sum::<f64>() - 100.0).abs() <= 0.05 * shares.len() as f64, "{table}");
        assert!(table.contains("more passages") && table.contains("outside all passages"), "{table}");
    }
}

#[test]
fn words_that_the_model_cannot_tell_apart_are_named() {
    let desk = desk();
    desk.write("text.txt", "the wolf far whale");
    let note = "tiny does not know the words “wolf”, “whale”: it reads [UNK] for each of them";
    let done = desk.done(&["scan", "text.txt", "--model", "tiny"]);
    assert!(String::from_utf8_lossy(&done.stderr).contains(note), "{done:?}");
    let done = desk.done(&["explain", "the wolf far whale", "--model", "tiny"]);
    assert!(String::from_utf8_lossy(&done.stdout).replace("\\[", "[").contains(note), "{done:?}");
}
