//! `segments=FILE.json`, and paragraphs, sentences and lines: any bytes and any text.
//!
//! Checked: passages ascend without overlaps, lie inside the text and on character boundaries; those that are cut
//! from the text itself leave nothing out; an error is one line.
#![no_main]

use glasshead::look::segments::{Cut, Segment, from_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (json, text) = input;
    let sound = |segments: &[Segment]| {
        let mut before = 0;
        for segment in segments {
            assert!(before <= segment.start && segment.start <= segment.end);
            assert!(text.get(segment.start..segment.end).is_some());
            before = segment.end;
        }
    };
    match from_json(json.as_bytes(), "fuzz.json", text) {
        Ok(segments) => sound(&segments),
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
    for cut in [Cut::Paragraph, Cut::Sentence, Cut::Line] {
        let segments = cut.apply(text).expect("any text can be cut");
        sound(&segments);
        assert_eq!(segments.iter().map(|segment| segment.end - segment.start).sum::<usize>(), text.len());
    }
});
