//! Passages of a text, and which tokens belong to them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use unicode_segmentation::UnicodeSegmentation;

use crate::weights::read_small;
use crate::{Error, Result};

/// A passage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What a reader calls it: the label of the file, or how the passage begins.
    pub label: String,
    /// First byte in the text that was read.
    pub start: usize,
    /// Byte after the last one.
    pub end: usize,
    /// How many tokens start in it.
    pub tokens: usize,
}

/// How a text is cut into passages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A paragraph ends at a blank line, which belongs to it.
    Paragraph,
    /// UAX #29.
    Sentence,
    /// A line, its line break included.
    Line,
    /// A JSON list of character ranges: `[start, end]` or `{"start": …, "end": …, "label": …}`. What lies
    /// in none of them is in no passage.
    File(PathBuf),
}

impl Cut {
    /// `paragraph`, `sentence`, `line`, or the path of a `.json` file.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "paragraph" => Some(Self::Paragraph),
            "sentence" => Some(Self::Sentence),
            "line" => Some(Self::Line),
            path if Path::new(path).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) => {
                Some(Self::File(path.into()))
            }
            _ => None,
        }
    }

    /// The passages of `text`, ascending; they do not overlap. Their `tokens` are still 0.
    ///
    /// # Errors
    /// A file that is no such list, a range outside the text, one that begins before another ends.
    pub fn apply(&self, text: &str) -> Result<Vec<Segment>> {
        let ranges = match self {
            Self::Paragraph => paragraphs(text),
            Self::Sentence => join_blank(text, text.split_sentence_bound_indices().map(of)),
            Self::Line => lines(text).collect(),
            Self::File(path) => return from_file(path, text),
        };
        Ok(ranges.into_iter().map(|range| Segment::new(beginning(&text[range.clone()]), range)).collect())
    }
}

impl Segment {
    fn new(label: String, range: Range<usize>) -> Self {
        Self { label, start: range.start, end: range.end, tokens: 0 }
    }
}

fn of((start, part): (usize, &str)) -> Range<usize> {
    start..start + part.len()
}

fn lines(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let start = at;
        at += line.len();
        start..at
    })
}

fn paragraphs(text: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut blank = false;
    for line in lines(text) {
        let is_blank = text[line.clone()].trim().is_empty();
        match ranges.last_mut() {
            // Blank lines at the very start belong to the first paragraph: there is none before them.
            Some(last) if is_blank || !blank || text[last.clone()].trim().is_empty() => last.end = line.end,
            _ => ranges.push(line),
        }
        blank = is_blank;
    }
    ranges
}

/// What is nothing but white space belongs to the passage before it.
fn join_blank(text: &str, parts: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for part in parts {
        match ranges.last_mut() {
            Some(last) if text[part.clone()].trim().is_empty() => last.end = part.end,
            _ => ranges.push(part),
        }
    }
    ranges
}

/// The first words of a passage, which a reader may call it by.
pub fn beginning(passage: &str) -> String {
    const LONGEST: usize = 48;
    let words = passage.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = words.char_indices().nth(LONGEST).map(|(at, _)| at);
    cut.map_or_else(|| words.clone(), |at| format!("{}…", words[..at].trim_end()))
}

/// One entry of a file of segments.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Pair(usize, usize),
    Named { start: usize, end: usize, label: Option<String> },
}

/// Larger files are no list of passages.
const MAX_FILE: u64 = 64 << 20;

fn from_file(path: &Path, text: &str) -> Result<Vec<Segment>> {
    from_json(&read_small(path, MAX_FILE)?, &path.display().to_string(), text)
}

