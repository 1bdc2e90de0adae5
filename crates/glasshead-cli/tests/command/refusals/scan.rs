//! Bad requests to `scan`, `heads` and `verify`: one sentence, one hint, the right exit code, no file.

use crate::common::desk::{BANK, Desk, REQUEST, SURROUNDINGS};
use serde_json::json;

fn desk() -> Desk {
    let desk = Desk::new();
    desk.tiny(json!({})).write("text.txt", BANK);
    desk
}

/// A scan of `text.txt` with these flags is refused.
fn refused(desk: &Desk, args: &[&str], error: &str, hint: &str) {
    desk.refused(REQUEST, &[&["scan", "text.txt", "--model", "tiny"], args].concat(), error, hint);
}

#[test]
fn texts_that_are_none() {
    let desk = desk();
    desk.write("latin.txt", b"caf\xe9").write("empty.txt", "").write("blank.txt", " \n\n");
    let scan = |file| ["scan", file, "--model", "tiny"];
    desk.refused(REQUEST, &scan("latin.txt"), "latin.txt is not UTF-8 text: byte 3", "iconv");
    desk.refused(REQUEST, &scan("empty.txt"), "the text is empty", "at least one word");
    desk.refused(REQUEST, &scan("blank.txt"), "the text is empty", "at least one word");
    desk.refused(REQUEST, &scan("none.txt"), "there is no file none.txt", "path");
    desk.refused(REQUEST, &scan("tiny"), "tiny is a folder", "file");
    desk.refused(REQUEST, &scan("-"), "the text is empty", "at least one word");
    desk.refused(REQUEST, &["scan"], "required", "glasshead scan report.txt");
    refused(&desk, &["--threads", "-1"], "a whole number from 1 to 4096", "scan --help");
    refused(&desk, &["--read", "entropi"], "entropi", "first");
    desk.refused(REQUEST, &["scan", "text.txt", "--ids", "ids.json"], "--ids", "scan --help");
}

