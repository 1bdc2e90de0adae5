//! The program against cases made by others: every array case on every instruction set of this machine, and
//! MiniLM against transformers where the model is on this disk. `data/ORIGIN.md` says who made them.

use std::{fs, path::Path};

use glasshead::{
    attention::InstructionSet,
    weights::{ArrayData, read_safetensors},
};
use serde_json::Value;

use crate::common;

fn cases(folder: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    paths.into_iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

fn numbers(data: &ArrayData) -> Vec<f64> {
    match data {
        ArrayData::F32(x) => x.iter().map(|&x| x.into()).collect(),
        ArrayData::F64(x) => x.clone(),
        ArrayData::F16(x) => x.iter().map(|&x| x.into()).collect(),
        ArrayData::Bf16(x) => x.iter().map(|&x| x.into()).collect(),
        ArrayData::I64(x) => x.iter().map(|&x| x as f64).collect(),
        ArrayData::Bool(x) => x.iter().map(|&x| f64::from(u8::from(x))).collect(),
    }
}

/// |got − want| ≤ atol + rtol·|want|, NaN with NaN and infinities alike.
fn far(got: f64, want: f64, tolerance: &Value) -> bool {
    let part = |name: &str| tolerance[name].as_f64().unwrap_or(0.0);
    let room = part("atol") + part("rtol") * want.abs();
    !(got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= room && want.is_finite())
}

fn worst(what: &str, got: &[f64], want: &[f64], tolerance: &Value) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!("{what}: {} values, expected {}", got.len(), want.len()));
    }
    let at = (0..got.len()).find(|&at| far(got[at], want[at], tolerance))?;
    Some(format!("{what}[{at}]: {}, expected {}", got[at], want[at]))
}

fn array_case(case: &Value, set: InstructionSet) -> Vec<String> {
    let name = case["name"].as_str().unwrap();
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/arrays/{name}.safetensors"));
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.safetensors");
    let mut command = common::glasshead();
    command.arg("attend").arg(&input).arg("-o").arg(&output).args(["--isa", set.name()]);
    command.args(case["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()));
    if case["read"] != "" {
        command.args(["--read", case["read"].as_str().unwrap()]);
    }
    let done = command.output().unwrap();
    if !done.status.success() {
        return vec![String::from_utf8_lossy(&done.stderr).into_owned()];
    }
    let (want, got) = (read_safetensors(&input).unwrap(), read_safetensors(&output).unwrap());
    let mut wrong = Vec::new();
    for (expected, info) in want.list().filter(|(name, _)| name.starts_with("expect_")) {
        let ours = if expected == "expect_weights" { "rows" } else { &expected["expect_".len()..] };
        match got.info(ours) {
            None => wrong.push(format!("no {ours}")),
            Some(found) if found.shape != info.shape => {
                wrong.push(format!("{ours}: shape {:?}", found.shape))
            }
            Some(_) => {
                let dtype =
                    |arrays: &glasshead::weights::Arrays, name: &str| arrays.get(name).unwrap().0.dtype();
                let need = match ours {
                    "out" => dtype(&want, "q"),
                    "top_index" => glasshead::weights::Dtype::I64,
                    _ => glasshead::weights::Dtype::F32,
                };
                assert_eq!(dtype(&got, ours), need, "{name} {ours}");
                let (a, b) = (numbers(&got.get(ours).unwrap().0), numbers(&want.get(expected).unwrap().0));
                wrong.extend(worst(ours, &a, &b, &case["tolerance"][expected]));
            }
        }
    }
    wrong
}

#[test]
fn arrays_agree_on_every_instruction_set() {
    let cases = cases("arrays");
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for set in InstructionSet::ALL {
        if !set.is_here() {
            eprintln!("NOT TESTED: this CPU has no {}", set.name());
            continue;
        }
        for case in &cases {
            wrong.extend(
                array_case(case, set)
                    .into_iter()
                    .map(|why| format!("{} {}: {why}", set.name(), case["name"])),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn minilm_agrees_with_transformers() {
    let Some(folder) = common::minilm() else {
        eprintln!("NOT TESTED: minilm is not on this disk; `glasshead models pull minilm` fetches it");
        return;
    };
    let mut checked = 0;
    for case in cases("explain") {
        for head in case["heads"].as_array().unwrap() {
            let number = |value: &Value| value.as_u64().unwrap().to_string();
            let mut command = common::glasshead();
            command.arg("explain").arg(case["text"].as_str().unwrap()).arg("--model").arg(&folder);
            command.args(["--units", "tokens", "--format", "json", "--layer", &number(&head["layer"])]);
            command.args(["--head", &number(&head["head"]), "--focus", &number(&head["focus"]["index"])]);
            let got: Value = serde_json::from_slice(&common::succeeds(&mut command)).unwrap();
            for (ours, theirs) in
                got["tokens"].as_array().unwrap().iter().zip(case["tokens"].as_array().unwrap())
            {
                for key in ["index", "text", "start", "end"] {
                    assert_eq!(ours[key], theirs[key], "{}: {theirs}", case["name"]);
                }
            }
            for key in ["scores", "weights", "output"] {
                let list = |value: &Value| {
                    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>()
                };
                let wrong = worst(key, &list(&got[key]), &list(&head[key]), &case["tolerance"][key]);
                assert_eq!(wrong, None, "{} layer {} head {}", case["name"], head["layer"], head["head"]);
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 14);
}
