//! Masks: an array in C order, borrowed where it holds floats.

use glasshead_attention::{Mask, MaskValues, f16};
use half::slice::HalfBitsSliceExt;
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::errors::{python, wrong_type};

/// A mask that the engine can borrow.
pub(crate) struct Borrowed<'py> {
    shape: Vec<usize>,
    values: Values<'py>,
}

enum Values<'py> {
    /// Copied: a byte that is neither 0 nor 1, or becomes so meanwhile, must never be read as a bool.
    Bool(Vec<bool>),
    F32(PyReadonlyArrayDyn<'py, f32>),
    F64(PyReadonlyArrayDyn<'py, f64>),
    F16(PyReadonlyArrayDyn<'py, f16>),
    /// bf16 as NumPy knows it.
    Bits(PyReadonlyArrayDyn<'py, u16>),
}

impl<'py> Borrowed<'py> {
    /// True and false come as uint8, bf16 as uint16.
    pub(crate) fn new(array: &Bound<'py, PyUntypedArray>) -> PyResult<Self> {
        let aligned = array.getattr("flags")?.getattr("aligned")?.is_truthy()?;
        if !array.is_c_contiguous() || !aligned {
            return Err(PyValueError::new_err(
                "mask: must lie in C order here\nhint: call glasshead.attention",
            ));
        }
        let shape = array.shape().to_vec();
        let values = if let Ok(array) = array.cast::<PyArrayDyn<u8>>() {
            Values::Bool(array.try_readonly()?.as_slice()?.iter().map(|byte| *byte != 0).collect())
        } else if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
            Values::F32(array.try_readonly()?)
        } else if let Ok(array) = array.cast::<PyArrayDyn<f64>>() {
            Values::F64(array.try_readonly()?)
        } else if let Ok(array) = array.cast::<PyArrayDyn<f16>>() {
            Values::F16(array.try_readonly()?)
        } else if let Ok(array) = array.cast::<PyArrayDyn<u16>>() {
            Values::Bits(array.try_readonly()?)
        } else {
            let hint = "give bool (True = may attend) or floats, which are added to the scores";
            return Err(wrong_type("mask", array.dtype().str()?, hint));
        };
        Ok(Self { shape, values })
    }

    /// The mask, broadcast as NumPy does it, but for its last axis.
    pub(crate) fn mask(&self) -> PyResult<Mask<'_>> {
        let values = match &self.values {
            Values::Bool(values) => MaskValues::Bool(values),
            Values::F32(array) => MaskValues::F32(array.as_slice()?),
            Values::F64(array) => MaskValues::F64(array.as_slice()?),
            Values::F16(array) => MaskValues::F16(array.as_slice()?),
            Values::Bits(array) => MaskValues::Bf16(array.as_slice()?.reinterpret_cast()),
        };
        Mask::new(values, &self.shape).map_err(python)
    }
}
