//! A GGUF file: its metadata, typed, and its tensors, dequantised one at a time when they are asked for.
//!
//! The file is read piece by piece and neither kept nor mapped: at any time there is one quantised tensor in
//! memory beside the f32 numbers that a model keeps. (A map would need `unsafe`, and a file that shrinks
//! under it would kill the process.)

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use half::{bf16, f16};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::arrays::decode;
use super::files::{CHUNK, hex, open, unreadable};
use super::gguf::{GgufArray, GgufHeader, GgufTensor, GgufValue, Kind, integer, parse_gguf};
use super::header::{shape, shown};
use crate::{Error, Result};

/// A validated GGUF file, open.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: Mutex<File>,
    file_bytes: u64,
    /// The header's own bytes: texts and arrays of the metadata are ranges of it.
    head: Vec<u8>,
    header: GgufHeader,
}

/// Where reading of the header begins; a vocabulary of 50,000 tokens takes about 2 MB.
const FIRST_PIECE: u64 = 4 << 20;
/// The longest header we read; the largest public ones, of vocabularies of 260,000, are near 20 MB.
const LONGEST_HEADER: u64 = 1 << 30;

impl Gguf {
    /// Reads and validates the header; the tensors are only looked up.
    ///
    /// # Errors
    /// A file that is missing, cut off, or lies about what is in it; each with its own sentence.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = open(path)?;
        let metadata = file.metadata().map_err(|cause| unreadable(path, &cause))?;
        if !metadata.is_file() {
            return Err(refused(path, "is no regular file, and a GGUF file is not read in one go"));
        }
        let file_bytes = metadata.len();
        let mut head = Vec::new();
        let mut wanted = FIRST_PIECE;
        let header = loop {
            let more = wanted.min(file_bytes).saturating_sub(head.len() as u64);
            (&mut file).take(more).read_to_end(&mut head).map_err(|cause| unreadable(path, &cause))?;
            // Shorter than it was a moment ago: what there is now is the file.
            let short = (head.len() as u64) < wanted.min(file_bytes);
            let size = if short { head.len() as u64 } else { file_bytes };
            match parse_gguf(&head, size).map_err(|what| refused(path, &what))? {
                Some(header) => break header,
                None if wanted < LONGEST_HEADER => wanted *= 4,
                None => {
                    return Err(refused(path, &format!("has a header of more than {LONGEST_HEADER} bytes")));
                }
            }
        };
        head.truncate(header.bytes);
        head.shrink_to_fit();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), file_bytes, head, header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, type and shape of every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &GgufTensor)> {
        self.header.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// What the tensor of that name is, if there is one.
    pub fn info(&self, name: &str) -> Option<&GgufTensor> {
        self.header.tensors.get(name)
    }

    /// The keys of the metadata.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.header.metadata.keys().map(String::as_str)
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.header.metadata.get(key)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// The key has a value of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| match value {
            GgufValue::Text(range) => std::str::from_utf8(self.head.get(range.clone())?).ok(),
            _ => None,
        })
    }

    /// A yes or no, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            GgufValue::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A whole number from 0 on, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::text`]; a negative number.
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number from 0 on", |value| match value {
            GgufValue::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A finite number, if the key is there. An f32 is the shortest decimal fraction that means it: 1e-5, not
    /// 9.999999747378752e-6.
    ///
    /// # Errors
    /// As [`Gguf::text`]; a number that is not finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |value| {
            let number = match value {
                GgufValue::Integer(number) => *number as f64,
                GgufValue::F32(number) => number.to_string().parse().ok()?,
                GgufValue::F64(number) => *number,
                _ => return None,
            };
            number.is_finite().then_some(number)
        })
    }

    /// A list of texts, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::text`]; a text that is not UTF-8.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some((array, mut bytes)) = self.array(key, "a list of texts", |kind| kind == Kind::Text)? else {
            return Ok(None);
        };
        // As many as the bytes of the header hold: that was checked.
        let mut texts = Vec::with_capacity(array.len);
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let (text, rest) =
                rest.split_at_checked(u64::from_le_bytes(*length) as usize).unwrap_or_default();
            texts.push(std::str::from_utf8(text).map_err(|_| {
                let what = format!("has a text that is not UTF-8 at place {} of {}", texts.len(), shown(key));
                refused(&self.path, &what)
            })?);
            bytes = rest;
        }
        Ok(Some(texts))
    }

    /// A list of whole numbers, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i128>>> {
        let whole = |kind| matches!(kind, Kind::Integer { .. });
        let array = self.array(key, "a list of whole numbers", whole)?;
        Ok(array.map(|(array, bytes)| {
            let signed = matches!(array.kind, Kind::Integer { signed: true, .. });
            bytes.chunks_exact(array.kind.least()).map(|bytes| integer(bytes, signed)).collect()
        }))
    }

    /// A list of f32 numbers, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let array = self.array(key, "a list of f32 numbers", |kind| kind == Kind::F32)?;
        Ok(array.map(|(_, bytes)| decode(bytes, f32::from_le_bytes)))
    }

    fn array(
        &self,
        key: &str,
        wanted: &str,
        fits: impl Fn(Kind) -> bool,
    ) -> Result<Option<(&GgufArray, &[u8])>> {
        self.typed(key, wanted, |value| match value {
            // A list of nothing may say that it is of anything.
            GgufValue::Array(array) if array.len == 0 || fits(array.kind) => {
                Some((array, self.head.get(array.bytes.clone())?))
            }
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.header.metadata.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(key, &format!("is not {wanted}")))
    }

    /// The sentence for a metadata key with a value that cannot be; `what` is the end of the sentence.
    pub(crate) fn wrong(&self, key: &str, what: &str) -> Error {
        refused(&self.path, &format!("has a metadata key {} that {what}", shown(key)))
    }

    /// The sentence for a metadata key that has to be there.
    pub(crate) fn missing(&self, key: &str) -> Error {
        refused(&self.path, &format!("has no metadata key {}", shown(key)))
    }

    /// The sentence for a tensor whose rows cannot belong to heads.
    pub(super) fn uneven(&self, name: &str, found: &[usize]) -> Error {
        let what = format!("has a tensor {} of shape {}, no whole heads of pairs", shown(name), shape(found));
        refused(&self.path, &what)
    }

    /// The numbers of a tensor as f32, row-major.
    ///
    /// # Errors
    /// A file that cannot be read, or is shorter than it was; not enough memory.
    pub fn values(&self, tensor: &GgufTensor) -> Result<Vec<f32>> {
        let packed = self.packed(tensor)?;
        let numbers = tensor.shape.iter().product();
        dequantise(tensor.dtype, packed.bytes(), numbers).ok_or_else(|| self.too_large(numbers as u64 * 4))
    }

    /// The bytes of a tensor as they lie in the file.
    pub(super) fn packed(&self, tensor: &GgufTensor) -> Result<Packed> {
        let needed = tensor.bytes.end - tensor.bytes.start;
        let size = usize::try_from(needed).ok().and_then(|size| size.checked_add(SLACK));
        let mut bytes = Vec::new();
        let size = size.filter(|&size| bytes.try_reserve_exact(size).is_ok());
        let size = size.ok_or_else(|| self.too_large(needed))?;
        bytes.resize(size, 0);
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(SLACK);
        let end = start + (size - SLACK);
        self.read_at(tensor.bytes.start, &mut bytes[start..end])?;
        Ok(Packed { bytes, start, end })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(into))
            .map_err(|cause| unreadable(&self.path, &cause))
    }

    fn too_large(&self, bytes: u64) -> Error {
        Error::environment(
            format!("a tensor of {} needs {bytes} bytes of memory, more than there are", self.path.display()),
            "use a machine with more memory or a smaller file",
        )
    }

    /// The SHA-256 of the whole file, read piece by piece through the same handle as the tensors.
    pub(super) fn hash(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < self.file_bytes {
            let piece = (self.file_bytes - at).min(CHUNK as u64) as usize;
            self.read_at(at, &mut chunk[..piece])?;
            hash.update(&chunk[..piece]);
            at += piece as u64;
        }
        Ok(hex(hash))
    }
}

