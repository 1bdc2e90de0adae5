//! The list of readouts: what only a text can say (words, passages) is turned into indices, the rest goes
//! to the engine as it is.

use glasshead_attention::{Array, Read, Shape, Values};

use super::prompt::Prompt;
use crate::look::segments::{Cut, Runs, Segment};
use crate::text::{Unit, words};
use crate::{Error, Result};

/// The readouts of one pass.
#[derive(Debug)]
pub(super) struct Wanted {
    /// For the engine, over the prompt.
    pub(super) read: Read,
    /// For the engine, over one token of an answer.
    pub(super) step: Read,
    /// What both make together: its arrays are those that are kept.
    pub(super) whole: Read,
    /// The tokens of `rows`.
    pub(super) rows: Vec<usize>,
    /// The passages of `segments`.
    pub(super) segments: Vec<Segment>,
    /// Which of them the first token counts to.
    pub(super) first_passage: Option<usize>,
    /// The side of `blocks`.
    pub(super) block: Option<usize>,
    /// Where a text was cut into passages: the runs of tokens that the engine sums instead.
    runs: Option<Runs>,
}

/// Readouts with numbers per query or key, which those of several texts can stand behind each other.
const OF_EACH: [&str; 7] = ["lse", "entropy", "max", "top", "received", "distance", "first"];
/// A map of `blocks` has at most so many squares along one side.
const MAP: usize = 256;
/// The smallest square that the engine sums in its fast path.
const FINEST: usize = 16;

impl Wanted {
    /// Reads a list, for a prompt of this `shape` and up to `answer` tokens behind it. Where it names no rows,
    /// those of the tokens of `interest` are taken, and of the answer's tokens.
    pub(super) fn parse(
        list: &str,
        prompt: &Prompt,
        interest: Vec<usize>,
        shape: &Shape,
        answer: usize,
    ) -> Result<Self> {
        let mut wanted = Self {
            read: Read::new(),
            step: Read::new(),
            whole: Read::new(),
            rows: Vec::new(),
            segments: Vec::new(),
            first_passage: None,
            block: None,
            runs: None,
        };
        let mut first = false;
        let mut engine: Vec<String> = Vec::new();
        let mut named_rows = false;
        for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, argument) = match item.split_once('=') {
                Some((name, argument)) => (name.trim(), Some(argument.trim())),
                None => (item, None),
            };
            if !prompt.texts.is_empty() && !OF_EACH.contains(&name) {
                return Err(Error::request(
                    format!("--read: {} is a readout of one text, and --each makes several", brief(item)),
                    format!("of several there are {}", OF_EACH.join(", ")),
                ));
            }
            match (name, argument) {
                ("first", None) => first = true,
                ("first", Some(_)) => {
                    return Err(Error::request(
                        "--read: first takes nothing after its name",
                        "write first alone",
                    ));
                }
                ("all", None) => {
                    first = true;
                    wanted.rows = vec![shape.queries.saturating_sub(1)];
                    wanted.block = Some(64);
                    wanted.take_ends(&(1..=4).map(|n| shape.keys * n / 4).collect::<Vec<_>>());
                    engine.push(item.to_owned());
                }
                ("rows", Some(argument)) => {
                    wanted.rows = rows(argument, prompt, shape.queries)?;
                    named_rows = true;
                }
                ("segments", Some(argument)) => {
                    engine.push(format!("segments={}", wanted.take_segments(argument, prompt, shape)?));
                }
                ("blocks", None) => {
                    let size = square_of(shape.keys + answer);
                    wanted.block = Some(size);
                    engine.push(format!("blocks={size}"));
                }
                ("blocks", Some(size)) => {
                    wanted.block = size.parse().ok();
                    engine.push(item.to_owned());
                }
                _ => engine.push(item.to_owned()),
            }
        }
        let engine_of = |rows: &[usize], shape: &Shape| {
            let mut list = engine.join(",");
            if !rows.is_empty() {
                list = format!("{list},rows={}", joined(rows));
            }
            let read = Read::parse(&list, shape).map_err(|error| {
                Error::request(
                    format!("--read: {error}"),
                    "a scan has first beside them; for instance --read entropy,first,top=8,received,rows=last,segments=paragraph,blocks=64",
                )
            })?;
            Ok(if first { read.first() } else { read })
        };
        let (read, step, whole, rows);
        if named_rows || interest.is_empty() && answer == 0 {
            rows = std::mem::take(&mut wanted.rows);
            read = engine_of(&rows, shape)?;
            step = engine_of(&[], &step_shape(shape))?;
            whole = engine_of(&rows, &longer(shape, answer))?;
        } else {
            let of_answer = shape.queries..shape.queries + answer;
            read = engine_of(&interest, shape)?;
            step = engine_of(if answer == 0 { &[] } else { &[0] }, &step_shape(shape))?;
            rows = interest.into_iter().chain(of_answer).collect();
            whole = engine_of(&rows, &longer(shape, answer))?;
        }
        (wanted.read, wanted.step, wanted.whole, wanted.rows) = (read, step, whole, rows);
        if wanted.whole.is_empty() {
            return Err(Error::request(
                "--read asks for nothing",
                "for instance --read entropy,top=8,received",
            ));
        }
        Ok(wanted)
    }

    /// `segments=…` for the engine: ends of runs of tokens.
    fn take_segments(&mut self, argument: &str, prompt: &Prompt, shape: &Shape) -> Result<String> {
        let Some(cut) = Cut::parse(argument) else {
            let ends: Option<Vec<usize>> = argument.split(':').map(|end| end.trim().parse().ok()).collect();
            let Some(ends) = ends else {
                return Err(Error::request(
                    format!("--read: segments={} is no way to cut a text", brief(argument)),
                    "there are segments=paragraph, sentence, line, FILE.json, and ends of token ranges like 16:32",
                ));
            };
            let within = |end: &usize| *end <= shape.keys;
            if ends.iter().all(within) && ends.is_sorted() {
                self.take_ends(&ends);
            }
            return Ok(joined(&ends));
        };
        if prompt.text.is_empty() {
            return Err(Error::request(
                format!("--read: segments={} needs the text; --ids gives token ids alone", brief(argument)),
                "name segments of tokens by their ends, for instance segments=16:32",
            ));
        }
        let mut segments = cut.apply(&prompt.text[prompt.own.clone()])?;
        for segment in &mut segments {
            segment.start += prompt.own.start;
            segment.end += prompt.own.start;
        }
        let runs = Runs::gather(prompt.starts(), &mut segments);
        let ends = joined(&runs.ends);
        self.first_passage = runs.segment.first().copied().flatten();
        (self.segments, self.runs) = (segments, Some(runs));
        Ok(ends)
    }

    /// Segments by their ends, as the engine takes them.
    fn take_ends(&mut self, ends: &[usize]) {
        let starts = [0].into_iter().chain(ends.iter().copied());
        let segment = |(start, end): (usize, &usize)| Segment {
            label: format!("tokens {start} to {end}"),
            start: 0,
            end: 0,
            tokens: end - start,
        };
        self.segments = starts.zip(ends).map(segment).collect();
        self.first_passage = ends.iter().position(|end| *end > 0);
        self.runs = None;
    }

    /// The arrays of one layer under their own names, `[1, heads, …]`; what `arrays` holds is taken along.
    pub(super) fn named(&self, mut arrays: Vec<Array>, shape: &Shape) -> Vec<Array> {
        for array in arrays.iter_mut().filter(|array| array.name == "first") {
            array.name = "first_weight";
        }
        if let Some(runs) = &self.runs
            && let Some(array) = arrays.iter_mut().find(|array| array.name == "segments")
        {
            array.shape = vec![shape.batch, shape.heads, shape.queries, self.segments.len()];
            if let Values::F32(values) = &mut array.values {
                *values = runs.merge(std::mem::take(values), self.segments.len());
            }
        }
        arrays
    }
}

