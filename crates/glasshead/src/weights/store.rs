//! A checkpoint as a model sees it: matrices with names, wanted in a certain shape.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::arrays::{ArrayInfo, Arrays, decode, misshapen, missing, read_safetensors};
use super::cache::confirm;
use super::files::hex;
use super::header::{Dtype, shown};
use super::quantised::{Gguf, Packed, dequantise};
use super::shards::Shards;
use super::undo::{Origin, Undo};
use crate::{Error, Result};

/// A checkpoint, open: a `model.safetensors`, several of them with an index, or a GGUF file.
#[derive(Debug)]
pub struct Weights {
    store: Store,
    hash: Mutex<Hash>,
}

#[derive(Clone, Debug)]
enum Store {
    File(Arc<Arrays>),
    Shards(Arc<Shards>),
    Gguf(Arc<Gguf>, Arc<BTreeMap<String, Origin>>),
}

#[derive(Debug)]
enum Hash {
    /// A second thread is at it: hashing takes longer than building the layers.
    Running(JoinHandle<Result<String>>),
    Done(String),
}

impl Weights {
    /// Reads and validates a safetensors file.
    ///
    /// # Errors
    /// As [`read_safetensors`].
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::new(Store::File(Arc::new(read_safetensors(path)?))))
    }

    /// Reads and validates a checkpoint that is split over several safetensors files, from its
    /// `model.safetensors.index.json`. All of them are in memory until the model is built.
    ///
    /// # Errors
    /// As [`read_safetensors`]; an index that names a file elsewhere, a file that is not there, or a tensor
    /// that is not in its file.
    pub fn open_shards(index: &Path) -> Result<Self> {
        Ok(Self::new(Store::Shards(Arc::new(Shards::open(index)?))))
    }

    /// Takes a GGUF file; `names` says what its tensors are called here, and what to undo.
    pub fn from_gguf(file: Arc<Gguf>, names: BTreeMap<String, Origin>) -> Self {
        Self::new(Store::Gguf(file, Arc::new(names)))
    }

    fn new(store: Store) -> Self {
        let hashed = store.clone();
        let hash = Hash::Running(thread::spawn(move || hashed.hash()));
        Self { store, hash: Mutex::new(hash) }
    }

    /// The file these come from; of a split checkpoint, its index.
    pub fn path(&self) -> &Path {
        match &self.store {
            Store::File(arrays) => arrays.path(),
            Store::Shards(shards) => shards.path(),
            Store::Gguf(file, _) => file.path(),
        }
    }

    /// The SHA-256 of the whole file, 64 hexadecimal digits; of a split checkpoint, that of its files one
    /// after the other, in the order of their names (what `cat model-*.safetensors | sha256sum` says).
    ///
    /// # Errors
    /// The file belongs to a model of the catalogue and is not the pinned one; it is removed. A GGUF file
    /// that cannot be read any more.
    pub fn sha256(&self) -> Result<String> {
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        let digits = match std::mem::replace(&mut *hash, Hash::Done(String::new())) {
            Hash::Running(thread) => thread.join().unwrap_or_else(|_| self.store.hash())?,
            Hash::Done(digits) if digits.is_empty() => self.store.hash()?,
            Hash::Done(digits) => digits,
        };
        *hash = Hash::Done(digits.clone());
        confirm(self.path(), &digits)?;
        Ok(digits)
    }

    /// The tensors under a prefix: `""`, or for example `"bert"`.
    pub fn scope(&self, prefix: &str) -> Scope<'_> {
        Scope { weights: self, prefix: prefix.to_owned() }
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        match &self.store {
            Store::File(arrays) => arrays.info(name).is_some(),
            Store::Shards(shards) => shards.find(name).is_some(),
            Store::Gguf(_, names) => names.contains_key(name),
        }
    }

    /// A tensor of exactly this shape, as F32 on the CPU.
    ///
    /// # Errors
    /// No tensor of that name, another shape, a dtype that is not a float.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_vec(self.values(name, shape)?, shape, &Device::Cpu).map_err(|cause| {
            Error::environment(
                format!("tensor {} cannot be built: {cause}", shown(name)),
                "this is a bug of glasshead; please report it",
            )
        })
    }

    /// The numbers of a tensor of exactly this shape, row-major, as f32.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match &self.store {
            Store::Gguf(file, names) => {
                let origin = self.origin(names, name)?;
                let info = file.info(&origin.name).ok_or_else(|| self.missing(name))?;
                let found = origin.undo.shape(&info.shape);
                if found != shape {
                    return Err(misshapen(self.path(), name, shape, &found));
                }
                let undone = origin.undo.apply(file.values(info)?, &info.shape);
                undone.ok_or_else(|| file.uneven(&origin.name, &info.shape))
            }
            _ => {
                let (arrays, info) = self.array(name, shape)?;
                floats(info.dtype, arrays.raw(info)).ok_or_else(|| self.no_float(name, info.dtype))
            }
        }
    }

    /// A table `[rows, width]` of which single rows will be read: nothing is turned into f32 yet.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn table(&self, name: &str, [rows, width]: [usize; 2]) -> Result<Table> {
        let cells = match &self.store {
            Store::Gguf(file, names) => {
                let origin = self.origin(names, name)?;
                let info = file.info(&origin.name).ok_or_else(|| self.missing(name))?;
                if info.shape != [rows, width] {
                    return Err(misshapen(self.path(), name, &[rows, width], &info.shape));
                }
                if origin.undo == Undo::Nothing {
                    Cells::Packed(info.dtype, Arc::new(file.packed(info)?))
                } else {
                    return Err(self.no_table(name));
                }
            }
            _ => {
                let (arrays, info) = self.array(name, &[rows, width])?;
                if floats(info.dtype, &[]).is_none() {
                    return Err(self.no_float(name, info.dtype));
                }
                Cells::Arrays(Arc::clone(arrays), info.clone())
            }
        };
        Ok(Table { cells, rows, width })
    }

    fn array(&self, name: &str, shape: &[usize]) -> Result<(&Arc<Arrays>, &ArrayInfo)> {
        let found = match &self.store {
            Store::File(arrays) => arrays.info(name).map(|info| (arrays, info)),
            Store::Shards(shards) => shards.find(name),
            Store::Gguf(..) => None,
        };
        let (arrays, info) = found.ok_or_else(|| self.missing(name))?;
        if info.shape != shape {
            return Err(misshapen(arrays.path(), name, shape, &info.shape));
        }
        Ok((arrays, info))
    }

    fn origin<'a>(&self, names: &'a BTreeMap<String, Origin>, name: &str) -> Result<&'a Origin> {
        names.get(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        match &self.store {
            Store::File(arrays) => arrays.missing(name),
            Store::Shards(shards) => missing(self.path(), name, shards.names()),
            Store::Gguf(_, names) => missing(self.path(), name, names.keys().map(String::as_str)),
        }
    }

    fn no_float(&self, name: &str, dtype: Dtype) -> Error {
        Error::request(
            format!("array {} of {} has the dtype {dtype}", shown(name), self.path().display()),
            "weights are read as F32, F16, BF16 or F64; convert the checkpoint",
        )
    }

    fn no_table(&self, name: &str) -> Error {
        Error::request(
            format!("tensor {} of {} cannot be read row by row", shown(name), self.path().display()),
            "this is a bug of glasshead; please report it",
        )
    }
}