#[test]
fn ids_that_are_none() {
    let desk = desk();
    let scan = ["scan", "--ids", "ids.json", "--model", "tiny"];
    let huge = format!("[{}1]", "1,".repeat(20_000));
    for (ids, error, hint) in [
        ("[]", "no tokens", "text"),
        ("[1, 96]", "token id 96 is outside the vocabulary of 96", "another model"),
        ("[1, -1]", "ids.json is no list of token ids", "JSON list"),
        ("[1, 4294967296]", "ids.json is no list of token ids", "JSON list"),
        ("[1.5]", "ids.json is no list of token ids", "JSON list"),
        ("{\"ids\": [1]}", "ids.json is no list of token ids", "JSON list"),
        ("[1, 2", "ids.json is no list of token ids", "JSON list"),
        ("", "ids.json is no list of token ids", "JSON list"),
        (&huge, "the text has 20001 tokens", "a part of the text"),
    ] {
        desk.write("ids.json", ids);
        desk.refused(REQUEST, &scan, error, hint);
    }
    desk.write("ids.json", "[1, 2, 3]");
    let with = |more: &[&'static str]| [&scan[..], more].concat();
    desk.refused(REQUEST, &with(&["--read", "segments=line"]), "needs the text", "segments=16:32");
    desk.refused(REQUEST, &with(&["--read", "rows=@bank"]), "needs the text", "rows=0:4");
    desk.refused(REQUEST, &with(&["--ask", "far?"]), "--ask needs a text", "the text itself");
    std::fs::remove_file(desk.path().join("tiny/tokenizer.json")).unwrap();
    refused(&desk, &[], "no tokenizer.json", "--ids");
    desk.done(&with(&["--read", "rows=last"]));
}

#[test]
fn readouts_that_are_none() {
    let desk = desk();
    for (read, error, hint) in [
        ("rows=9", "rows=9 is none of the 8 tokens", "rows=last"),
        ("rows=-1", "rows=-1 is none of the 8 tokens", "rows=last"),
        ("rows=99999999999999999999", "none of the 8 tokens", "rows=last"),
        ("rows=", "rows= is none", "rows=last"),
        ("rows=@river", "the word \"river\"", "UAX #29"),
        ("rows=@", "the word \"\"", "UAX #29"),
        ("segments=chapter", "segments=chapter is no way to cut", "paragraph, sentence, line"),
        ("segments=3:99", "past the 8 keys", "segments=paragraph"),
        ("segments=5:3", "ends must ascend", "segments=paragraph"),
        ("segments=none.json", "there is no file none.json", "path"),
        ("blocks=0", "block size", "blocks=64"),
        ("top=99999999", "asks for the top 99999999 of 8 keys", "top=8"),
        ("first=3", "first takes nothing after its name", "alone"),
        ("entrop", "there is no such readout", "for instance"),
        (" , ", "asks for nothing", "for instance"),
    ] {
        refused(&desk, &["--read", read], error, hint);
    }
}

#[test]
fn segments_of_a_file_that_do_not_fit() {
    let desk = desk();
    for (ranges, error) in [
        ("[[0, 24]]", "the text has 23 characters"),
        ("[[20, 18446744073709551615]]", "the text has 23 characters"),
        ("[[4, 4]]", "holds nothing"),
        ("[[9, 3]]", "holds nothing"),
        ("[[0, 9], [3, 12]]", "begins before 9"),
        ("[]", "the list is empty"),
        ("[[0]]", "cannot be read"),
        ("nonsense", "cannot be read"),
    ] {
        desk.write("ranges.json", ranges);
        refused(&desk, &["--read", "segments=ranges.json"], error, "JSON list");
    }
}

#[test]
fn layers_and_heads_that_are_none() {
    let desk = desk();
    for flag in ["--layers", "--heads"] {
        refused(&desk, &[flag, "9"], &format!("{flag} 9: the model has"), "the last");
        refused(&desk, &[flag, "0,x"], "\"x\" is no whole number", "0,5");
        refused(&desk, &[flag, "-1"], "\"-1\" is no whole number", "0,5");
        refused(&desk, &[flag, ""], "\"\" is no whole number", "0,5");
        refused(&desk, &[flag, "1,1"], "is there twice", "0,5");
        refused(&desk, &[flag, "99999999999999999999"], "no whole number", "0,5");
    }
}

#[test]
fn questions_and_answers() {
    let desk = desk();
    refused(&desk, &["--ask", " "], "the question of --ask is empty", "leave --ask out");
    refused(&desk, &["--answer", "3"], "--ask", "scan --help");
    refused(
        &desk,
        &["--ask", "far?", "--answer", "3"],
        "--answer: a bert model has no head that writes words",
        "--answer out",
    );
}

#[test]
fn a_text_longer_than_the_context() {
    let desk = desk();
    desk.write("text.txt", "far ".repeat(50));
    refused(
        &desk,
        &[],
        "the text has 52 tokens; the context of this bert model ends after 40",
        "a model that reads more: --model smollm2 reads 8192 tokens",
    );
    refused(&desk, &["--force-context"], "52 tokens; this bert model reads at most 40", "nothing was cut");
}

#[test]
fn outputs_that_cannot_be_written() {
    let desk = desk();
    refused(&desk, &["-o", "out.xyz"], "the ending of out.xyz", "safetensors");
    refused(&desk, &["-o", "out"], "the ending of out", "safetensors");
    refused(&desk, &["-o", "tiny"], "tiny is a folder", ".safetensors");
    refused(&desk, &["-o", "none/out.json"], "its folder does not exist", "make the folder");
    refused(&desk, &["-o", "-"], "expected a file", "scan --help");
    refused(&desk, &["-o", "text.txt"], "text.txt is what is read", "another path");
    refused(&desk, &["--format", "png"], "--format png is not for a terminal", "-o OUT.png");
    refused(&desk, &["--format", "xml"], "xml", "table");
    for format in ["svg", "png"] {
        let out = format!("out.{format}");
        refused(
            &desk,
            &["-o", &out],
            "shows one head of one layer; 2 layers and 4 heads",
            "--layers 3 --heads 1",
        );
        let one = |read| ["--layers", "0", "--heads", "0", "--read", read, "-o", &out].map(str::to_owned);
        for read in ["entropy", "blocks=4,received"] {
            let args = one(read);
            refused(&desk, &args.each_ref().map(String::as_str), "shows one readout", "--read blocks");
        }
    }
}

/// `/dev/full` is a disk without room; behind a link to a folder there it would be a file like any other.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_and_leaves_nothing() {
    let desk = desk();
    for format in ["safetensors", "json", "parquet"] {
        let args = [
            "scan",
            "text.txt",
            "--model",
            "tiny",
            "--read",
            "entropy",
            "--format",
            format,
            "-o",
            "/dev/full",
        ];
        desk.refused(SURROUNDINGS, &args, "/dev/full cannot be written: No space left", "room");
    }
}

