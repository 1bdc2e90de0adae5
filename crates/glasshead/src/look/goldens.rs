//! What Hugging Face transformers computes for the models of the catalogue, made by
//! `bench/goldens/catalogue.py` and carried along.

use std::collections::BTreeMap;

use crate::weights::{ArrayData, parse_header};
use crate::{Error, Result};

/// Every golden there is.
const GOLDENS: &[&[u8]] = &[
    include_bytes!("../weights/goldens/minilm.safetensors"),
    include_bytes!("../weights/goldens/smollm2.safetensors"),
];

/// The text, the tokens and the numbers of one model.
#[derive(Clone, Debug)]
pub(super) struct Golden {
    /// The model by its name in the catalogue.
    pub(super) model: String,
    /// SHA-256 of the weights it was made with.
    pub(super) sha256: String,
    pub(super) text: String,
    /// Tools and versions.
    pub(super) made_by: String,
    pub(super) ids: Vec<u32>,
    /// Layer and head of each map in `attention [pairs, tokens, tokens]`.
    pub(super) pairs: Vec<[usize; 2]>,
    pub(super) attention: Vec<f32>,
    /// The tokens of `last_hidden [tokens, hidden]`.
    pub(super) hidden_tokens: Vec<usize>,
    pub(super) last_hidden: Vec<f32>,
    /// What transformers' float32 is off by, against its float64.
    pub(super) attention_noise: f64,
    pub(super) hidden_noise: f64,
}

/// Every golden.
pub(super) fn all() -> Result<Vec<Golden>> {
    GOLDENS
        .iter()
        .map(|bytes| {
            read(bytes).map_err(|what| {
                Error::environment(
                    format!("a golden of this build is broken: {what}"),
                    "build glasshead again",
                )
            })
        })
        .collect()
}

fn read(bytes: &[u8]) -> Result<Golden, String> {
    let (length, rest) = bytes.split_first_chunk().ok_or("it is empty")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|error| error.to_string())?;
    let (header, data) = rest.split_at_checked(length).ok_or("it is cut off")?;
    let header = parse_header(header)?;
    let array = |name: &str| -> Result<ArrayData, String> {
        let info = header.arrays.get(name).ok_or_else(|| format!("it has no {name}"))?;
        ArrayData::from_le_bytes(info.dtype, data.get(info.bytes.clone()).ok_or("it is cut off")?)
    };
    let floats = |name: &str| match array(name)? {
        ArrayData::F32(values) => Ok(values),
        _ => Err(format!("{name} is no F32")),
    };
    let counts = |name: &str| match array(name)? {
        ArrayData::I64(values) => {
            values.into_iter().map(|x| usize::try_from(x).map_err(|error| error.to_string())).collect()
        }
        _ => Err(format!("{name} is no I64")),
    };
    let metadata: &BTreeMap<String, String> = &header.metadata;
    let word = |name: &str| metadata.get(name).cloned().ok_or_else(|| format!("it does not say its {name}"));
    let number = |name: &str| word(name)?.parse::<f64>().map_err(|error| error.to_string());
    let ids: Vec<usize> = counts("ids")?;
    Ok(Golden {
        model: word("model")?,
        sha256: word("sha256")?,
        text: word("text")?,
        made_by: word("made_by")?,
        ids: ids
            .into_iter()
            .map(|id| u32::try_from(id).map_err(|error| error.to_string()))
            .collect::<Result<_, _>>()?,
        pairs: counts("pairs")?.as_chunks().0.to_vec(),
        attention: floats("attention")?,
        hidden_tokens: counts("hidden_tokens")?,
        last_hidden: floats("last_hidden")?,
        attention_noise: number("attention_noise")?,
        hidden_noise: number("hidden_noise")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_golden_is_whole() {
        for golden in all().expect("readable") {
            let tokens = golden.ids.len();
            assert_eq!(golden.attention.len(), golden.pairs.len() * tokens * tokens, "{}", golden.model);
            assert!(golden.pairs.len() >= 5 && golden.attention_noise > 0.0 && golden.hidden_noise > 0.0);
            assert!(golden.last_hidden.len().is_multiple_of(golden.hidden_tokens.len()));
            let rows = golden.attention.chunks_exact(tokens);
            assert!(rows.map(|row| row.iter().sum::<f32>()).all(|sum| (sum - 1.0).abs() < 1e-5));
        }
    }
}
