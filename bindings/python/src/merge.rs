//! Partial results as arrays, put together by the engine.

use glasshead_attention::{self as engine, Array, Attended, Part, Shape, Values, bf16, f16};
use numpy::{PyArray4, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};

use crate::{
    attend::{Answer, answer, array, axes, by_type},
    borrow::{Borrowed, Stored},
    errors::{python, wrong_type},
    read::Asked,
};

/// What was computed of the keys from the first number up to the second: the output, the readouts, and those of the
/// second pass.
type Given<'py> = (usize, usize, Bound<'py, PyUntypedArray>, Bound<'py, PyDict>, Option<Bound<'py, PyDict>>);

/// Attention over all keys from that over parts of them.
#[pyfunction]
#[pyo3(signature = (parts, *, read, sinks))]
pub(crate) fn merge<'py>(
    parts: Vec<Given<'py>>,
    read: Option<Asked>,
    sinks: Option<PyReadonlyArray1<'py, f32>>,
) -> PyResult<Answer<'py>> {
    let first = first(&parts)?.clone();
    by_type!(&first, merge_of(&parts, read, sinks.as_ref()))
}

/// The share that each part has of the weight of every query, [batch, heads, queries].
#[pyfunction]
#[pyo3(signature = (parts, *, sinks))]
pub(crate) fn shares<'py>(
    parts: Vec<Given<'py>>,
    sinks: Option<PyReadonlyArray1<'py, f32>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let first = first(&parts)?.clone();
    by_type!(&first, shares_of(&parts, sinks.as_ref()))
}

/// Whether parts are to be read a second time, with their shares.
#[pyfunction]
pub(crate) fn adds_up_queries(read: Asked, shape: (usize, usize, usize, usize)) -> PyResult<bool> {
    let (batch, heads, queries, keys) = shape;
    Ok(read.read(&Shape { batch, heads, queries, keys })?.adds_up_queries())
}

fn first<'a, 'py>(parts: &'a [Given<'py>]) -> PyResult<&'a Bound<'py, PyUntypedArray>> {
    let none = || PyValueError::new_err("there are no parts\nhint: give one for each piece of the keys");
    Ok(&parts.first().ok_or_else(none)?.2)
}

fn merge_of<'py, T: Stored>(
    parts: &[Given<'py>],
    read: Option<Asked>,
    sinks: Option<&PyReadonlyArray1<'py, f32>>,
) -> PyResult<Answer<'py>> {
    let out = &parts[0].2;
    let (py, &[batch, heads, queries, _]) = (out.py(), out.shape()) else { return Err(axes("out", out)) };
    let keys = parts.last().map_or(0, |part| part.1);
    let read = read
        .map_or_else(|| Ok(engine::Read::new()), |read| read.read(&Shape { batch, heads, queries, keys }))?;
    // Names are those of the engine; what parts have beside them is not merged.
    let names: Vec<_> =
        read.arrays(&Shape { batch, heads, queries, keys }).iter().map(|array| array.name).collect();
    let given = parts.iter().map(|part| {
        let seen = attended::<T>(&part.2, &part.3, &names)?;
        let summed = part.4.as_ref().map_or_else(|| Ok(Vec::new()), |summed| arrays(summed, &names))?;
        Ok((seen, summed))
    });
    let given = given.collect::<PyResult<Vec<(Attended<T>, Vec<Array>)>>>()?;
    let given: Vec<_> = given
        .iter()
        .zip(parts)
        .map(|((attended, summed), part)| Part { attended, summed, keys: part.0..part.1 })
        .collect();
    let sinks = sinks.map(|sinks| sinks.as_slice()).transpose()?;
    let merged = py.detach(|| engine::merge(&read, &given, sinks)).map_err(python)?;
    answer(py, merged)
}

fn shares_of<'py, T: Stored>(
    parts: &[Given<'py>],
    sinks: Option<&PyReadonlyArray1<'py, f32>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let py = parts[0].2.py();
    let seen = parts.iter().map(|part| attended::<T>(&part.2, &part.3, &[])).collect::<PyResult<Vec<_>>>()?;
    let sinks = sinks.map(|sinks| sinks.as_slice()).transpose()?;
    let shares = engine::shares(&seen.iter().collect::<Vec<_>>(), sinks).map_err(python)?;
    let shape = &seen[0].shape[..3];
    shares.into_iter().map(|shares| array(py, shares, shape)).collect()
}

/// A copy of what Python holds: the readouts of these names, in their order, and `lse`.
fn attended<T: Stored>(
    out: &Bound<'_, PyUntypedArray>,
    readouts: &Bound<'_, PyDict>,
    names: &[&'static str],
) -> PyResult<Attended<T>> {
    let Ok(out) = out.cast::<PyArray4<T::Numpy>>() else {
        return Err(wrong_type(
            "out",
            out.dtype().str()?,
            "all parts have the type and the axes of the first",
        ));
    };
    let out = Borrowed::<T>::new(out)?;
    let out = out.view()?;
    let shape @ [batch, heads, queries, _] = out.shape();
    let rows = (0..batch * heads * queries).map(|n| [n / queries / heads, n / queries % heads, n % queries]);
    let values = rows.flat_map(|[b, h, i]| out.vector(b, h, i).iter());
    let mut names = names.to_vec();
    if !names.contains(&"lse") {
        names.push("lse");
    }
    Ok(Attended { out: values.collect(), shape, readouts: arrays(readouts, &names)? })
}

/// Copies of the arrays of these names that are there, in their order.
fn arrays(readouts: &Bound<'_, PyDict>, names: &[&'static str]) -> PyResult<Vec<Array>> {
    let mut arrays = Vec::new();
    for &name in names {
        let Some(array) = readouts.get_item(name)? else { continue };
        let (shape, values) = if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
            (array.shape().to_vec(), Values::F32(array.try_readonly()?.as_array().iter().copied().collect()))
        } else if let Ok(array) = array.cast::<PyArrayDyn<i64>>() {
            (array.shape().to_vec(), Values::I64(array.try_readonly()?.as_array().iter().copied().collect()))
        } else {
            return Err(wrong_type(
                name,
                array.get_type().name()?,
                "give what glasshead.partial_attention has given",
            ));
        };
        arrays.push(Array { name, shape, values });
    }
    Ok(arrays)
}
