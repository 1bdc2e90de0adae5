//! The readouts as they are: one array each, `tokens`, and the recipe as metadata.

use glasshead_attention::Values;
use serde_json::json;

use crate::look::scan::Scan;
use crate::weights::{NewArray, Writer, safetensors};

/// Every readout `[layers, heads, …]`, `tokens I64 [tokens]`, and of several texts `text_starts I64 [texts + 1]`. The
/// metadata holds the recipe, and as JSON
/// lists what names the axes: the tokens' texts, bytes and roles, the segments, the rows.
pub(super) fn arrays(scan: &Scan) -> Writer<'_> {
    Box::new(move |out| {
        let ids: Vec<i64> = scan.tokens.iter().map(|token| token.id.into()).collect();
        let mut arrays: Vec<NewArray<'_>> = scan
            .readouts
            .iter()
            .map(|array| match &array.values {
                Values::F32(values) => NewArray::of_f32(array.name, &array.shape, values),
                Values::I64(values) => NewArray::of_i64(array.name, &array.shape, values),
            })
            .collect();
        arrays.push(NewArray::of_i64("tokens", &[ids.len()], &ids));
        let starts: Vec<i64> = scan.text_starts().into_iter().map(|start| start as i64).collect();
        if !scan.texts.is_empty() {
            arrays.push(NewArray::of_i64("text_starts", &[starts.len()], &starts));
        }
        let mut metadata = scan.metadata();
        let mut list =
            |name: &str, value: serde_json::Value| metadata.insert(name.to_owned(), value.to_string());
        let tokens = scan.tokens.iter();
        list("token_text", tokens.clone().map(|token| token.text.as_str()).collect());
        list("token_start", tokens.clone().map(|token| token.start).collect());
        list("token_end", tokens.clone().map(|token| token.end).collect());
        list("token_role", tokens.map(|token| token.role.name()).collect());
        let segment = |s: &crate::look::segments::Segment| json!([s.start, s.end, s.label]);
        for (name, segments) in [("segment_list", &scan.segments), ("text_list", &scan.texts)] {
            if !segments.is_empty() {
                list(name, segments.iter().map(segment).collect());
            }
        }
        if !scan.rows.is_empty() {
            list("row_tokens", scan.rows.clone().into());
        }
        if let Some(block) = scan.block {
            list("block_size", block.into());
        }
        let write = safetensors(&arrays, &metadata).map_err(std::io::Error::other)?;
        write(out)
    })
}