#[test]
fn an_old_output_stays_when_a_scan_is_refused() {
    let desk = desk();
    desk.write("out.json", "old");
    refused(&desk, &["-o", "out.json", "--read", "rows=9"], "rows=9", "rows");
    assert_eq!(std::fs::read(desk.path().join("out.json")).unwrap(), b"old");
}

/// Ctrl-C while the model runs: a sentence, exit code 1, no file. The text is long enough to be met inside.
#[test]
#[cfg(unix)]
fn ctrl_c_leaves_nothing() {
    let desk = desk();
    desk.tiny_with_positions(3000).write("text.txt", "the far bank ".repeat(990));
    let before = desk.files();
    let mut command = desk.glasshead(&[
        "scan",
        "text.txt",
        "--model",
        "long",
        "--read",
        "blocks=1",
        "-o",
        "out.safetensors",
    ]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // The line before the run is the sign that the handler is there.
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    assert!(said.contains("tokens"), "{said}");
    let kill = format!("kill -INT {}", child.id());
    let kill = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(kill.success());
    let status = child.wait().unwrap();
    std::io::Read::read_to_string(&mut lines, &mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("error: interrupted; nothing was written\nhint: "), "{said}");
    assert_eq!(desk.files(), before);
}

#[test]
fn each_of_several_texts() {
    let desk = Desk::new();
    desk.tiny(json!({})).write("lines.txt", "far bank\n\nbank\n").write("blank.txt", "\n \n");
    desk.write("long.txt", format!("bank\n{}\n", "far ".repeat(60)));
    let each = |file: &'static str, more: &[&'static str]| {
        [&["scan", file, "--model", "tiny", "--each", "line"][..], more].concat()
    };
    let read = |list| each("lines.txt", &["--read", list]);
    desk.refused(REQUEST, &read("rows=0"), "rows=0 is a readout of one text", "received");
    desk.refused(REQUEST, &read("entropy,segments=line"), "segments=line", "top");
    desk.refused(REQUEST, &read("all"), "all is a readout of one text", "lse");
    desk.refused(REQUEST, &each("lines.txt", &["-o", "out.html"]), "html shows one text", "parquet");
    desk.refused(REQUEST, &each("lines.txt", &["-o", "out.png"]), "png shows one text", "json");
    desk.refused(REQUEST, &each("blank.txt", &[]), "the text is empty", "one word");
    desk.refused(REQUEST, &each("long.txt", &[]), "text 2 of 2 (“far far", "part of the text");
    let isa = each("lines.txt", &["--isa", "mmx"]);
    desk.refused(REQUEST, &isa, "mmx", "leave --isa");
    let by_word = ["scan", "lines.txt", "--model", "tiny", "--each", "word"];
    desk.refused(REQUEST, &by_word, "--each word is no way", "paragraph");
}

#[test]
fn heads_and_verify() {
    let desk = desk();
    desk.refused(REQUEST, &["heads", "text.txt", "--model", "tiny"], "at least two texts", "built-in");
    desk.write("empty.txt", "");
    let two = ["heads", "text.txt", "empty.txt", "--model", "tiny"];
    desk.refused(REQUEST, &two, "empty.txt: the text is empty", "sentences");
    desk.write("empty.txt", "far ".repeat(50));
    desk.refused(REQUEST, &two, "empty.txt: the text has 52 tokens", "shorten");
    let out = ["heads", "text.txt", "text.txt", "--model", "tiny", "-o", "out.xyz"];
    desk.refused(REQUEST, &out, "the ending of out.xyz", "table, json, csv");
    desk.refused(REQUEST, &["verify", "--model", "tiny"], "there is no golden for tiny", "minilm");
}
