//! A safetensors file in memory: validated, listed, and handed out as typed copies.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::{bf16, f16};

use super::files::{open, unreadable};
use super::header::{Dtype, Header, parse_header, shape, shown};
use crate::{Error, Result};

/// Where an array lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayInfo {
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its axes; empty for a single number.
    pub shape: Vec<usize>,
    /// Its bytes in the data behind the header: exactly as many as shape and dtype need.
    pub bytes: Range<usize>,
}

/// The numbers of an array, row-major, in the type they have in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayData {
    /// `F32`
    F32(Vec<f32>),
    /// `F64`
    F64(Vec<f64>),
    /// `F16`
    F16(Vec<f16>),
    /// `BF16`
    Bf16(Vec<bf16>),
    /// `I64`
    I64(Vec<i64>),
    /// `BOOL`
    Bool(Vec<bool>),
}

/// A validated safetensors file, all of it in memory.
#[derive(Clone, Debug)]
pub struct Arrays {
    path: PathBuf,
    header: Header,
    /// The whole file, header included; shared, so that it can be hashed beside the work.
    file: Arc<Vec<u8>>,
    /// Where the data begins in `file`.
    data_start: usize,
}

/// Reads and validates a safetensors file (or a pipe that delivers one).
///
/// # Errors
/// A file that is missing, cut off, or lies about its arrays; each with its own sentence.
pub fn read_safetensors(path: &Path) -> Result<Arrays> {
    let mut source = open(path)?;
    let mut file = Vec::new();
    let mut read = |file: &mut Vec<u8>, bytes: u64| {
        (&mut source).take(bytes).read_to_end(file).map_err(|cause| unreadable(path, &cause))
    };
    // Step by step, each only as far as the step before promised: a stream without end is not swallowed.
    read(&mut file, 8)?;
    let Ok(length) = <[u8; 8]>::try_from(file.as_slice()) else {
        return Err(refused(path, &format!("has {} bytes, fewer than the 8 of a header length", file.len())));
    };
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(refused(
            path,
            &format!(
                "is no safetensors file: its first 8 bytes claim a header of {length} bytes, more than the {LONGEST_HEADER} allowed"
            ),
        ));
    }
    read(&mut file, length)?;
    let data_start = file.len();
    if (data_start as u64) < 8 + length {
        let found = data_start - 8;
        return Err(refused(path, &format!("claims a header of {length} bytes, but ends after {found}")));
    }
    let header = parse_header(&file[8..]).map_err(|what| refused(path, &what))?;
    let promised = header.data_bytes as u64;
    if let Ok(metadata) = path.metadata()
        && metadata.is_file()
    {
        // Known beforehand: say it before gigabytes are read, and reserve exactly what is there.
        covered(path, promised, metadata.len().saturating_sub(8 + length))?;
        file.try_reserve_exact(header.data_bytes).map_err(|_| {
            Error::environment(
                format!("{} needs {promised} bytes of memory, more than there are", path.display()),
                "use a machine with more memory or a smaller file",
            )
        })?;
    }
    read(&mut file, promised.saturating_add(1))?;
    covered(path, promised, (file.len() - data_start) as u64)?;
    Ok(Arrays { path: path.to_owned(), header, file: Arc::new(file), data_start })
}

/// The longest header we read: the limit that the safetensors crate has as well.
const LONGEST_HEADER: u64 = 100_000_000;

fn covered(path: &Path, promised: u64, found: u64) -> Result<()> {
    if found < promised {
        return Err(refused(path, &format!("is cut off: its arrays need {promised} bytes, it has {found}")));
    }
    if found > promised {
        return Err(refused(path, &format!("has bytes behind its last array: {promised} belong to arrays")));
    }
    Ok(())
}

fn refused(path: &Path, what: &str) -> Error {
    Error::request(
        format!("{} {what}", path.display()),
        "check that it is a safetensors file and that its download was complete",
    )
}

