//! Writing a safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::arrays::ArrayData;
use super::files::write_atomically;
use super::header::{Dtype, shape, shown};
use crate::{Error, Result};

/// An array on its way into a file.
#[derive(Clone, Debug)]
pub struct NewArray<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its axes.
    pub shape: Vec<usize>,
    /// Its numbers, row-major and little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> NewArray<'a> {
    /// An array from typed numbers.
    pub fn new(name: impl Into<Cow<'a, str>>, shape: &[usize], data: &ArrayData) -> Self {
        let (shape, bytes) = (shape.to_vec(), Cow::Owned(data.to_le_bytes()));
        Self { name: name.into(), dtype: data.dtype(), shape, bytes }
    }
}

/// Writes arrays and free text as a safetensors file, whole or not at all (see [`write_atomically`]).
/// The same arrays give the same bytes, whatever their order.
///
/// # Errors
/// Two arrays of one name, bytes that do not fit the shape, a path that cannot be written.
pub fn write_safetensors(
    path: &Path,
    arrays: &[NewArray<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut order: Vec<&NewArray<'_>> = arrays.iter().collect();
    // Wide numbers first, so that each array is aligned for whoever maps the file.
    order.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", json!(metadata));
    }
    let mut start = 0;
    for array in &order {
        let end = start + array.bytes.len();
        let bits = array.shape.iter().try_fold(array.dtype.bitsize(), |bits, &axis| bits.checked_mul(axis));
        if bits != array.bytes.len().checked_mul(8) {
            return Err(odd(array, &format!("has {} bytes for {}", end - start, shape(&array.shape))));
        }
        let entry = json!({"dtype": array.dtype, "shape": array.shape, "data_offsets": [start, end]});
        if header.insert(&array.name, entry).is_some() {
            return Err(odd(array, "is there twice"));
        }
        start = end;
    }
    let mut header = json!(header).to_string();
    // The data begins at a multiple of 8 bytes; blanks are the padding the format asks for.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        order.iter().try_for_each(|array| out.write_all(&array.bytes))
    })
}

fn odd(array: &NewArray<'_>, what: &str) -> Error {
    Error::request(
        format!("array {} of the output {what}", shown(&array.name)),
        "give every array its own name and as many numbers as its shape says",
    )
}
