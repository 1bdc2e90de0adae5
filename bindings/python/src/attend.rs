//! Requests: arrays and options in, the GIL released while they are computed, arrays out.

use glasshead_attention::{Array, Attended, Gradients, Shape, TensorView, Values as ReadValues, bf16, f16};
use numpy::{
    PyArray4, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray3, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{
    borrow::{Borrowed, Stored, filled},
    errors::{python, wrong_type},
    options::Options,
    read::Asked,
    threads,
};

/// The output, and the readouts by name.
pub(crate) type Answer<'py> = (Bound<'py, PyAny>, Bound<'py, PyDict>);
/// Those of q, k and v, and of the sinks where there are any.
type Derived<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, Option<Bound<'py, PyAny>>);

/// Calls a function of one of the four types: that of `$q`, the first array.
macro_rules! by_type {
    ($q:expr, $call:ident($($arg:expr),*)) => {{
        let q: &Bound<'_, PyUntypedArray> = $q;
        if q.cast::<PyArray4<f32>>().is_ok() {
            $call::<f32>($($arg),*)
        } else if q.cast::<PyArray4<f64>>().is_ok() {
            $call::<f64>($($arg),*)
        } else if q.cast::<PyArray4<f16>>().is_ok() {
            $call::<f16>($($arg),*)
        } else if q.cast::<PyArray4<u16>>().is_ok() {
            $call::<bf16>($($arg),*)
        } else if q.ndim() != 4 {
            Err(axes("q", q))
        } else {
            Err(wrong_type("q", q.dtype().str()?, "q, k and v are all float32, float64, float16 or bfloat16"))
        }
    }};
}

pub(crate) use by_type;

/// Attention over arrays [batch, heads, tokens, dim] of float32, float64, float16, or uint16 for bfloat16; k and v are
/// all keys or, with `part`, those from its first number on, of its second number of keys.
#[pyfunction]
#[pyo3(signature = (q, k, v, *, mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths, read, part=None, shares=None))]
#[allow(clippy::too_many_arguments)] // The keywords of a Python function.
pub(crate) fn attention<'py>(
    q: Bound<'py, PyUntypedArray>,
    k: Bound<'py, PyUntypedArray>,
    v: Bound<'py, PyUntypedArray>,
    mask: Option<Bound<'py, PyUntypedArray>>,
    causal: Bound<'py, PyAny>,
    window: Option<(Option<i64>, Option<i64>)>,
    scale: Option<f64>,
    softcap: f64,
    sinks: Option<PyReadonlyArray1<'py, f32>>,
    alibi_slopes: Option<PyReadonlyArray1<'py, f32>>,
    lengths: Option<PyReadonlyArray1<'py, i64>>,
    read: Option<Asked>,
    part: Option<(usize, usize)>,
    shares: Option<PyReadonlyArray3<'py, f32>>,
) -> PyResult<Answer<'py>> {
    let arrays = [("q", q), ("k", k), ("v", v)];
    let options = Options { mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths };
    by_type!(&arrays[0].1, attend(&arrays, &options, read, part, shares.as_ref()))
}

/// Gradients of what [`attention`] with the same arrays and options has given, for the gradient of its output.
#[pyfunction]
#[pyo3(signature = (q, k, v, out, grad_out, lse, *, mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths))]
#[allow(clippy::too_many_arguments)] // The keywords of a Python function.
pub(crate) fn backward<'py>(
    q: Bound<'py, PyUntypedArray>,
    k: Bound<'py, PyUntypedArray>,
    v: Bound<'py, PyUntypedArray>,
    out: Bound<'py, PyUntypedArray>,
    grad_out: Bound<'py, PyUntypedArray>,
    lse: Option<PyReadonlyArray3<'py, f32>>,
    mask: Option<Bound<'py, PyUntypedArray>>,
    causal: Bound<'py, PyAny>,
    window: Option<(Option<i64>, Option<i64>)>,
    scale: Option<f64>,
    softcap: f64,
    sinks: Option<PyReadonlyArray1<'py, f32>>,
    alibi_slopes: Option<PyReadonlyArray1<'py, f32>>,
    lengths: Option<PyReadonlyArray1<'py, i64>>,
) -> PyResult<Derived<'py>> {
    let arrays = [("q", q), ("k", k), ("v", v), ("out", out), ("grad_out", grad_out)];
    let options = Options { mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths };
    by_type!(&arrays[0].1, differentiate(&arrays, &options, lse.as_ref()))
}