impl Arrays {
    /// The file these come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name, dtype and shape of every array, by name.
    pub fn list(&self) -> impl Iterator<Item = (&str, &ArrayInfo)> {
        self.header.arrays.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// What the array of that name is, if there is one.
    pub fn info(&self, name: &str) -> Option<&ArrayInfo> {
        self.header.arrays.get(name)
    }

    /// The free text in the header.
    pub fn metadata(&self) -> &std::collections::BTreeMap<String, String> {
        &self.header.metadata
    }

    /// The raw little-endian bytes of an array, as they lie in the file: not aligned.
    pub fn raw(&self, info: &ArrayInfo) -> &[u8] {
        self.file[self.data_start..].get(info.bytes.clone()).unwrap_or_default()
    }

    /// A typed copy of an array, with its shape.
    ///
    /// # Errors
    /// No array of that name; a dtype that [`ArrayData`] does not have; a `BOOL` byte that is neither 0 nor 1.
    pub fn get(&self, name: &str) -> Result<(ArrayData, &[usize])> {
        let info = self.info(name).ok_or_else(|| self.missing(name))?;
        let data = ArrayData::from_le_bytes(info.dtype, self.raw(info)).map_err(|what| {
            Error::request(
                format!("array {} of {} {what}", shown(name), self.path.display()),
                "save it as F32, F64, F16, BF16, I64 or BOOL",
            )
        })?;
        Ok((data, &info.shape))
    }

    /// The sentence for an array that is not there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        missing(&self.path, name, self.header.arrays.keys().map(String::as_str))
    }

    /// The whole file.
    pub(crate) fn file(&self) -> &Arc<Vec<u8>> {
        &self.file
    }
}

/// The sentence for an array that is not in the file or folder at `path`, which has `names`.
pub(super) fn missing<'a>(path: &Path, name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    const TOLD: usize = 8;
    let mut names: Vec<_> = names.take(TOLD + 1).map(shown).collect();
    if names.len() > TOLD {
        names[TOLD] = "…".to_owned();
    }
    Error::request(
        format!("{} has no array {}", path.display(), shown(name)),
        if names.is_empty() {
            "the file is empty".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        },
    )
}

/// The sentence for an array of another shape than is needed.
pub(super) fn misshapen(path: &Path, name: &str, expected: &[usize], found: &[usize]) -> Error {
    Error::request(
        format!(
            "array {} of {} has the shape {}, but {} is needed",
            shown(name),
            path.display(),
            shape(found),
            shape(expected)
        ),
        "the file and its config.json do not belong together",
    )
}

impl ArrayData {
    /// Decodes little-endian bytes, whatever their alignment.
    ///
    /// # Errors
    /// What is wrong, as the second half of a sentence: another dtype, a `BOOL` byte other than 0 and 1.
    pub fn from_le_bytes(dtype: Dtype, bytes: &[u8]) -> Result<Self, String> {
        Ok(match dtype {
            Dtype::F32 => Self::F32(decode(bytes, f32::from_le_bytes)),
            Dtype::F64 => Self::F64(decode(bytes, f64::from_le_bytes)),
            Dtype::F16 => Self::F16(decode(bytes, f16::from_le_bytes)),
            Dtype::BF16 => Self::Bf16(decode(bytes, bf16::from_le_bytes)),
            Dtype::I64 => Self::I64(decode(bytes, i64::from_le_bytes)),
            Dtype::BOOL => {
                if let Some(odd) = bytes.iter().find(|&&byte| byte > 1) {
                    return Err(format!("is BOOL but has the byte {odd}; only 0 and 1 are allowed"));
                }
                Self::Bool(bytes.iter().map(|&byte| byte == 1).collect())
            }
            other => return Err(format!("has the dtype {other}, which is not read here")),
        })
    }

    /// The numbers as the little-endian bytes of a file.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bf16(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bool(data) => data.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    /// What the numbers are called in a file.
    pub fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
            Self::F16(_) => Dtype::F16,
            Self::Bf16(_) => Dtype::BF16,
            Self::I64(_) => Dtype::I64,
            Self::Bool(_) => Dtype::BOOL,
        }
    }
}

/// Chunks of N bytes as numbers. The length is a multiple of N: the header's check saw to that.
pub(crate) fn decode<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}