impl Store {
    fn hash(&self) -> Result<String> {
        match self {
            Self::File(arrays) => Ok(hex(Sha256::new_with_prefix(arrays.file().as_slice()))),
            Self::Shards(shards) => {
                let mut hash = Sha256::new();
                for file in shards.files() {
                    hash.update(file.file().as_slice());
                }
                Ok(hex(hash))
            }
            Self::Gguf(file, _) => file.hash(),
        }
    }
}

/// Little-endian floats of any width as f32, or `None` for another dtype.
fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => decode(bytes, f32::from_le_bytes),
        Dtype::F16 => decode(bytes, |chunk| f16::from_le_bytes(chunk).to_f32()),
        Dtype::BF16 => decode(bytes, |chunk| bf16::from_le_bytes(chunk).to_f32()),
        Dtype::F64 => decode(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        _ => return None,
    })
}

/// A table of which single rows are read: an embedding of 30,000 words for a sentence of ten.
#[derive(Clone, Debug)]
pub struct Table {
    cells: Cells,
    rows: usize,
    width: usize,
}

#[derive(Clone, Debug)]
enum Cells {
    /// In a safetensors file, which is kept as long as the table.
    Arrays(Arc<Arrays>, ArrayInfo),
    /// The stored bytes of this tensor alone.
    Packed(GgmlDType, Arc<Packed>),
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The numbers of one row; `None` past the end.
    pub fn row(&self, index: usize) -> Option<Vec<f32>> {
        let bytes = match &self.cells {
            Cells::Arrays(arrays, info) => arrays.raw(info),
            Cells::Packed(_, packed) => packed.bytes(),
        };
        let stride = bytes.len().checked_div(self.rows)?;
        let start = index.checked_mul(stride)?;
        let row = bytes.get(start..start.checked_add(stride)?)?;
        match &self.cells {
            Cells::Arrays(_, info) => floats(info.dtype, row),
            // A row is a whole number of blocks: the header's check saw to that.
            Cells::Packed(dtype, _) => dequantise(*dtype, row, self.width).filter(|_| index < self.rows),
        }
    }
}

/// The tensors whose names begin with a prefix, as in `weights.scope("encoder").pp("layer.0")`.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The scope one step further down.
    pub fn pp(&self, step: impl std::fmt::Display) -> Scope<'a> {
        Scope { weights: self.weights, prefix: self.name(&step.to_string()) }
    }

    /// The full name of a tensor of this scope.
    pub fn name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether the tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&self.name(name))
    }

    /// As [`Weights::tensor`].
    ///
    /// # Errors
    /// As there.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.tensor(&self.name(name), shape)
    }

    /// As [`Weights::values`].
    ///
    /// # Errors
    /// As there.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.values(&self.name(name), shape)
    }

    /// As [`Weights::table`].
    ///
    /// # Errors
    /// As there.
    pub fn table(&self, name: &str, shape: [usize; 2]) -> Result<Table> {
        self.weights.table(&self.name(name), shape)
    }
}
