//! The scan as one JSON object. The keys are a promise to scripts: more may come, none may change.

use std::collections::BTreeMap;

use glasshead_attention::{Array, Values};
use serde::Serialize;

use crate::look::scan::{Origin, Scan};
use crate::look::segments::Segment;
use crate::weights::Writer;

#[derive(Serialize)]
struct Json<'a> {
    version: &'static str,
    /// Of a scan that the command made, as `sha256` of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    model: JsonModel<'a>,
    read: &'a str,
    text: &'a str,
    /// The bytes of `text` that are the file's own.
    own: [usize; 2],
    /// What the model wrote; `null` if nothing.
    answer: Option<String>,
    tokens: Vec<JsonToken<'a>>,
    /// Where every passage was read as a text of its own.
    texts: Vec<JsonText<'a>>,
    segments: Vec<JsonSegment<'a>>,
    layers: &'a [usize],
    heads: &'a [usize],
    rows: &'a [usize],
    block: Option<usize>,
    readouts: BTreeMap<&'static str, JsonArray<'a>>,
}

#[derive(Serialize)]
struct JsonModel<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<&'a str>,
    family: Option<&'a str>,
    layers: usize,
    heads: usize,
}

#[derive(Serialize)]
struct JsonToken<'a> {
    index: usize,
    id: u32,
    text: &'a str,
    start: usize,
    end: usize,
    role: &'static str,
}

#[derive(Serialize)]
struct JsonSegment<'a> {
    index: usize,
    label: &'a str,
    start: usize,
    end: usize,
    tokens: usize,
}

#[derive(Serialize)]
struct JsonText<'a> {
    #[serde(flatten)]
    segment: JsonSegment<'a>,
    first_token: usize,
}

#[derive(Serialize)]
struct JsonArray<'a> {
    shape: &'a [usize],
    /// In C order; `null` is NaN.
    values: JsonValues<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JsonValues<'a> {
    F32(&'a [f32]),
    I64(&'a [i64]),
}

pub(super) fn json(scan: &Scan) -> Writer<'_> {
    Box::new(move |out| {
        let tokens = scan.tokens.iter().enumerate().map(|(index, token)| JsonToken {
            index,
            id: token.id,
            text: &token.text,
            start: token.start,
            end: token.end,
            role: token.role.name(),
        });
        let segments = scan.segments.iter().enumerate().map(segment);
        let texts = scan.texts.iter().enumerate().map(segment).zip(scan.text_starts());
        let texts = texts.map(|(segment, first_token)| JsonText { segment, first_token });
        let (command, sha256) = match &scan.recipe.origin {
            Origin::Command { line, sha256 } => (Some(line.as_str()), Some(sha256.as_str())),
            Origin::Python { .. } => (None, None),
        };
        let json = Json {
            version: scan.recipe.version,
            command,
            model: JsonModel {
                name: &scan.model.name,
                sha256,
                family: scan.model.family.as_deref(),
                layers: scan.model.layers,
                heads: scan.model.heads,
            },
            read: &scan.recipe.read,
            text: &scan.text,
            own: [scan.own.start, scan.own.end],
            answer: scan.answer(),
            tokens: tokens.collect(),
            texts: texts.collect(),
            segments: segments.collect(),
            layers: &scan.layers,
            heads: &scan.heads,
            rows: &scan.rows,
            block: scan.block,
            readouts: scan.readouts.iter().map(|array| (array.name, values(array))).collect(),
        };
        serde_json::to_writer(&mut *out, &json)?;
        out.write_all(b"\n")
    })
}

fn segment((index, segment): (usize, &Segment)) -> JsonSegment<'_> {
    let Segment { label, start, end, tokens } = segment;
    JsonSegment { index, label, start: *start, end: *end, tokens: *tokens }
}

fn values(array: &Array) -> JsonArray<'_> {
    let values = match &array.values {
        Values::F32(values) => JsonValues::F32(values),
        Values::I64(values) => JsonValues::I64(values),
    };
    JsonArray { shape: &array.shape, values }
}
