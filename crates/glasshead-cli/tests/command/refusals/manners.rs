//! Output that cannot be written, words that no command knows, and what a shell expects.

use std::{fs, process::Stdio};

use crate::common::desk::{BANK, Desk, REQUEST, SURROUNDINGS};
use serde_json::json;

#[test]
fn output_that_cannot_be_written() {
    let desk = Desk::new();
    fs::create_dir(desk.path().join("folder")).unwrap();
    desk.write("file", "old").write("out.json", "old").tiny(json!({}));
    let explain = |out: &str, error: &str, hint: &str, code: i32| {
        desk.refused(code, &["explain", "-o", out, "--format", "json"], error, hint);
    };
    explain("none/out.json", "none/out.json", "folder", REQUEST);
    explain("folder", "is a folder", "file", REQUEST);
    explain("file/out.json", "file/out.json", "folder", SURROUNDINGS);
    desk.refused(REQUEST, &["explain", "-o", "folder"], "is a folder", "file");
    desk.refused(REQUEST, &["explain", "-o", "out.xyz"], "out.xyz", "--format");
    desk.refused(REQUEST, &["explain", "-o", "out"], "ending", "--format");
    desk.refused(REQUEST, &["explain", "--format", "xml"], "'xml'", "html");
    desk.refused(REQUEST, &["explain", "-o", ""], "", "");
    // A request that fails leaves the old file as it was.
    desk.refused(REQUEST, &["explain", "-o", "out.json", "--focus", "cat"], "cat", "fox");
    desk.refused(
        REQUEST,
        &["explain", BANK, "--model", "tiny", "--layer", "9", "-o", "out.json"],
        "--layer 9",
        "0 to",
    );
    assert_eq!(fs::read(desk.path().join("out.json")).unwrap(), b"old");
}

#[test]
fn unknown_words_on_the_command_line() {
    let desk = Desk::new();
    desk.refused(REQUEST, &["explain", "--fcous", "fox"], "--fcous", "--focus");
    desk.refused(REQUEST, &["explain", "The", "quick"], "'quick'", "quotes");
    desk.refused(REQUEST, &["explane"], "'explane'", "explain");
    desk.refused(REQUEST, &["attend"], "--output", "attend --help");
    desk.refused(REQUEST, &["explain", "--units", "letters"], "letters", "tokens");
    desk.refused(REQUEST, &["models", "fetch"], "fetch", "--help");
    desk.refused(REQUEST, &["models", "pull"], "<NAME>", "--help");
    desk.refused(REQUEST, &["doctor", "now"], "'now'", "--help");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let desk = Desk::new();
    desk.tiny(json!({}));
    for args in [
        &["explain"][..],
        &["explain", BANK, "--model", "tiny", "--format", "json"],
        &["doctor"],
        &["--help"],
    ] {
        let mut child = desk.glasshead(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take()); // gone before the first byte
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{args:?}: {done:?}");
    }
}

#[test]
fn a_bare_command_shows_the_help_and_help_is_no_error() {
    let desk = Desk::new();
    let bare = desk.glasshead(&[]).output().unwrap();
    assert_eq!((bare.status.code(), bare.stdout.len()), (Some(REQUEST), 0));
    assert!(String::from_utf8_lossy(&bare.stderr).contains("explain"));
    for args in [&["--help"][..], &["explain", "--help"], &["--version"], &["help", "attend"]] {
        let done = desk.done(args);
        assert!(!done.stdout.is_empty() && done.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn no_colour_where_nobody_wants_it() {
    let desk = Desk::new();
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm-256color")] {
        for args in [&["explain", "--format", "table"][..], &["doctor"], &["--help"], &["explane"]] {
            let done = desk.glasshead(args).env(name, value).output().unwrap();
            assert!(![done.stdout, done.stderr].concat().contains(&0x1b), "{args:?}");
        }
    }
}
