//! Input of one's own: lists of numbers, and vectors from CSV or safetensors.

use std::path::Path;

use super::{Encoded, Matrix, example};
use crate::{
    Error, Result,
    weights::{ArrayData, read_safetensors, read_small},
};

/// The largest CSV or list file that is read.
const MAX_BYTES: u64 = 256 << 20;

/// A number, and how many digits stand behind its point: what it was rounded to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Printed {
    /// The number; −∞ for `null`.
    pub value: f64,
    /// Digits behind the point.
    pub decimals: u32,
}

/// Reads a list of numbers: apart by commas, semicolons or white space, with or without brackets.
/// `null` and `-inf` are a hidden place, −∞.
///
/// # Errors
/// A sentence about the first item that is no number; an empty list.
pub fn parse_list(text: &str) -> Result<Vec<Printed>, String> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let apart = |c: char| c == ',' || c == ';' || c.is_whitespace();
    let items: Vec<Printed> =
        inner.split(apart).filter(|item| !item.is_empty()).map(parse_number).collect::<Result<_, _>>()?;
    if items.is_empty() { Err("there is no number in it".into()) } else { Ok(items) }
}

fn parse_number(item: &str) -> Result<Printed, String> {
    if matches!(item, "null" | "-inf" | "-Infinity") {
        return Ok(Printed { value: f64::NEG_INFINITY, decimals: 0 });
    }
    let value: f64 = item.parse().map_err(|_| format!("{} is no number", crate::weights::shown(item)))?;
    if !value.is_finite() {
        return Err(format!("{} is not a finite number", crate::weights::shown(item)));
    }
    let mantissa = item.split(['e', 'E']).next().unwrap_or(item);
    let exponent: i64 = item.split(['e', 'E']).nth(1).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let digits = mantissa.split_once('.').map_or(0, |(_, digits)| digits.len() as i64);
    Ok(Printed { value, decimals: digits.saturating_sub(exponent).clamp(0, 300) as u32 })
}

/// A list given on the command line, or in a file of that name.
///
/// # Errors
/// Neither a list nor a readable file of one.
pub fn list_or_file(flag: &str, given: &str) -> Result<Vec<Printed>> {
    let hint = "give numbers like 0.2,0.8,0.4 or a file that holds them";
    let wrong = |problem: String| Error::request(format!("{flag}: {problem}"), hint);
    match parse_list(given) {
        Ok(list) => Ok(list),
        Err(problem) => {
            let path = Path::new(given);
            if !path.is_file() {
                let file = if given.trim().is_empty() {
                    String::new()
                } else {
                    format!(", and no file is called that ({given})")
                };
                return Err(wrong(format!("{problem}{file}")));
            }
            let bytes = read_small(path, MAX_BYTES)?;
            let text = String::from_utf8(bytes).map_err(|_| wrong(format!("{given} is not UTF-8 text")))?;
            parse_list(&text).map_err(|problem| wrong(format!("{given}: {problem}")))
        }
    }
}

/// Encodings of one's own from `word,x1,x2,…` lines or a safetensors file with one `[tokens, dim]` array.
/// q, k and v are the vectors themselves.
///
/// `text` names the tokens of a safetensors file, word by word; for a CSV it must repeat its words.
///
/// # Errors
/// A file that is neither, ragged or empty; a number that is not finite; a text with other words.
pub fn vectors(path: &Path, text: Option<&str>) -> Result<Encoded> {
    let safetensors = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
    let (words, vectors) = if safetensors { from_safetensors(path, text)? } else { from_csv_file(path)? };
    let joined = words.join(" ");
    match text {
        Some(text) if text.split_whitespace().ne(words.iter().map(String::as_str)) => Err(Error::request(
            format!(
                "the text has not the same words as {}, which are: {}",
                path.display(),
                crate::weights::shown(&joined)
            ),
            "leave the text out: the words of the file are used then",
        )),
        text => Ok(example::from_words(text.map_or(joined, str::to_owned), vectors)),
    }
}

fn from_csv_file(path: &Path) -> Result<(Vec<String>, Matrix)> {
    let bytes = read_small(path, MAX_BYTES)?;
    parse_csv(&bytes).map_err(|problem| {
        Error::request(
            format!("{}: {problem}", path.display()),
            "every line is word,x1,x2,… with the same number of numbers, for instance: fox,1.0,1.1,1.2",
        )
    })
}

