//! One page that needs nothing else: it holds q, k and v of the head, so it can take the four steps for
//! any word. The parts lie in `html/` and are put together here.

use serde::Serialize;

use super::lesson;
use crate::{
    Error, Result,
    look::{
        Matrix,
        explain::{Explained, Source, Units},
    },
};

const PAGE: &str = include_str!("html/page.html");
/// The palette, type, tables and bars of every page.
pub(super) const BASE: &str = include_str!("html/base.css");
/// What every page is made of.
pub(super) const PARTS: &str = include_str!("html/parts.js");
const STYLES: [&str; 2] = [BASE, include_str!("html/page.css")];
const SCRIPTS: [&str; 6] = [
    include_str!("html/attention.js"),
    PARTS,
    include_str!("html/state.js"),
    include_str!("html/sentence.js"),
    include_str!("html/steps.js"),
    include_str!("html/page.js"),
];
/// How much of an encoding the page shows.
const FIRST_NUMBERS: usize = 8;

/// What the page computes with; the field names are those of `html/page.js`.
#[derive(Serialize)]
struct Data<'a> {
    version: &'static str,
    text: &'a str,
    units_kind: &'static str,
    units: Vec<DataUnit<'a>>,
    pieces: &'a [String],
    focus: usize,
    encoding_dim: usize,
    encoding: Matrix,
    encoding_length: Vec<f64>,
    q: &'a Matrix,
    k: &'a Matrix,
    v: &'a Matrix,
    scale: f64,
    temperature: f64,
    causal: bool,
    given_scores: Option<DataGiven>,
    claimed: Option<DataClaimed<'a>>,
    steps: DataSteps,
    source: DataSource<'a>,
    notes: &'a [String],
    recipe: Vec<(&'static str, String)>,
    remake: Option<Remake>,
}

/// The command in parts, so that the page can tell the one for another focus or temperature.
#[derive(Serialize)]
struct Remake {
    /// Up to the verb.
    start: String,
    /// The head, which is otherwise chosen anew for every focus.
    head: String,
    /// What belongs to the focus word alone: its name, scores, claims.
    focus: String,
    /// Given scores are not scaled: it goes where they come.
    scale: String,
    /// All the rest but the temperature, as it was written.
    rest: String,
}

#[derive(Serialize)]
struct DataUnit<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    special: bool,
    pieces: &'a [usize],
}

#[derive(Serialize)]
struct DataGiven {
    focus: usize,
    scores: Vec<Option<f64>>,
}

#[derive(Serialize)]
struct DataClaimed<'a> {
    focus: usize,
    weights: &'a [f64],
    finding: &'a str,
}

#[derive(Serialize)]
struct DataSteps {
    encode: String,
    score: &'static str,
    score_given: &'static str,
    softmax: &'static str,
    values: &'static str,
    influence: &'static str,
    merge: Option<&'static str>,
}

#[derive(Serialize)]
struct DataSource<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heads: Option<usize>,
}

/// The page.
pub(super) fn html(seen: &Explained) -> Result<String> {
    let data = serde_json::to_string(&data(seen)).map_err(|error| {
        Error::environment(format!("the page cannot be written: {error}"), "try --format json")
    })?;
    let focus = &seen.encoded.units[seen.steps.focus].text;
    let title = format!("What does “{focus}” look at? · glasshead");
    let parts = [
        ("{{title}}", escape(&title)),
        ("/*{{css}}*/", STYLES.join("\n")),
        ("{{data}}", in_script(&data)),
        ("/*{{js}}*/", SCRIPTS.join("\n")),
    ];
    Ok(filled(PAGE, &parts))
}

/// A template with its marks replaced, in one pass: nothing that is filled in is searched again.
pub(super) fn filled(template: &str, parts: &[(&str, String)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((at, (mark, part))) =
        parts.iter().filter_map(|part| Some((rest.find(part.0)?, part))).min_by_key(|found| found.0)
    {
        page.push_str(&rest[..at]);
        page.push_str(part);
        rest = &rest[at + mark.len()..];
    }
    page.push_str(rest);
    page
}

/// JSON for a script element: only `<` could end it.
pub(super) fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

fn data(seen: &Explained) -> Data<'_> {
    let Explained { encoded, steps, claimed, notes, .. } = seen;
    let mut encoding = Matrix::new(encoded.encoding.columns().min(FIRST_NUMBERS));
    encoded.encoding.iter().for_each(|row| encoding.push(row.iter().take(FIRST_NUMBERS).copied()));
    let merged = encoded.units.iter().any(|unit| unit.pieces.len() > 1);
    let model = matches!(seen.source, Source::Model { .. });
    Data {
        version: env!("CARGO_PKG_VERSION"),
        text: &encoded.text,
        units_kind: match seen.units {
            Units::Words => "words",
            Units::Tokens => "tokens",
        },
        units: encoded
            .units
            .iter()
            .map(|unit| DataUnit {
                text: &unit.text,
                start: unit.start,
                end: unit.end,
                special: unit.special,
                pieces: &unit.pieces,
            })
            .collect(),
        pieces: &encoded.pieces,
        focus: steps.focus,
        encoding_dim: encoded.encoding.columns(),
        encoding,
        encoding_length: encoded
            .encoding
            .iter()
            .map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt())
            .collect(),
        q: &encoded.q,
        k: &encoded.k,
        v: &encoded.v,
        scale: encoded.scale,
        temperature: encoded.temperature,
        causal: encoded.causal,
        given_scores: encoded.given.as_ref().map(|given| DataGiven {
            focus: given.focus,
            scores: given.scores.iter().map(|score| score.is_finite().then_some(*score)).collect(),
        }),
        claimed: claimed.as_ref().map(|claimed| DataClaimed {
            focus: steps.focus,
            weights: &claimed.weights,
            finding: &claimed.finding,
        }),
        steps: DataSteps {
            encode: if model {
                format!("{} {}", lesson::ENCODE, lesson::PROJECTIONS)
            } else {
                lesson::ENCODE.into()
            },
            score: lesson::SCORE,
            score_given: lesson::SCORE_GIVEN,
            softmax: lesson::SOFTMAX,
            values: lesson::VALUES,
            influence: lesson::INFLUENCE,
            merge: merged.then_some(lesson::MERGE),
        },
        source: source(&seen.source),
        notes,
        recipe: recipe(seen),
        remake: remake(&seen.command, &seen.source),
    }
}

