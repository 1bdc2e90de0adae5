//! The focus word: `--focus WORD`, `WORD:N`, or an index.

use super::Unit;
use crate::{Error, Result};

/// What a `--focus` argument asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A unit by its index, from 0.
    Index(usize),
    /// The N-th occurrence, from 1, of a word.
    Word {
        /// The word.
        word: &'a str,
        /// Which of its occurrences; `None`: not said, the first one.
        occurrence: Option<usize>,
    },
}

/// Reads a `--focus` argument: digits alone are an index, `WORD:N` an occurrence, anything else a word
/// (`3:1` is the first word "3").
pub fn parse_focus(asked: &str) -> Asked<'_> {
    // A number too large for usize is out of every range, and is told so later.
    let number = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        all.then(|| digits.parse().unwrap_or(usize::MAX))
    };
    if let Some(index) = number(asked) {
        return Asked::Index(index);
    }
    match asked.rsplit_once(':') {
        Some((word, digits)) if !word.is_empty() && number(digits).is_some() => {
            Asked::Word { word, occurrence: number(digits) }
        }
        _ => Asked::Word { word: asked, occurrence: None },
    }
}

/// The index of the focus unit. Without a wish it is the last unit that has a letter or a digit in it.
/// A word is looked for as it is written; only where it stands nowhere so, without regard to case.
///
/// # Errors
/// A word that is not there (the hint lists the words), an index or occurrence out of range, no units.
pub fn find_focus(units: &[Unit], asked: Option<&str>) -> Result<usize> {
    let Some(last) = units.len().checked_sub(1) else {
        return Err(Error::request(
            "the text is empty: there is no word to focus on",
            "give a text with a word",
        ));
    };
    let Some(asked) = asked else {
        let last_of = |wanted: &dyn Fn(&Unit) -> bool| units.iter().rposition(wanted);
        return Ok(last_of(&|unit| !unit.special && unit.text.chars().any(char::is_alphanumeric))
            .or_else(|| last_of(&|unit| !unit.special))
            .unwrap_or(last));
    };
    let (word, occurrence) = match parse_focus(asked) {
        Asked::Index(index) if index <= last => return Ok(index),
        Asked::Index(_) => {
            let index = shown(asked);
            let word = match occurrences(units, asked).is_empty() {
                true => String::new(),
                false => format!("; for the word \"{index}\" write {index}:1"),
            };
            return Err(Error::request(
                format!("--focus {index} is out of range: the text has {} words or tokens", units.len()),
                format!("a bare number is an index, and indices run from 0 to {last}{word}"),
            ));
        }
        Asked::Word { word, occurrence } => (word, occurrence),
    };
    // A unit that is written just like the whole argument ("a:2") is meant before its parts are.
    if occurrence.is_some()
        && let Some(index) = units.iter().position(|unit| unit.text == asked)
    {
        return Ok(index);
    }
    let found = occurrences(units, word);
    match found.get(occurrence.unwrap_or(1).wrapping_sub(1)) {
        Some(&index) => Ok(index),
        None if found.is_empty() => Err(missing(units, word)),
        None => Err(Error::request(
            format!(
                "--focus {}: \"{}\" occurs {} in the text",
                shown(asked),
                shown(word),
                times(found.len())
            ),
            match found.len() {
                1 => format!("occurrences are counted from 1, so there is {}:1 only", shown(word)),
                count => format!("occurrences are counted from 1: {0}:1 to {0}:{count}", shown(word)),
            },
        )),
    }
}

/// What somebody may have meant by the same words: a number that is also a word, a word that stands several times.
pub fn focus_note(units: &[Unit], asked: &str, focus: usize) -> Option<String> {
    let own = &units.get(focus)?.text;
    let (text, asked_for) = (shown(own), shown(asked));
    match parse_focus(asked) {
        Asked::Index(_) if own != asked && !occurrences(units, asked).is_empty() => Some(format!(
            "--focus {asked_for} is the word at index {asked_for}, “{text}”; the word “{asked_for}” is --focus {asked_for}:1."
        )),
        Asked::Word { word, occurrence: None } => {
            let all = occurrences(units, word).len();
            (all > 1).then(|| {
                format!(
                    "“{text}” stands {all} times; this is the first, and --focus {asked_for}:2 is the second."
                )
            })
        }
        _ => None,
    }
}

fn occurrences(units: &[Unit], word: &str) -> Vec<usize> {
    let all = |same: &dyn Fn(&Unit) -> bool| -> Vec<usize> {
        units.iter().enumerate().filter(|(_, unit)| same(unit)).map(|(index, _)| index).collect()
    };
    let exact = all(&|unit| unit.text == word);
    if !exact.is_empty() {
        return exact;
    }
    let folded = word.to_lowercase();
    all(&|unit| unit.text.to_lowercase() == folded)
}

fn missing(units: &[Unit], word: &str) -> Error {
    let what = format!("the focus word \"{}\" is not in the text", shown(word));
    if let Some((first, pieces)) = as_pieces(units, word) {
        let cut = pieces.iter().map(|unit| shown(&unit.text)).collect::<Vec<_>>().join(" | ");
        return Error::request(
            what,
            format!("it is cut into pieces here: {cut}; point at one of them by its index, --focus {first}"),
        );
    }
    let mut seen = std::collections::HashSet::new();
    let distinct: Vec<&str> =
        units.iter().map(|unit| unit.text.as_str()).filter(|text| seen.insert(*text)).collect();
    let listed = distinct.iter().take(LISTED).map(|text| shown(text)).collect::<Vec<_>>().join(" ");
    let more = match distinct.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" … and {more} more"),
    };
    Error::request(what, format!("the words are: {listed}{more}"))
}

