//! Writing a safetensors file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::json;

use super::arrays::ArrayData;
use super::files::{CHUNK, write_atomically};
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
    /// Its numbers, row-major.
    pub numbers: Numbers<'a>,
}

/// The numbers of an array: as bytes, or as they lie in memory, so that a large array needs no copy.
#[derive(Clone, Debug)]
pub enum Numbers<'a> {
    /// Little-endian, of any type.
    Bytes(Vec<u8>),
    /// `F32`
    F32(&'a [f32]),
    /// `I64`
    I64(&'a [i64]),
}

impl<'a> NewArray<'a> {
    /// An array from typed numbers.
    pub fn new(name: impl Into<Cow<'a, str>>, shape: &[usize], data: &ArrayData) -> Self {
        let (shape, numbers) = (shape.to_vec(), Numbers::Bytes(data.to_le_bytes()));
        Self { name: name.into(), dtype: data.dtype(), shape, numbers }
    }

    /// An array of `F32` that is not copied.
    pub fn of_f32(name: impl Into<Cow<'a, str>>, shape: &[usize], values: &'a [f32]) -> Self {
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec(), numbers: Numbers::F32(values) }
    }

    /// An array of `I64` that is not copied.
    pub fn of_i64(name: impl Into<Cow<'a, str>>, shape: &[usize], values: &'a [i64]) -> Self {
        Self { name: name.into(), dtype: Dtype::I64, shape: shape.to_vec(), numbers: Numbers::I64(values) }
    }
}

impl Numbers<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::F32(values) => size_of_val(*values),
            Self::I64(values) => size_of_val(*values),
        }
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::F32(values) => write_all(values, |x| x.to_le_bytes(), out),
            Self::I64(values) => write_all(values, |x| x.to_le_bytes(), out),
        }
    }
}

/// Writes numbers, some thousands at a time.
fn write_all<T: Copy, const N: usize>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK / N * N];
    for values in values.chunks(CHUNK / N) {
        let (numbers, _) = chunk.as_chunks_mut::<N>();
        numbers.iter_mut().zip(values).for_each(|(to, x)| *to = bytes(*x));
        out.write_all(&chunk[..values.len() * N])?;
    }
    Ok(())
}

/// Writes arrays and free text as a safetensors file, whole or not at all (see [`write_atomically`]).
/// The same arrays give the same bytes, whatever their order.
///
/// # Errors
/// Two arrays of one name, numbers that do not fit the shape, a path that cannot be written.
pub fn write_safetensors(
    path: &Path,
    arrays: &[NewArray<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let write = safetensors(arrays, metadata)?;
    write_atomically(path, |out| write(out))
}

/// The same as a function that writes the bytes of such a file.
///
/// # Errors
/// Two arrays of one name, numbers that do not fit the shape.
pub fn safetensors<'a>(
    arrays: &'a [NewArray<'a>],
    metadata: &BTreeMap<String, String>,
) -> Result<impl FnOnce(&mut dyn Write) -> io::Result<()> + use<'a>> {
    let mut order: Vec<&NewArray<'_>> = arrays.iter().collect();
    // Wide numbers first, so that each array is aligned for whoever maps the file.
    order.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut header = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", json!(metadata));
    }
    let mut start = 0;
    for array in &order {
        let bytes = array.numbers.bytes();
        let end = start + bytes;
        let bits = array.shape.iter().try_fold(array.dtype.bitsize(), |bits, &axis| bits.checked_mul(axis));
        if bits != bytes.checked_mul(8) {
            return Err(odd(array, &format!("has {bytes} bytes for {}", shape(&array.shape))));
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
    Ok(move |out: &mut dyn Write| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        order.iter().try_for_each(|array| array.numbers.write(out))
    })
}

fn odd(array: &NewArray<'_>, what: &str) -> Error {
    Error::request(
        format!("array {} of the output {what}", shown(&array.name)),
        "give every array its own name and as many numbers as its shape says",
    )
}
