//! A checkpoint as a model sees it: matrices with names, wanted in a certain shape.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use candle_core::{Device, Tensor};
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::arrays::{ArrayInfo, Arrays, decode, read_safetensors};
use super::cache::confirm;
use super::files::hex;
use super::header::{Dtype, shown};
use crate::{Error, Result};

/// A `model.safetensors`, open.
#[derive(Debug)]
pub struct Weights {
    arrays: Arc<Arrays>,
    hash: Mutex<Hash>,
}

#[derive(Debug)]
enum Hash {
    /// A second thread is at it: hashing takes longer than building the layers.
    Running(JoinHandle<String>),
    Done(String),
}

impl Weights {
    /// Reads and validates a checkpoint.
    ///
    /// # Errors
    /// As [`read_safetensors`].
    pub fn open(path: &Path) -> Result<Self> {
        let arrays = Arc::new(read_safetensors(path)?);
        let file = Arc::clone(arrays.file());
        let hash = Hash::Running(thread::spawn(move || hash_of(&file)));
        Ok(Self { arrays, hash: Mutex::new(hash) })
    }

    /// The file these come from.
    pub fn path(&self) -> &Path {
        self.arrays.path()
    }

    /// The SHA-256 of the whole file, 64 hexadecimal digits.
    ///
    /// # Errors
    /// The file belongs to a model of the catalogue and is not the pinned one; it is removed.
    pub fn sha256(&self) -> Result<String> {
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        let digits = match std::mem::replace(&mut *hash, Hash::Done(String::new())) {
            Hash::Running(thread) => thread.join().unwrap_or_else(|_| hash_of(self.arrays.file())),
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
        self.arrays.info(name).is_some()
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
        let info = self.info(name, shape)?;
        floats(info.dtype, self.arrays.raw(info)).ok_or_else(|| self.no_float(name, info.dtype))
    }

    /// A table `[rows, width]` of which single rows will be read: nothing is copied yet.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn table(&self, name: &str, [rows, width]: [usize; 2]) -> Result<Table> {
        let info = self.info(name, &[rows, width])?.clone();
        if floats(info.dtype, &[]).is_none() {
            return Err(self.no_float(name, info.dtype));
        }
        Ok(Table { arrays: Arc::clone(&self.arrays), info, rows })
    }

    fn info(&self, name: &str, shape: &[usize]) -> Result<&ArrayInfo> {
        let info = self.arrays.info(name).ok_or_else(|| self.arrays.missing(name))?;
        if info.shape != shape {
            return Err(self.arrays.misshapen(name, shape, &info.shape));
        }
        Ok(info)
    }

    fn no_float(&self, name: &str, dtype: Dtype) -> Error {
        Error::request(
            format!("array {} of {} has the dtype {dtype}", shown(name), self.path().display()),
            "weights are read as F32, F16, BF16 or F64; convert the checkpoint",
        )
    }
}

fn hash_of(file: &[u8]) -> String {
    hex(Sha256::new_with_prefix(file))
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
    arrays: Arc<Arrays>,
    info: ArrayInfo,
    rows: usize,
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The numbers of one row; `None` past the end.
    pub fn row(&self, index: usize) -> Option<Vec<f32>> {
        let bytes = self.arrays.raw(&self.info);
        let stride = bytes.len().checked_div(self.rows)?;
        let start = index.checked_mul(stride)?;
        floats(self.info.dtype, bytes.get(start..start.checked_add(stride)?)?)
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