/// The passages of a JSON list of character ranges; `name` is what errors call it. They ascend, do not
/// overlap, lie inside the text and on character boundaries.
///
/// # Errors
/// As [`Cut::apply`].
pub fn from_json(json: &[u8], name: &str, text: &str) -> Result<Vec<Segment>> {
    let wrong = |problem: String| {
        Error::request(
            format!("segments of {name} {problem}"),
            "give a JSON list of [start, end] or {\"start\": …, \"end\": …, \"label\": …}: characters of the text, \
             from 0, ascending, the end not included",
        )
    };
    let entries: Vec<Entry> = serde_json::from_slice(json).map_err(|cause| match cause.is_data() {
        true => wrong("cannot be read: an entry is neither a pair of numbers nor an object with both".into()),
        false => wrong(format!("cannot be read: {cause}")),
    })?;
    if entries.is_empty() {
        return Err(wrong("are none: the list is empty".into()));
    }
    // Characters and the bytes at which they begin, walked along once.
    let mut boundaries = text.char_indices().map(|(at, _)| at).chain([text.len()]).enumerate().peekable();
    let mut byte_of = |character: usize| {
        while boundaries.peek().is_some_and(|&(index, _)| index < character) {
            boundaries.next();
        }
        boundaries.peek().map(|&(_, at)| at)
    };
    let mut segments = Vec::new();
    let mut before = 0;
    for (index, entry) in entries.into_iter().enumerate() {
        let (start, end, label) = match entry {
            Entry::Pair(start, end) => (start, end, None),
            Entry::Named { start, end, label } => (start, end, label),
        };
        if start >= end {
            return Err(wrong(format!("have [{start}, {end}] at place {index}, which holds nothing")));
        }
        if start < before {
            return Err(wrong(format!(
                "have [{start}, {end}] at place {index}, which begins before {before}, where the one before it ends"
            )));
        }
        let (Some(first), Some(last)) = (byte_of(start), byte_of(end)) else {
            let characters = text.chars().count();
            return Err(wrong(format!(
                "have [{start}, {end}] at place {index}, but the text has {characters} characters"
            )));
        };
        let label = label.unwrap_or_else(|| beginning(&text[first..last]));
        segments.push(Segment::new(label, first..last));
        before = end;
    }
    Ok(segments)
}

/// Neighbouring tokens of the same segment, as the engine takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// The token after the last one of each run, ascending.
    pub(super) ends: Vec<usize>,
    /// The segment of each run; `None`: tokens that are in no segment.
    pub(super) segment: Vec<Option<usize>>,
}

impl Runs {
    /// Gathers tokens by the segment in which they start (`None`: a token without bytes), and counts them.
    pub(super) fn gather(starts: impl Iterator<Item = Option<usize>>, segments: &mut [Segment]) -> Self {
        let mut runs = Self::default();
        for (token, start) in starts.enumerate() {
            let segment = start.and_then(|start| {
                let at = segments.partition_point(|segment| segment.end <= start);
                segments.get_mut(at).filter(|segment| segment.start <= start).map(|segment| {
                    segment.tokens += 1;
                    at
                })
            });
            match (runs.segment.last(), runs.ends.last_mut()) {
                (Some(last), Some(end)) if *last == segment => *end = token + 1,
                _ => {
                    runs.segment.push(segment);
                    runs.ends.push(token + 1);
                }
            }
        }
        runs
    }