fn refused(path: &Path, what: &str) -> Error {
    Error::request(
        format!("{} {what}", path.display()),
        "check that it is a GGUF file and that its download was complete",
    )
}

/// A tensor's bytes at an address that candle's block types can be read from.
#[derive(Debug)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// The strictest of candle's block types begins with an f32.
const ALIGNMENT: usize = 4;
const SLACK: usize = ALIGNMENT - 1;

impl Packed {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

/// Numbers that are dequantised at a time: small enough to be in the second-level cache when they are copied.
const PIECE: usize = 32 << 10;

/// Stored numbers as f32, or `None` where there is no memory for them. `bytes` are aligned to [`ALIGNMENT`]
/// and as many as `numbers` need.
pub(super) fn dequantise(dtype: GgmlDType, bytes: &[u8], numbers: usize) -> Option<Vec<f32>> {
    let mut out: Vec<f32> = Vec::new();
    out.try_reserve_exact(numbers).ok()?;
    out.resize(numbers, 0.0);
    // PIECE is a multiple of every block, and a piece of bytes of every alignment.
    let piece = PIECE / dtype.block_size() * dtype.type_size();
    let done =
        out.par_chunks_mut(PIECE).zip(bytes.par_chunks(piece)).map(|(out, bytes)| unpack(dtype, bytes, out));
    done.all(|done| done).then_some(out)
}

/// `false` if candle cannot do it, which happens on no CPU.
fn unpack(dtype: GgmlDType, bytes: &[u8], out: &mut [f32]) -> bool {
    fn plain<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
        for (to, from) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *to = number(*from);
        }
    }
    match dtype {
        GgmlDType::F32 => plain(bytes, out, f32::from_le_bytes),
        GgmlDType::F16 => plain(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
        GgmlDType::BF16 => plain(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        quantised => match quantised.from_data(bytes.into()).dequantize(out.len()) {
            Ok(CpuStorage::F32(numbers)) => out.copy_from_slice(&numbers),
            _ => return false,
        },
    }
    true
}