/// The run of neighbouring units that spell `word` together, as a word cut by the tokenizer does.
fn as_pieces<'a>(units: &'a [Unit], word: &str) -> Option<(usize, &'a [Unit])> {
    let folded = word.to_lowercase();
    (0..units.len()).find_map(|first| {
        let mut rest = folded.as_str();
        for (length, unit) in units[first..].iter().enumerate() {
            let joined = length == 0 || units[first + length - 1].end == unit.start;
            if unit.special || !joined || unit.text.is_empty() {
                return None;
            }
            rest = rest.strip_prefix(unit.text.to_lowercase().as_str())?;
            if rest.is_empty() {
                return (length > 0).then(|| (first, &units[first..=first + length]));
            }
        }
        None
    })
}

/// How many distinct words a hint lists.
const LISTED: usize = 40;

/// A word as an error shows it: on one line, and not longer than a line.
pub(super) fn shown(word: &str) -> String {
    const LONGEST: usize = 40;
    let mut line: String = word.chars().take(LONGEST).flat_map(printable).collect();
    if word.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(words: &[&str]) -> Vec<Unit> {
        let mut at = 0;
        let unit = |word: &&str| {
            let special = word.starts_with('[');
            // A leading '+' glues the piece to the one before it.
            let glued = word.strip_prefix('+');
            let text = glued.unwrap_or(word).to_owned();
            let start = if glued.is_some() { at } else { at + 1 };
            at = start + text.len();
            Unit { text, start, end: at, special, pieces: vec![0] }
        };
        words.iter().map(unit).collect()
    }

    fn find(words: &[&str], asked: &str) -> Result<usize> {
        find_focus(&units(words), Some(asked))
    }

    #[test]
    fn arguments_are_read() {
        let word = |word, occurrence| Asked::Word { word, occurrence };
        assert_eq!(parse_focus("3"), Asked::Index(3));
        assert_eq!(parse_focus("99999999999999999999999"), Asked::Index(usize::MAX));
        assert_eq!(parse_focus("3:1"), word("3", Some(1)));
        assert_eq!(parse_focus("the:2"), word("the", Some(2)));
        assert_eq!(parse_focus("::2"), word(":", Some(2)));
        for plain in ["", ":", ":2", "the:", "the:x", "the:-1", "٣", "+3"] {
            assert_eq!(parse_focus(plain), word(plain, None), "{plain}");
        }
    }

    #[test]
    fn words_are_found_by_spelling_then_by_letters() {
        let text = ["[CLS]", "The", "bank", "the", "bank", ".", "[SEP]"];
        assert_eq!(find(&text, "the"), Ok(3));
        assert_eq!(find(&text, "The"), Ok(1));
        assert_eq!(find(&text, "BANK"), Ok(2));
        assert_eq!(find(&text, "BANK:2"), Ok(4));
        assert_eq!(find(&text, "6"), Ok(6));
        assert_eq!(find(&text, "[SEP]"), Ok(6));
        assert_eq!(find(&["a:2", "a", "a"], "a:2"), Ok(0));
        assert_eq!(find(&["2", "3"], "3:1"), Ok(1));
        assert_eq!(find(&["東", "京"], "京"), Ok(1));
        assert_eq!(find(&["ÉTÉ"], "été"), Ok(0));
    }

    #[test]
    fn without_a_wish_the_last_word_is_taken() {
        let last = |words: &[&str]| find_focus(&units(words), None);
        assert_eq!(last(&["[CLS]", "far", ".", "[SEP]"]), Ok(1));
        assert_eq!(last(&["[CLS]", "!", "?", "[SEP]"]), Ok(2));
        assert_eq!(last(&["[CLS]", "[SEP]"]), Ok(1));
        assert!(last(&[]).is_err());
    }

    #[test]
    fn a_missing_word_lists_the_words_once_each() {
        let error = find(&["the", "bank", "the"], "river").expect_err("missing");
        assert_eq!(error.hint(), "the words are: the bank");
        let many: Vec<String> = (0..100).map(|n| format!("w{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = find(&many, "river").expect_err("missing");
        assert!(error.hint().ends_with("w39 … and 60 more"), "{}", error.hint());
    }

    #[test]
    fn a_cut_word_says_how_it_is_cut() {
        let error = find(&["an", "un", "+bu", "+ttered", "bun"], "Unbuttered").expect_err("cut");
        assert!(error.hint().contains("un | bu | ttered"), "{}", error.hint());
        assert!(error.hint().contains("--focus 1"), "{}", error.hint());
    }

    #[test]
    fn ranges_are_said() {
        let error = find(&["a", "b"], "2").expect_err("index");
        assert!(error.hint().contains("0 to 1"), "{}", error.hint());
        for asked in ["a:0", "a:3"] {
            let error = find(&["a", "b", "a"], asked).expect_err("occurrence");
            assert!(error.to_string().contains("2 times"), "{error}");
        }
    }

    #[test]
    fn long_and_wild_words_stay_on_one_line() {
        let long = "x\n".repeat(500);
        let error = find(&["a"], &long).expect_err("missing");
        assert!(!error.to_string().contains('\n') && error.to_string().len() < 200, "{error}");
    }
}