    /// Weights per run `[…, runs]` → weights per segment `[…, segments]`.
    pub(super) fn merge(&self, per_run: Vec<f32>, segments: usize) -> Vec<f32> {
        let is_same = |(run, segment): (usize, &Option<usize>)| *segment == Some(run);
        if self.segment.len() == segments && self.segment.iter().enumerate().all(is_same) {
            return per_run;
        }
        let runs = self.ends.len().max(1);
        let mut merged = vec![0.0; per_run.len() / runs * segments];
        for (row, merged) in per_run.chunks_exact(runs).zip(merged.chunks_exact_mut(segments.max(1))) {
            for (weight, segment) in row.iter().zip(&self.segment) {
                if let Some(segment) = segment {
                    merged[*segment] += weight;
                }
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(cut: &Cut, text: &str) -> Vec<String> {
        let segments = cut.apply(text).expect("cuts");
        let mut at = 0;
        for segment in &segments {
            assert_eq!(segment.start, at, "nothing is left out");
            at = segment.end;
        }
        assert_eq!(at, text.len());
        segments.iter().map(|segment| text[segment.start..segment.end].to_owned()).collect()
    }

    #[test]
    fn a_blank_line_belongs_to_the_paragraph_before_it() {
        let paragraphs = |text| cut(&Cut::Paragraph, text);
        assert_eq!(paragraphs("a\nb\n\nc\n"), ["a\nb\n\n", "c\n"]);
        assert_eq!(paragraphs("a\r\n\r\n \t\n\nc"), ["a\r\n\r\n \t\n\n", "c"]);
        assert_eq!(paragraphs("\n\n a\n\nb"), ["\n\n a\n\n", "b"]);
        assert_eq!(paragraphs("\n \n"), ["\n \n"]);
        assert!(paragraphs("").is_empty());
    }

    #[test]
    fn sentences_take_the_blanks_after_them_and_lines_stay_lines() {
        assert_eq!(
            cut(&Cut::Sentence, "One. Two is 3.5!\n\n\nThree"),
            ["One. ", "Two is 3.5!\n\n\n", "Three"]
        );
        assert_eq!(cut(&Cut::Line, "a\n\nb"), ["a\n", "\n", "b"]);
    }

    #[test]
    fn a_label_is_how_the_passage_begins() {
        let long = format!(" {}\n", "word ".repeat(20));
        let segments = Cut::Line.apply(&long).expect("cuts");
        assert_eq!(segments[0].label, "word word word word word word word word word wor…");
    }

    #[test]
    fn a_token_belongs_to_the_segment_in_which_it_starts() {
        let mut segments = vec![
            Segment::new("a".into(), 0..4),
            Segment::new("b".into(), 4..8),
            Segment::new("c".into(), 10..12),
        ];
        let starts = [None, Some(0), Some(3), Some(4), Some(9), Some(11), Some(2), None];
        let runs = Runs::gather(starts.into_iter(), &mut segments);
        assert_eq!(runs.ends, [1, 3, 4, 5, 6, 7, 8]);
        assert_eq!(runs.segment, [None, Some(0), Some(1), None, Some(2), Some(0), None]);
        assert_eq!(segments.iter().map(|segment| segment.tokens).collect::<Vec<_>>(), [3, 1, 1]);
        let merged = runs.merge(
            vec![0.5, 0.25, 0.125, 9.0, 0.0, 0.0625, 9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            segments.len(),
        );
        assert_eq!(merged, [0.3125, 0.125, 0.0, 2.0, 1.0, 1.0]);
        // As many runs as segments, and yet not the same.
        let runs = Runs { ends: vec![1, 2], segment: vec![None, Some(0)] };
        assert_eq!(runs.merge(vec![0.25, 0.75], 2), [0.75, 0.0]);
    }

    #[test]
    fn files_of_character_ranges() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("segments.json");
        let apply = |json: &str| {
            std::fs::write(&path, json).expect("written");
            Cut::File(path.clone()).apply("äöü and a 🦀.")
        };
        let segments = apply(r#"[[0, 3], {"start": 10, "end": 12, "label": "crab"}]"#).expect("cuts");
        assert_eq!((segments[0].label.as_str(), segments[0].start, segments[0].end), ("äöü", 0, 6));
        assert_eq!((segments[1].label.as_str(), segments[1].start, segments[1].end), ("crab", 13, 18));
        for (json, problem) in [
            ("[[0, 13]]", "has 12 characters"),
            ("[[0, 18446744073709551615]]", "has 12 characters"),
            ("[[3, 3]]", "holds nothing"),
            ("[[0, 5], [4, 6]]", "begins before 5"),
            ("[]", "the list is empty"),
            ("[[0, -1]]", "cannot be read"),
            ("{", "cannot be read"),
        ] {
            let error = apply(json).expect_err("refused").to_string();
            assert!(error.contains(problem) && error.contains("segments.json"), "{error}");
        }
    }
}