/// The side of the squares of a map of so many tokens, where nobody says another.
pub fn square_of(tokens: usize) -> usize {
    match tokens.div_ceil(MAP) {
        0 | 1 => 1,
        size => size.max(FINEST),
    }
}

/// The shape of a prompt and `more` tokens behind it.
pub(super) fn longer(shape: &Shape, more: usize) -> Shape {
    Shape { queries: shape.queries + more, keys: shape.keys + more, ..*shape }
}

/// The shape of the pass over the first token behind it.
fn step_shape(shape: &Shape) -> Shape {
    Shape { queries: 1, keys: shape.keys + 1, ..*shape }
}

/// The tokens of `rows=…`: indices, `last`, and `@WORD` for every token of that word, wherever it stands.
fn rows(argument: &str, prompt: &Prompt, queries: usize) -> Result<Vec<usize>> {
    let mut rows = Vec::new();
    let mut units: Option<Vec<Unit>> = None;
    for part in argument.split(':').map(str::trim) {
        let found = if part == "last" {
            vec![queries.saturating_sub(1)]
        } else if let Some(word) = part.strip_prefix('@') {
            of_word(word, prompt, units.get_or_insert_with(|| cut_into_words(prompt)))?
        } else {
            vec![part.parse().ok().filter(|&row| row < queries).ok_or_else(|| {
                Error::request(
                    format!("--read: rows={} is none of the {queries} tokens", brief(part)),
                    "rows are token indices from 0 like rows=0:4, rows=last, or rows=@WORD",
                )
            })?]
        };
        rows.extend(found);
    }
    let mut seen = std::collections::HashSet::new();
    rows.retain(|row| seen.insert(*row));
    Ok(rows)
}

fn of_word(word: &str, prompt: &Prompt, units: &[Unit]) -> Result<Vec<usize>> {
    if prompt.text.is_empty() {
        return Err(Error::request(
            format!("--read: rows=@{} needs the text; --ids gives token ids alone", brief(word)),
            "name rows by their index, for instance rows=0:4",
        ));
    }
    let tokens_where = |same: &dyn Fn(&Unit) -> bool| -> Vec<usize> {
        units.iter().filter(|unit| same(unit)).flat_map(|unit| unit.pieces.iter().copied()).collect()
    };
    let mut found = tokens_where(&|unit| unit.text == word);
    if found.is_empty() {
        let folded = word.to_lowercase();
        found = tokens_where(&|unit| unit.text.to_lowercase() == folded);
    }
    if found.is_empty() {
        return Err(Error::request(
            format!("--read: the word {:?} of rows=@… is not in the text", brief(word)),
            "write it as it stands in the text; a word ends at a blank or a sign (UAX #29)",
        ));
    }
    Ok(found)
}

fn cut_into_words(prompt: &Prompt) -> Vec<Unit> {
    let tokens: Vec<_> = prompt.tokens.iter().map(super::ScanToken::as_token).collect();
    words(&prompt.text, &tokens)
}

fn joined(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(":")
}

/// What somebody typed, short enough for a sentence.
fn brief(text: &str) -> String {
    text.chars().take(40).collect()
}
