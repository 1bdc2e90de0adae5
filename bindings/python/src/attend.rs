//! One request: arrays and options in, the GIL released while it is computed, arrays out.

use glasshead_attention::{Array, Attention, Shape, Values as ReadValues, bf16, f16};
use numpy::{PyArray4, PyArrayMethods, PyReadonlyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{
    borrow::{Borrowed, Stored},
    errors::{python, wrong_type},
    mask, options,
    read::Asked,
    threads,
};

/// Everything but q, k and v.
struct Options<'py> {
    mask: Option<Bound<'py, PyUntypedArray>>,
    causal: Bound<'py, PyAny>,
    window: Option<(Option<i64>, Option<i64>)>,
    scale: Option<f64>,
    softcap: f64,
    sinks: Option<PyReadonlyArray1<'py, f32>>,
    alibi_slopes: Option<PyReadonlyArray1<'py, f32>>,
    lengths: Option<PyReadonlyArray1<'py, i64>>,
    read: Option<Asked>,
}

/// The output, and the readouts by name.
type Answer<'py> = (Bound<'py, PyAny>, Bound<'py, PyDict>);

/// Attention over arrays [batch, heads, tokens, dim] of float32, float64, float16, or uint16 for bfloat16.
#[pyfunction]
#[pyo3(signature = (q, k, v, *, mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths, read))]
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
) -> PyResult<Answer<'py>> {
    let arrays = [("q", q), ("k", k), ("v", v)];
    let options = Options { mask, causal, window, scale, softcap, sinks, alibi_slopes, lengths, read };
    let (_, q) = &arrays[0];
    if q.cast::<PyArray4<f32>>().is_ok() {
        attend::<f32>(&arrays, options)
    } else if q.cast::<PyArray4<f64>>().is_ok() {
        attend::<f64>(&arrays, options)
    } else if q.cast::<PyArray4<f16>>().is_ok() {
        attend::<f16>(&arrays, options)
    } else if q.cast::<PyArray4<u16>>().is_ok() {
        attend::<bf16>(&arrays, options)
    } else if q.ndim() != 4 {
        Err(axes("q", q))
    } else {
        Err(wrong_type("q", q.dtype().str()?, "q, k and v are all float32, float64, float16 or bfloat16"))
    }
}

fn axes(name: &str, array: &Bound<'_, PyUntypedArray>) -> PyErr {
    PyValueError::new_err(format!(
        "{name} has the shape {:?}\nhint: {name} has four axes, [batch, heads, tokens, dim]; x[None] adds one in front",
        array.shape()
    ))
}

fn attend<'py, T: Stored>(
    arrays: &[(&str, Bound<'py, PyUntypedArray>); 3],
    options: Options<'py>,
) -> PyResult<Answer<'py>> {
    let py = arrays[0].1.py();
    let q_dtype = arrays[0].1.dtype();
    let borrowed = arrays.each_ref().map(|(name, array)| match array.cast::<PyArray4<T::Numpy>>() {
        Ok(array) => Borrowed::<T>::new(array),
        Err(_) if array.ndim() != 4 => Err(axes(name, array)),
        Err(_) => {
            let found = format!("{} and q is {}", array.dtype().str()?, q_dtype.str()?);
            Err(wrong_type(name, found, "q, k and v have one dtype"))
        }
    });
    let [q, k, v] = borrowed;
    let (q, k, v) = (q?, k?, v?);
    let (q, k, v) = (q.view()?, k.view()?, v.view()?);
    let [batch, heads, queries, _] = q.shape();
    let shape = Shape { batch, heads, queries, keys: k.shape()[2] };

    let mask = options.mask.as_ref().map(mask::Borrowed::new).transpose()?;
    let mut request = Attention::new(q, k, v).softcap(options.softcap);
    if let Some(causal) = options::causal(&options.causal, queries, shape.keys)? {
        request = request.causal(causal);
    }
    if let Some(window) = options.window {
        request = request.window(options::window(window)?);
    }
    if let Some(scale) = options.scale {
        request = request.scale(scale);
    }
    if let Some(mask) = &mask {
        request = request.mask(mask.mask()?);
    }
    if let Some(sinks) = &options.sinks {
        request = request.sinks(sinks.as_slice()?);
    }
    if let Some(slopes) = &options.alibi_slopes {
        request = request.alibi_slopes(slopes.as_slice()?);
    }
    if let Some(lengths) = &options.lengths {
        request = request.kv_lengths(lengths.as_slice()?);
    }
    if let Some(read) = options.read {
        request = request.read(read.read(&shape)?);
    }
    let pool = threads::pool(py)?;
    let seen = py.detach(|| pool.install(|| request.run())).map_err(python)?;

    let readouts = PyDict::new(py);
    for Array { name, shape, values } in seen.readouts {
        match values {
            ReadValues::F32(values) => readouts.set_item(name, array(py, values, &shape)?)?,
            ReadValues::I64(values) => readouts.set_item(name, array(py, values, &shape)?)?,
        }
    }
    Ok((array(py, T::bits(seen.out), &seen.shape)?, readouts))
}

/// An array that owns these numbers.
fn array<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyAny>> {
    Ok(numpy::PyArray1::from_vec(py, values).reshape(shape)?.into_any())
}
