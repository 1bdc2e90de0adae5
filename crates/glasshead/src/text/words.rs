//! Words: what a person points at. Tokens are gathered into the words of the text (Unicode word
//! boundaries, UAX #29), so that a word the tokenizer cut in three is one row of a table.

use unicode_segmentation::UnicodeSegmentation;

use super::{Token, Tokenizer, focus::shown};

/// A word, or a special token, with the tokens it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The text's bytes in `start..end`, or the name of a special token.
    pub text: String,
    /// First byte in the text; 0 for a special token.
    pub start: usize,
    /// Byte after the last one; equal to `start` for a special token.
    pub end: usize,
    /// A special token.
    pub special: bool,
    /// Indices of its tokens, ascending and without gaps.
    pub pieces: Vec<usize>,
}

/// Every token as a unit of its own.
pub fn tokens_as_units(tokens: &[Token]) -> Vec<Unit> {
    tokens.iter().enumerate().map(|(index, token)| unit_of(token, index)).collect()
}

/// Gathers tokens into words. A token belongs to the word in which its first byte that is not white
/// space lies; a token that reaches into the next words takes them along; special tokens stay alone.
/// A word that left no token (a normaliser dropped it) is not there.
///
/// The units' `pieces` are `0..tokens.len()`, cut into runs: every token is in exactly one of them.
pub fn words(text: &str, tokens: &[Token]) -> Vec<Unit> {
    let bounds: Vec<(usize, &str)> = text.split_word_bound_indices().collect();
    let mut units: Vec<Unit> = Vec::new();
    // The word (index into `bounds`) of the last unit, while that unit may still grow.
    let mut open: Option<usize> = None;
    // Bytes before this one belong to a unit already: no two words claim the same byte.
    let mut taken = 0;
    for (index, token) in tokens.iter().enumerate() {
        if token.special {
            units.push(unit_of(token, index));
            open = None;
            continue;
        }
        let (start, end) = visible(text, token);
        let word = bounds.partition_point(|&(at, _)| at <= start).checked_sub(1);
        if let Some(unit) = units.last_mut().filter(|_| open.is_some() && open == word) {
            unit.pieces.push(index);
            unit.end = unit.end.max(end);
            taken = taken.max(unit.end);
            continue;
        }
        let mut unit = unit_of(token, index);
        if let Some((at, word)) = word.map(|word| bounds[word]) {
            unit.start = if taken <= start { at.max(taken) } else { at };
            unit.end = end.max(at + word.len());
        }
        taken = taken.max(unit.end);
        open = word;
        units.push(unit);
    }
    for unit in units.iter_mut().filter(|unit| !unit.special) {
        // Boundaries of words and of tokens are boundaries of characters.
        text.get(unit.start..unit.end).unwrap_or_default().clone_into(&mut unit.text);
    }
    units
}

/// The token's range without the white space around it; a token of nothing but white space keeps its own.
fn visible(text: &str, token: &Token) -> (usize, usize) {
    let own = text.get(token.start..token.end).unwrap_or_default();
    let trimmed = own.trim();
    if trimmed.is_empty() {
        return (token.start, token.end);
    }
    let start = token.start + (own.len() - own.trim_start().len());
    (start, start + trimmed.len())
}

fn unit_of(token: &Token, index: usize) -> Unit {
    let Token { text, start, end, special, .. } = token;
    Unit { text: text.clone(), start: *start, end: *end, special: *special, pieces: vec![index] }
}

