//! What is said beside the arrays.

use glasshead_attention::{Causal, Window};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyBool,
};

/// False, "top-left", "bottom-right" or an offset; True where both forms are the same.
pub(crate) fn causal(asked: &Bound<'_, PyAny>, queries: usize, keys: usize) -> PyResult<Option<Causal>> {
    let forms = "hint: say \"bottom-right\" (the last query sees the last key, as with a KV cache), \"top-left\" (the first query sees the first key, as torch has it), or an offset";
    if let Ok(asked) = asked.cast::<PyBool>() {
        return match asked.is_true() {
            false => Ok(None),
            true if queries == keys => Ok(Some(Causal::TopLeft)),
            true => Err(PyValueError::new_err(format!(
                "causal=True can be meant in two ways with {queries} queries and {keys} keys\n{forms}"
            ))),
        };
    }
    if let Ok(offset) = asked.extract::<i64>() {
        return Ok(Some(Causal::Offset(offset)));
    }
    match asked.extract::<String>().as_deref() {
        Ok("top-left") => Ok(Some(Causal::TopLeft)),
        Ok("bottom-right") => Ok(Some(Causal::BottomRight)),
        Ok(other) => Err(PyValueError::new_err(format!("causal is {other:?}\n{forms}"))),
        Err(_) => Err(PyTypeError::new_err(format!("causal is {}\n{forms}", asked.get_type().name()?))),
    }
}

/// (left, right), where None or −1 leaves a side open.
pub(crate) fn window((left, right): (Option<i64>, Option<i64>)) -> PyResult<Window> {
    let side = |keys: Option<i64>| match keys {
        None | Some(-1) => Ok(None),
        Some(keys) => u64::try_from(keys).map(Some).map_err(|_| {
            PyValueError::new_err(format!(
                "window has {keys}\nhint: how many keys are seen on that side; None leaves it open"
            ))
        }),
    };
    Ok(Window { left: side(left)?, right: side(right)? })
}
