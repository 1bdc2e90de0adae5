//! What `glasshead scan` says beside its output, on standard error.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::common::desk::Desk;
use serde_json::json;

fn said(desk: &Desk, args: &[&str]) -> Vec<String> {
    let done = desk.done(args);
    String::from_utf8(done.stderr).unwrap().lines().map(str::to_owned).collect()
}

/// JSON of a map of 2974² numbers per head: said before it is computed.
#[test]
fn json_that_gets_large_is_said_beforehand() {
    let desk = Desk::new();
    desk.tiny(json!({})).tiny_with_positions(3000).write("text.txt", "the far bank ".repeat(990));
    let args = |out| ["scan", "text.txt", "--model", "long", "--read", "blocks=1", "-o", out];
    let mut child = desk.glasshead(&args("out.json")).stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stderr.take().unwrap()).lines().take(2).map(Result::unwrap).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    // 2 layers × 4 heads × 2972² numbers of 4 bytes are 0.28 GB, and some ten characters each.
    let expected =
        "the json will have about 0.7 GB; -o FILE.safetensors or .parquet holds the same in 0.3 GB";
    assert!(lines[1].starts_with(expected), "{lines:?}");

    desk.write("text.txt", "the far bank");
    for out in ["out.json", "out.safetensors"] {
        let lines = said(&desk, &args(out));
        assert_eq!(lines.len(), 1, "{out}: {lines:?}");
    }
}