/// A sentence about words that are not in the vocabulary of `model`: it cannot tell them apart. Most texts have none, and
/// are not cut into `units` for it.
pub fn unknown_words(
    tokenizer: &Tokenizer,
    tokens: &[Token],
    units: impl FnOnce() -> Vec<Unit>,
    model: &str,
) -> Option<String> {
    let unknown = tokenizer.unknown()?;
    let is_unknown = |token: &Token| token.id == unknown && !token.special;
    if !tokens.iter().any(is_unknown) {
        return None;
    }
    let units = units();
    let mut seen = std::collections::HashSet::new();
    let words: Vec<&str> = units
        .iter()
        .filter(|unit| unit.pieces.iter().filter_map(|piece| tokens.get(*piece)).any(is_unknown))
        .map(|unit| unit.text.as_str())
        .filter(|word| seen.insert(*word))
        .collect();
    let listed = words.iter().take(8).map(|word| format!("“{}”", shown(word))).collect::<Vec<_>>().join(", ");
    let more = if words.len() > 8 { format!(" and {} more", words.len() - 8) } else { String::new() };
    let name = tokenizer.name_of(unknown)?;
    match words.len() {
        0 => None,
        1 => Some(format!("{model} does not know the word {listed}: it reads {name} there.")),
        _ => Some(format!(
            "{model} does not know the words {listed}{more}: it reads {name} for each of them and cannot tell them apart."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens that stand at these byte ranges; `None` is a special token.
    fn tokens(text: &str, ranges: &[Option<(usize, usize)>]) -> Vec<Token> {
        let token = |range: &Option<(usize, usize)>| match *range {
            Some((start, end)) => {
                Token { id: 7, text: text[start..end].to_owned(), start, end, special: false }
            }
            None => Token { id: 1, text: "[X]".to_owned(), start: 0, end: 0, special: true },
        };
        ranges.iter().map(token).collect()
    }

    fn cut(text: &str, ranges: &[Option<(usize, usize)>]) -> Vec<(String, Vec<usize>)> {
        let tokens = tokens(text, ranges);
        let units = words(text, &tokens);
        let all: Vec<usize> = units.iter().flat_map(|unit| unit.pieces.clone()).collect();
        assert_eq!(all, (0..tokens.len()).collect::<Vec<_>>(), "every token once, in order");
        for unit in units.iter().filter(|unit| !unit.special) {
            assert_eq!(unit.text, text[unit.start..unit.end]);
        }
        units.into_iter().map(|unit| (unit.text, unit.pieces)).collect()
    }

    fn own(pairs: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        pairs.iter().map(|&(text, pieces)| (text.to_owned(), pieces.to_vec())).collect()
    }

    #[test]
    fn pieces_of_a_cut_word_are_one_unit_and_special_tokens_stay_alone() {
        let text = "an unbuttered bun.";
        let at = [
            None,
            Some((0, 2)),
            Some((3, 5)),
            Some((5, 7)),
            Some((7, 13)),
            Some((14, 17)),
            Some((17, 18)),
            None,
        ];
        let expected: &[(&str, &[usize])] = &[
            ("[X]", &[0]),
            ("an", &[1]),
            ("unbuttered", &[2, 3, 4]),
            ("bun", &[5]),
            (".", &[6]),
            ("[X]", &[7]),
        ];
        assert_eq!(cut(text, &at), own(expected));
    }

    #[test]
    fn apostrophes_and_decimal_commas_do_not_cut() {
        let text = "don't 3,50";
        let at = [Some((0, 3)), Some((3, 4)), Some((4, 5)), Some((6, 7)), Some((7, 8)), Some((8, 10))];
        assert_eq!(cut(text, &at), own(&[("don't", &[0, 1, 2]), ("3,50", &[3, 4, 5])]));
    }

    #[test]
    fn repeated_words_are_different_units() {
        let text = "the the";
        assert_eq!(cut(text, &[Some((0, 3)), Some((4, 7))]), own(&[("the", &[0]), ("the", &[1])]));
    }

    #[test]
    fn byte_pieces_of_one_emoji_are_one_unit() {
        let text = "a 👩‍🚀!";
        let end = text.len() - 1;
        let at = [Some((0, 1)), Some((1, 6)), Some((2, 6)), Some((6, end)), Some((end, end + 1))];
        assert_eq!(cut(text, &at), own(&[("a", &[0]), ("👩‍🚀", &[1, 2, 3]), ("!", &[4])]));
    }

    #[test]
    fn ideographs_are_words_of_their_own() {
        assert_eq!(cut("東京", &[Some((0, 3)), Some((3, 6))]), own(&[("東", &[0]), ("京", &[1])]));
    }

    #[test]
    fn white_space_before_or_after_a_token_is_not_part_of_the_word() {
        let text = "to be  or";
        let at = [Some((0, 3)), Some((2, 5)), Some((5, 6)), Some((6, 9))];
        assert_eq!(cut(text, &at), own(&[("to", &[0]), ("be", &[1]), ("  ", &[2]), ("or", &[3])]));
    }

    #[test]
    fn a_token_over_several_words_stretches_its_unit_and_no_byte_is_claimed_twice() {
        let text = "of there";
        assert_eq!(cut(text, &[Some((0, 6)), Some((6, 8))]), own(&[("of the", &[0]), ("re", &[1])]));
    }

    #[test]
    fn a_word_without_a_token_is_not_there() {
        let text = "a \u{200b} b";
        let units = cut(text, &[Some((0, 1)), Some((6, 7))]);
        assert_eq!(units, own(&[("a", &[0]), ("b", &[1])]));
    }

    #[test]
    fn odd_ranges_do_not_lose_tokens() {
        let text = "ab cd";
        cut(text, &[Some((3, 5)), Some((0, 2)), Some((5, 5)), Some((0, 0)), Some((0, 5))]);
        cut("", &[Some((0, 0)), None]);
        assert_eq!(words("", &[]), []);
    }
}
