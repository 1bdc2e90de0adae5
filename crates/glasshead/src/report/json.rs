//! The report as data. The keys are a promise to scripts: more may come, none may change.

use serde::Serialize;

use crate::{
    Error, Result,
    look::{
        Claimed, Matrix,
        explain::{Explained, Source, Units},
    },
};

#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    source: JsonSource<'a>,
    text: &'a str,
    units: &'static str,
    tokens: Vec<JsonToken<'a>>,
    focus: JsonFocus<'a>,
    scale: f64,
    temperature: f64,
    encoding: Matrix,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a [f64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<&'a Matrix>,
    values: &'a Matrix,
    scores: &'a [Option<f64>],
    weights: &'a [f64],
    influence: Vec<f64>,
    contributions: Vec<&'a [f64]>,
    output: &'a [f64],
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed: Option<&'a Claimed>,
    checks: JsonChecks,
    notes: &'a [String],
    command: &'a str,
}

#[derive(Serialize)]
struct JsonSource<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<usize>,
}

#[derive(Serialize)]
struct JsonToken<'a> {
    index: usize,
    text: &'a str,
    start: usize,
    end: usize,
}

#[derive(Serialize)]
struct JsonFocus<'a> {
    index: usize,
    text: &'a str,
}

#[derive(Serialize)]
struct JsonChecks {
    weights_sum: f64,
    max_abs_error: f64,
}

/// The report as one JSON object.
pub(super) fn json(seen: &Explained) -> Result<String> {
    let Explained { encoded, steps, claimed, notes, command, .. } = seen;
    let mut encoding = Matrix::new(encoded.encoding.columns());
    encoded.units.iter().for_each(|unit| encoding.push(encoded.encoding.mean(&unit.pieces)));
    let json = Json {
        version: env!("CARGO_PKG_VERSION"),
        source: source(&seen.source),
        text: &encoded.text,
        units: match seen.units {
            Units::Words => "words",
            Units::Tokens => "tokens",
        },
        tokens: encoded
            .units
            .iter()
            .enumerate()
            .map(|(index, unit)| JsonToken { index, text: &unit.text, start: unit.start, end: unit.end })
            .collect(),
        focus: JsonFocus { index: steps.focus, text: &encoded.units[steps.focus].text },
        // Given scores are used as they are: nothing scales them.
        scale: if steps.given { 1.0 } else { encoded.scale },
        temperature: encoded.temperature,
        encoding,
        query: (!steps.given).then_some(&steps.query),
        keys: (!steps.given).then_some(&steps.keys),
        values: &steps.values,
        scores: &steps.scores,
        weights: &steps.weights,
        influence: steps.influence(),
        contributions: steps.contributions.iter().collect(),
        output: &steps.output,
        claimed: claimed.as_ref(),
        checks: JsonChecks { weights_sum: steps.weights.iter().sum(), max_abs_error: steps.max_abs_error },
        notes,
        command,
    };
    let mut text = serde_json::to_string(&json).map_err(|error| {
        Error::environment(format!("JSON cannot be written: {error}"), "try --format csv")
    })?;
    text.push('\n');
    Ok(text)
}

fn source(source: &Source) -> JsonSource<'_> {
    let plain =
        JsonSource { kind: "example", file: None, model: None, sha256: None, layer: None, head: None };
    match source {
        Source::Example => plain,
        Source::Vectors { file } => JsonSource { kind: "vectors", file: Some(file), ..plain },
        Source::Model { name, info, layer, head, .. } => JsonSource {
            kind: "model",
            model: Some(name),
            sha256: Some(&info.sha256),
            layer: Some(*layer),
            head: Some(*head),
            ..plain
        },
    }
}
