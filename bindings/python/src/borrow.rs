//! The memory of a NumPy array as a view of the engine, where it lies. The only unsafe code of the bindings.

use std::convert::identity;

use glasshead_attention::{Element, TensorView};
use numpy::{PyArray4, PyArrayMethods, PyReadonlyArray4, PyUntypedArrayMethods};
use pyo3::{prelude::*, sync::PyOnceLock};

use crate::errors::python;

/// An array `[batch, heads, tokens, dim]` that stays what it is as long as this is held.
///
/// The reference keeps the array, which keeps what its memory belongs to: NumPy does not resize an array that
/// somebody refers to, torch not the storage of a tensor that it has lent to NumPy. What is left to the caller is
/// not to write into an array while it is computed with; who does gets some mixture of old and new numbers.
pub(crate) struct Borrowed<'py, T: Stored>(PyReadonlyArray4<'py, T::Numpy>);

/// The four types of q, k and v, and what NumPy calls them: it has no bf16, so its bits come as uint16.
pub(crate) trait Stored: Element {
    type Numpy: numpy::Element + Copy;
    /// The numbers as NumPy knows them, nothing copied.
    fn bits(values: Vec<Self>) -> Vec<Self::Numpy>;
    /// NumPy's numbers as those of the engine.
    fn of_bits(values: &mut [Self::Numpy]) -> &mut [Self];
}

/// An array that `fill` writes all of, made by NumPy, which does not put zeros into it before.
///
/// # Errors
/// Those of `fill`.
pub(crate) fn filled<'py, T: Stored, R>(
    py: Python<'py>,
    shape: [usize; 4],
    fill: impl FnOnce(&mut [T]) -> PyResult<R>,
) -> PyResult<(Bound<'py, PyArray4<T::Numpy>>, R)> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let empty = EMPTY.import(py, "numpy", "empty")?;
    let array = empty.call1((shape, numpy::dtype::<T::Numpy>(py)))?.cast_into::<PyArray4<T::Numpy>>()?;
    let answer = fill(T::of_bits(array.try_readwrite()?.as_slice_mut()?))?;
    Ok((array, answer))
}

impl<'py, T: Stored> Borrowed<'py, T> {
    /// The array itself where the engine can walk over it, else a copy: strides that are negative or no multiple
    /// of a number, or numbers that are not aligned.
    pub(crate) fn new(array: &Bound<'py, PyArray4<T::Numpy>>) -> PyResult<Self> {
        if strides::<T>(array).is_some() && array.data().is_aligned() {
            return Ok(Self(array.try_readonly().map_err(PyErr::from)?));
        }
        let copy = array.call_method1("copy", ("C",))?.cast_into::<PyArray4<T::Numpy>>()?;
        Ok(Self(copy.try_readonly().map_err(PyErr::from)?))
    }

    /// The view.
    ///
    /// # Errors
    /// An array whose size overflows.
    pub(crate) fn view(&self) -> PyResult<TensorView<'_, T>> {
        let shape: [usize; 4] = shape::<T>(&self.0);
        let strides = strides::<T>(&self.0).unwrap_or_default();
        let reach = shape.iter().zip(strides).try_fold(1usize, |reach, (len, stride)| {
            reach.checked_add(len.saturating_sub(1).checked_mul(stride)?)
        });
        let data: &[T] = match reach {
            Some(reach) if !shape.contains(&0) => {
                const { assert!(size_of::<T>() == size_of::<T::Numpy>()) };
                const { assert!(align_of::<T>() == align_of::<T::Numpy>()) };
                // SAFETY:
                // - `new` has seen that the pointer is aligned and the strides are whole and not negative, so the
                //   first number has the lowest address, and the last one, `reach − 1` numbers on, the highest;
                // - both are numbers of the array, so all between them lies in the one piece of memory that NumPy
                //   holds, is initialised, and whatever its bits are, they are a number: `T` is f32, f64, f16 or bf16;
                // - the array is kept alive and unresized by `self`, which the slice borrows, and Rust writes into
                //   no array.
                unsafe { std::slice::from_raw_parts(self.0.data().cast::<T>(), reach) }
            }
            _ => &[],
        };
        TensorView::new(data, shape, strides).map_err(python)
    }
}

fn shape<T: Stored>(array: &Bound<'_, PyArray4<T::Numpy>>) -> [usize; 4] {
    std::array::from_fn(|axis| array.shape()[axis])
}

/// Strides in numbers, `None` where they are negative or between numbers. An axis of one has the stride 0.
fn strides<T: Stored>(array: &Bound<'_, PyArray4<T::Numpy>>) -> Option<[usize; 4]> {
    let mut strides = [0; 4];
    for (axis, stride) in strides.iter_mut().enumerate() {
        if array.shape()[axis] > 1 {
            let bytes = usize::try_from(array.strides()[axis]).ok()?;
            *stride = (bytes % size_of::<T>() == 0).then_some(bytes / size_of::<T>())?;
        }
    }
    Some(strides)
}

macro_rules! stored {
    ($($type:ty as $numpy:ty: $bits:expr, $of_bits:expr;)*) => {$(
        impl Stored for $type {
            type Numpy = $numpy;
            fn bits(values: Vec<Self>) -> Vec<$numpy> {
                $bits(values)
            }
            fn of_bits(values: &mut [$numpy]) -> &mut [Self] {
                $of_bits(values)
            }
        }
    )*};
}
stored! {
    f32 as f32: identity, identity;
    f64 as f64: identity, identity;
    half::f16 as half::f16: identity, identity;
    half::bf16 as u16: half::vec::HalfFloatVecExt::reinterpret_into, half::slice::HalfBitsSliceExt::reinterpret_cast_mut;
}