/// Reads `word,x1,x2,…` lines; a first line whose numbers are names is a heading and left out.
///
/// # Errors
/// A sentence with the line at fault.
pub fn parse_csv(bytes: &[u8]) -> Result<(Vec<String>, Matrix), String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .from_reader(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    let mut words = Vec::new();
    let mut vectors: Option<Matrix> = None;
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|error| match error.position() {
            Some(at) => format!("line {} is not UTF-8 text", at.line()),
            None => format!("it is not CSV ({error})"),
        })?;
        let line = record.position().map_or(index as u64 + 1, csv::Position::line);
        let word = record.get(0).unwrap_or_default();
        let numbers: Vec<Result<f64, _>> = record.iter().skip(1).map(str::parse::<f64>).collect();
        if index == 0 && !numbers.is_empty() && numbers.iter().all(Result::is_err) {
            continue;
        }
        if word.is_empty() || word.contains(char::is_whitespace) {
            return Err(format!("line {line} does not begin with one word"));
        }
        let mut row = Vec::new();
        for (column, number) in numbers.into_iter().enumerate() {
            match number {
                Ok(number) if number.is_finite() => row.push(number),
                Ok(number) => {
                    return Err(format!("line {line} (\"{word}\"), number {} is {number}", column + 1));
                }
                Err(_) => {
                    let found = crate::weights::shown(record.get(column + 1).unwrap_or_default());
                    return Err(format!("line {line} (\"{word}\"): {found} is no number"));
                }
            }
        }
        if row.is_empty() {
            return Err(format!("line {line} (\"{word}\") has no numbers"));
        }
        let vectors = vectors.get_or_insert_with(|| Matrix::new(row.len()));
        if row.len() != vectors.columns() {
            let (found, first) = (row.len(), vectors.columns());
            return Err(format!(
                "line {line} (\"{word}\") has {}, the lines before it have {first}",
                if found == 1 { "1 number".to_owned() } else { format!("{found} numbers") }
            ));
        }
        vectors.push(row);
        words.push(word.to_owned());
    }
    vectors.map(|vectors| (words, vectors)).ok_or_else(|| "there are no vectors in it".into())
}

fn from_safetensors(path: &Path, text: Option<&str>) -> Result<(Vec<String>, Matrix)> {
    let arrays = read_safetensors(path)?;
    let tables: Vec<&str> =
        arrays.list().filter(|(_, info)| matches!(info.shape[..], [_, _])).map(|(name, _)| name).collect();
    let name = match tables[..] {
        [name] => name,
        _ => {
            tables.iter().copied().find(|name| matches!(*name, "vectors" | "encoding")).ok_or_else(|| {
                Error::request(
                    format!(
                        "{} has {} arrays of two axes, so it is not clear which holds the vectors",
                        path.display(),
                        tables.len()
                    ),
                    "call the one to use `vectors`; it has the shape [tokens, dim]",
                )
            })?
        }
    };
    let (data, shape) = arrays.get(name)?;
    let [tokens, dim] = shape[..] else { unreachable!("only arrays of two axes were kept") };
    let values: Vec<f64> = match data {
        ArrayData::F32(x) => x.into_iter().map(f64::from).collect(),
        ArrayData::F64(x) => x,
        ArrayData::F16(x) => x.into_iter().map(f64::from).collect(),
        ArrayData::Bf16(x) => x.into_iter().map(f64::from).collect(),
        ArrayData::I64(_) | ArrayData::Bool(_) => {
            return Err(Error::request(
                format!("{}: the array `{name}` holds no fractions", path.display()),
                "vectors are F32, F64, F16 or BF16",
            ));
        }
    };
    let wrong = |what: String| {
        Error::request(
            format!("{}: the array `{name}` {what}", path.display()),
            "it has the shape [tokens, dim], at least [1, 1]",
        )
    };
    if tokens == 0 || dim == 0 {
        return Err(wrong(format!("has the shape [{tokens}, {dim}]")));
    }
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        return Err(wrong(format!("is {} at [{}, {}]", values[at], at / dim, at % dim)));
    }
    let words: Vec<String> = match text {
        Some(text) => text.split_whitespace().map(str::to_owned).collect(),
        None => (0..tokens).map(|token| format!("#{token}")).collect(),
    };
    if words.len() != tokens {
        return Err(wrong(format!("has {tokens} vectors for the {} words of the text", words.len())));
    }
    let mut vectors = Matrix::new(dim);
    values.chunks_exact(dim).for_each(|row| vectors.push(row.iter().copied()));
    Ok((words, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_many_dresses() {
        for text in ["0.06,0.2", "[0.06, 0.2]", "0.06 0.2\n", "0.06;0.2"] {
            let list = parse_list(text).unwrap();
            assert_eq!(list, [Printed { value: 0.06, decimals: 2 }, Printed { value: 0.2, decimals: 1 }]);
        }
        assert_eq!(parse_list("1e-3").unwrap()[0].decimals, 3);
        assert_eq!(parse_list("1e-9223372036854775808").unwrap()[0].decimals, 300);
        assert_eq!(parse_list("null,-inf").unwrap()[1].value, f64::NEG_INFINITY);
        for text in ["", "[]", "1,a", "1,nan", "inf", "0x10", "1e999"] {
            assert!(parse_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_csv_with_or_without_a_heading() {
        let (words, vectors) =
            parse_csv(b"\xef\xbb\xbfword,x,y\nfox,1,2\n# a comment\njumps, 3 ,4.5\n").unwrap();
        assert_eq!(words, ["fox", "jumps"]);
        assert_eq!(vectors.row(1), [3.0, 4.5]);
    }

    #[test]
    fn bad_csv_is_told_by_its_line() {
        for (text, part) in [
            ("fox,1,2\ndog,1", "line 2 (\"dog\") has 1 number, the lines before it have 2"),
            ("fox,1,nan", "number 2 is NaN"),
            ("fox,1,x", "line 1 (\"fox\"): `x` is no number"),
            ("fox,inf", "is inf"),
            ("fox", "has no numbers"),
            (",1", "does not begin with one word"),
            ("", "no vectors"),
            ("word,x", "no vectors"),
        ] {
            let problem = parse_csv(text.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{text:?}: {problem}");
        }
        assert!(parse_csv(b"fox,1\n\xff,2").unwrap_err().contains("line 2"));
    }
}