fn source(source: &Source) -> DataSource<'_> {
    let plain =
        DataSource { kind: "example", model: None, layer: None, layers: None, head: None, heads: None };
    match source {
        Source::Example => plain,
        Source::Vectors { .. } => DataSource { kind: "vectors", ..plain },
        Source::Model { name, info, layer, head, .. } => DataSource {
            kind: "model",
            model: Some(name),
            layer: Some(*layer),
            layers: Some(info.layers),
            head: Some(*head),
            heads: Some(info.heads),
        },
    }
}

/// What is needed to make the page again.
fn recipe(seen: &Explained) -> Vec<(&'static str, String)> {
    let mut recipe = Vec::new();
    match &seen.source {
        Source::Example => recipe.push(("source", "worked example quick-brown-fox".to_owned())),
        Source::Vectors { file } => recipe.push(("source", format!("vectors of {file}"))),
        Source::Model { name, info, layer, head, .. } => recipe.extend([
            ("model", format!("{name} ({})", info.family)),
            ("sha256", info.sha256.clone()),
            ("layer", format!("{layer} (of 0–{})", info.layers - 1)),
            ("head", format!("{head} (of 0–{})", info.heads - 1)),
        ]),
    }
    let quantity = "shares of one row (attention weights, after softmax over all keys), and share × value";
    recipe.extend([
        ("quantity", quantity.to_owned()),
        (
            "scale",
            if seen.steps.given {
                "none: the scores are given".into()
            } else {
                seen.encoded.scale.to_string()
            },
        ),
        ("temperature", seen.encoded.temperature.to_string()),
        ("command", seen.command.clone()),
        ("version", format!("glasshead {}", env!("CARGO_PKG_VERSION"))),
    ]);
    recipe
}

/// The command cut into what follows the page and what stays; `None` where it has no verb, as one from a library.
fn remake(command: &str, source: &Source) -> Option<Remake> {
    let words = shell_words(command);
    let verb = words.iter().position(|word| word == "explain")?;
    let (start, words) = words.split_at(verb + 1);
    let [mut focus, mut scale, mut rest] = [const { Vec::new() }; 3];
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // A flag with white space in its value is quoted as a whole.
        let flag = word.trim_start_matches('\'');
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let part = match name {
            "--focus" | "--scores" | "--claimed" => Some(&mut focus),
            "--scale" => Some(&mut scale),
            "--temperature" | "--layer" | "--head" => None,
            _ => {
                rest.push(word.as_str());
                if word == "--" {
                    rest.extend(words.by_ref().map(String::as_str));
                }
                continue;
            }
        };
        let value = if value.is_none() { words.next() } else { None };
        if let Some(part) = part {
            part.extend([word.as_str()].into_iter().chain(value.map(String::as_str)));
        }
    }
    let head = match source {
        Source::Model { layer, head, .. } => format!("--layer {layer} --head {head}"),
        _ => String::new(),
    };
    Some(Remake {
        start: start.join(" "),
        head,
        focus: focus.join(" "),
        scale: scale.join(" "),
        rest: rest.join(" "),
    })
}

/// A command line cut where its white space is not quoted; quotes stay.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in command.chars() {
        if c == ' ' && !quoted && !escaped {
            words.push(String::new());
            continue;
        }
        quoted ^= c == '\'' && !escaped;
        escaped = c == '\\' && !quoted && !escaped;
        if let Some(word) = words.last_mut() {
            word.push(c);
        }
    }
    words
}

/// Text for an element or an attribute.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_in_parts() {
        let command = r"glasshead explain --focus=it --temperature 2 'It isn'\''t --focus, is it?' --scale 3 -o a.html '--scores=1, 2' --head 1";
        let parts = remake(command, &Source::Example).unwrap();
        assert_eq!(parts.start, "glasshead explain");
        assert_eq!(parts.focus, "--focus=it '--scores=1, 2'");
        assert_eq!(parts.scale, "--scale 3");
        assert_eq!(parts.rest, r"'It isn'\''t --focus, is it?' -o a.html");
        assert_eq!(parts.head, "");
        assert_eq!(remake("glasshead explain -- --focus", &Source::Example).unwrap().rest, "-- --focus");
        assert!(remake("", &Source::Example).is_none());
    }
}