pub(crate) fn axes(name: &str, array: &Bound<'_, PyUntypedArray>) -> PyErr {
    PyValueError::new_err(format!(
        "{name} has the shape {:?}\nhint: {name} has four axes, [batch, heads, tokens, dim]; x[None] adds one in front",
        array.shape()
    ))
}

/// The arrays where they lie. They are all of the type `T`, which is that of the first.
fn borrow<'py, T: Stored>(arrays: &[(&str, Bound<'py, PyUntypedArray>)]) -> PyResult<Vec<Borrowed<'py, T>>> {
    let q_dtype = arrays[0].1.dtype();
    let borrowed = arrays.iter().map(|(name, array)| match array.cast::<PyArray4<T::Numpy>>() {
        Ok(array) => Borrowed::<T>::new(array),
        Err(_) if array.ndim() != 4 => Err(axes(name, array)),
        Err(_) => {
            let found = format!("{} and q is {}", array.dtype().str()?, q_dtype.str()?);
            Err(wrong_type(name, found, "q, k and v have one dtype"))
        }
    });
    borrowed.collect()
}

fn views<'a, const N: usize, T: Stored>(borrowed: &'a [Borrowed<'_, T>]) -> PyResult<[TensorView<'a, T>; N]> {
    let views = borrowed.iter().map(Borrowed::view).collect::<PyResult<Vec<_>>>()?;
    views.try_into().map_err(|_| PyValueError::new_err("another number of arrays"))
}

fn attend<'py, T: Stored>(
    arrays: &[(&str, Bound<'py, PyUntypedArray>); 3],
    options: &Options<'py>,
    read: Option<Asked>,
    part: Option<(usize, usize)>,
    shares: Option<&PyReadonlyArray3<'py, f32>>,
) -> PyResult<Answer<'py>> {
    let py = arrays[0].1.py();
    let borrowed = borrow::<T>(arrays)?;
    let qkv @ [q, k, _] = views(&borrowed)?;
    let [batch, heads, queries, _] = q.shape();
    let shape = Shape { batch, heads, queries, keys: part.map_or(k.shape()[2], |(_, keys)| keys) };
    let mask = options.mask()?;
    let mut request = options.request(qkv, mask.as_ref(), shape.keys)?;
    if let Some((first_key, keys)) = part {
        request = request.part(first_key, keys);
    }
    if let Some(shares) = shares {
        request = request.shares(shares.as_slice()?);
    }
    if let Some(read) = read {
        request = request.read(read.read(&shape)?);
    }
    let (out, readouts) = filled(py, request.out_shape().map_err(python)?, |out| {
        threads::compute(py, || request.run_into(out))?.map_err(python)
    })?;
    Ok((out.into_any(), by_name(py, readouts)?))
}

/// The output and the readouts as arrays.
pub(crate) fn answer<T: Stored>(py: Python<'_>, seen: Attended<T>) -> PyResult<Answer<'_>> {
    Ok((array(py, T::bits(seen.out), &seen.shape)?, by_name(py, seen.readouts)?))
}

fn by_name(py: Python<'_>, arrays: Vec<Array>) -> PyResult<Bound<'_, PyDict>> {
    let readouts = PyDict::new(py);
    for Array { name, shape, values } in arrays {
        match values {
            ReadValues::F32(values) => readouts.set_item(name, array(py, values, &shape)?)?,
            ReadValues::I64(values) => readouts.set_item(name, array(py, values, &shape)?)?,
        }
    }
    Ok(readouts)
}

fn differentiate<'py, T: Stored>(
    arrays: &[(&str, Bound<'py, PyUntypedArray>); 5],
    options: &Options<'py>,
    lse: Option<&PyReadonlyArray3<'py, f32>>,
) -> PyResult<Derived<'py>> {
    let py = arrays[0].1.py();
    let borrowed = borrow::<T>(arrays)?;
    let [q, k, v, out, grad_out] = views(&borrowed)?;
    let mask = options.mask()?;
    let request = options.request([q, k, v], mask.as_ref(), k.shape()[2])?;
    let lse = lse.map(|lse| lse.as_slice()).transpose()?;
    let gradients = threads::compute(py, || request.backward(out, lse, grad_out))?.map_err(python)?;
    let Gradients { q: gq, k: gk, v: gv, sinks } = gradients;
    let sinks = sinks.map(|sinks| numpy::PyArray1::from_vec(py, sinks).into_any());
    Ok((
        array(py, T::bits(gq), &q.shape())?,
        array(py, T::bits(gk), &k.shape())?,
        array(py, T::bits(gv), &v.shape())?,
        sinks,
    ))
}

/// An array that owns these numbers.
pub(crate) fn array<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(numpy::PyArray1::from_vec(py, values).reshape(shape)?.into_any())
}
