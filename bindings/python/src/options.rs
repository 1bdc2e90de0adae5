//! What is said beside the arrays.

use glasshead_attention::{Attention, Causal, Element, TensorView, Window};
use numpy::{PyReadonlyArray1, PyUntypedArray};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyBool,
};

use crate::mask;

/// Everything but arrays `[batch, heads, tokens, dim]` and readouts.
pub(crate) struct Options<'py> {
    pub(crate) mask: Option<Bound<'py, PyUntypedArray>>,
    pub(crate) causal: Bound<'py, PyAny>,
    pub(crate) window: Option<(Option<i64>, Option<i64>)>,
    pub(crate) scale: Option<f64>,
    pub(crate) softcap: f64,
    pub(crate) sinks: Option<PyReadonlyArray1<'py, f32>>,
    pub(crate) alibi_slopes: Option<PyReadonlyArray1<'py, f32>>,
    pub(crate) lengths: Option<PyReadonlyArray1<'py, i64>>,
}

impl<'py> Options<'py> {
    /// The mask as the engine borrows it.
    pub(crate) fn mask(&self) -> PyResult<Option<mask::Borrowed<'py>>> {
        self.mask.as_ref().map(mask::Borrowed::new).transpose()
    }

    /// The request of q, k and v, of a sequence of `keys` keys.
    pub(crate) fn request<'a, T: Element>(
        &'a self,
        [q, k, v]: [TensorView<'a, T>; 3],
        mask: Option<&'a mask::Borrowed<'py>>,
        keys: usize,
    ) -> PyResult<Attention<'a, T>> {
        let mut request = Attention::new(q, k, v).softcap(self.softcap);
        if let Some(causal) = causal(&self.causal, q.shape()[2], keys)? {
            request = request.causal(causal);
        }
        if let Some(keys) = self.window {
            request = request.window(window(keys)?);
        }
        if let Some(scale) = self.scale {
            request = request.scale(scale);
        }
        if let Some(mask) = mask {
            request = request.mask(mask.mask()?);
        }
        if let Some(sinks) = &self.sinks {
            request = request.sinks(sinks.as_slice()?);
        }
        if let Some(slopes) = &self.alibi_slopes {
            request = request.alibi_slopes(slopes.as_slice()?);
        }
        if let Some(lengths) = &self.lengths {
            request = request.kv_lengths(lengths.as_slice()?);
        }
        Ok(request)
    }
}

/// False, "top-left", "bottom-right" or an offset; True where both forms are the same.
fn causal(asked: &Bound<'_, PyAny>, queries: usize, keys: usize) -> PyResult<Option<Causal>> {
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
fn window((left, right): (Option<i64>, Option<i64>)) -> PyResult<Window> {
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
