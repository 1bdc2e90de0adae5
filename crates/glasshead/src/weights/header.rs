//! The header of a safetensors file: which array lies where. A pure function of its bytes, so that it
//! can be fuzzed; every lie is told apart, because "invalid file" helps nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

pub use safetensors::Dtype;

use super::arrays::ArrayInfo;

/// What a header says, after it has been found to be consistent.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// The arrays by name.
    pub arrays: BTreeMap<String, ArrayInfo>,
    /// The free text under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// How many bytes of data follow the header.
    pub data_bytes: usize,
}

/// Reads the JSON of a header and checks that the arrays lie one behind the other without gaps or
/// overlaps, each as long as its shape and dtype say. Allocates in proportion to `json` only.
///
/// # Errors
/// What is wrong, as the second half of a sentence that begins with the file's name.
pub fn parse_header(json: &[u8]) -> Result<Header, String> {
    let text = std::str::from_utf8(json).map_err(|_| "has a header that is not UTF-8 text".to_owned())?;
    let raw: Raw = serde_json::from_str(text).map_err(|cause| match cause.classify() {
        serde_json::error::Category::Data => {
            format!("has a header that does not describe arrays: {}", brief(&cause))
        }
        _ => format!("has a header that is not JSON: {}", brief(&cause)),
    })?;
    let mut by_offset = Vec::with_capacity(raw.arrays.len());
    for (name, array) in raw.arrays {
        let info = array.check(&name)?;
        by_offset.push((name, info));
    }
    by_offset
        .sort_by(|(a, left), (b, right)| left.data_offsets.cmp(&right.data_offsets).then_with(|| a.cmp(b)));
    let mut data_bytes = 0;
    let mut before = String::new();
    for (name, info) in &by_offset {
        let (start, end) = info.data_offsets;
        if start < data_bytes {
            return Err(format!("has overlapping arrays: {} and {}", shown(&before), shown(name)));
        }
        if start > data_bytes {
            return Err(format!(
                "has {} bytes in front of {} that belong to no array",
                start - data_bytes,
                shown(name)
            ));
        }
        data_bytes = end;
        before.clone_from(name);
    }
    // The crate's own rules have the last word: what it refuses, other programs cannot read.
    Metadata::new(None, by_offset.clone()).map_err(|cause| format!("has a wrong header: {cause}"))?;
    let arrays = by_offset
        .into_iter()
        .map(|(name, info)| {
            let (start, end) = info.data_offsets;
            (name, ArrayInfo { dtype: info.dtype, shape: info.shape, bytes: start..end })
        })
        .collect();
    Ok(Header { arrays, metadata: raw.metadata, data_bytes })
}

/// A name from a file as an error shows it: quoted, on one line, not longer than a line.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut line: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    format!("`{line}`")
}

fn brief(cause: &serde_json::Error) -> String {
    cause.to_string().chars().take(160).flat_map(char::escape_debug).collect()
}

/// The header as it stands in the file; a name that comes twice is an error (most readers silently
/// take one of the two).
#[derive(Default)]
struct Raw {
    arrays: BTreeMap<String, RawArray>,
    metadata: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct RawArray {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl RawArray {
    fn check(self, name: &str) -> Result<TensorInfo, String> {
        let name = shown(name);
        let dtype: Dtype = serde_json::from_value(serde_json::Value::String(self.dtype.clone()))
            .map_err(|_| format!("gives {name} the unknown dtype {}", shown(&self.dtype)))?;
        let overflow = || format!("gives {name} a shape whose product overflows");
        let mut bits = dtype.bitsize() as u64;
        for &axis in &self.shape {
            bits = bits.checked_mul(axis).ok_or_else(overflow)?;
        }
        let [start, end] = self.data_offsets;
        let length = end.checked_sub(start).ok_or_else(|| format!("gives {name} an end before its start"))?;
        if !bits.is_multiple_of(8) || bits / 8 != length {
            return Err(format!(
                "gives {name} {length} bytes, but {dtype} {} needs {}",
                shape(&self.shape),
                bits.div_ceil(8)
            ));
        }
        let size = |n: u64| usize::try_from(n).map_err(|_| overflow());
        let shape = self.shape.iter().map(|&axis| size(axis)).collect::<Result<_, _>>()?;
        Ok(TensorInfo { dtype, shape, data_offsets: (size(start)?, size(end)?) })
    }
}

/// A shape as an error shows it: `[2, 3]`.
pub(crate) fn shape(axes: &[impl fmt::Display]) -> String {
    let mut line = axes.iter().take(8).map(|axis| axis.to_string()).collect::<Vec<_>>().join(", ");
    if axes.len() > 8 {
        line.push_str(", …");
    }
    format!("[{line}]")
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one entry for each array")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw::default();
                let mut told = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if told {
                            return Err(A::Error::custom("`__metadata__` comes twice"));
                        }
                        told = true;
                        raw.metadata = map.next_value()?;
                        continue;
                    }
                    match raw.arrays.entry(name) {
                        Entry::Vacant(free) => free.insert(map.next_value()?),
                        Entry::Occupied(taken) => {
                            let name = shown(taken.key());
                            return Err(A::Error::custom(format!("the name {name} comes twice")));
                        }
                    };
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
