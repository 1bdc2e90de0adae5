//! Many texts in many passes, side by side or one after the other.

use crate::common::desk::Desk;
use glasshead::weights::{Arrays, read_safetensors};
use serde_json::json;

/// Twenty-eight passes: on one thread; each on one of three; one after the other on sixteen.
#[test]
fn the_number_of_threads_changes_no_bit() {
    let desk = Desk::new();
    let line = |n: usize| "the far banker ".repeat(n % 9 + 1) + "bank\n";
    desk.tiny(json!({})).write("lines.txt", (0..600).map(line).collect::<String>());
    let scan = |threads: &str| -> Arrays {
        let read = "lse,entropy,max,top=3,received,distance,first";
        let args = ["scan", "lines.txt", "--model", "tiny", "--each", "line", "--read", read];
        desk.done(&[&args[..], &["--threads", threads, "-o", "out.safetensors"]].concat());
        read_safetensors(&desk.path().join("out.safetensors")).unwrap()
    };
    let (one, three, sixteen) = (scan("1"), scan("3"), scan("16"));
    let mut tokens = 0;
    for (name, _) in one.list() {
        let expected = one.get(name).unwrap();
        assert!(expected == three.get(name).unwrap(), "{name} with three threads");
        assert!(expected == sixteen.get(name).unwrap(), "{name} with sixteen threads");
        tokens = if name == "tokens" { expected.1[0] } else { tokens };
    }
    assert!((13_000..14_500).contains(&tokens), "{tokens} tokens are not the passes that are meant");
}
