//! Errors of the engine as Python exceptions: one sentence, then `hint:` and what to do.

use glasshead_attention::AttentionError;
use pyo3::{
    PyErr,
    exceptions::{PyRuntimeError, PyTypeError, PyValueError},
};

/// The exception for an error of the engine.
pub(crate) fn python(error: AttentionError) -> PyErr {
    let hint = match &error {
        AttentionError::MissingInstructionSet { .. } | AttentionError::UnknownInstructionSet(_) => {
            return PyRuntimeError::new_err(format!(
                "{error}\nhint: leave GLASSHEAD_ISA out to use the best one"
            ));
        }
        AttentionError::Readout { .. } => "help(glasshead.Read) lists what can be read",
        AttentionError::Shape { what: "mask", .. } => {
            "every axis of a mask is as long as that of the scores, [batch, heads, queries, keys], or 1"
        }
        AttentionError::Shape { what: "sinks" | "alibi_slopes", .. } => "give one number per head of q",
        AttentionError::Shape { what: "kv_lengths", .. }
        | AttentionError::Value { option: "kv_lengths", .. } => {
            "lengths says for each batch element how many of its keys are real"
        }
        AttentionError::Shape { what: "out", .. } => "give fewer heads or queries at a time",
        AttentionError::Value { option: "merge" | "part" | "shares", .. } => {
            "help(glasshead.partial_attention) says how parts of the keys become one"
        }
        AttentionError::Value { .. } => "leave the option out for the usual value",
        _ => {
            "shapes are q [batch, heads, queries, dim], k [batch, kv_heads, keys, dim], v [batch, kv_heads, keys, value_dim]"
        }
    };
    PyValueError::new_err(format!("{error}\nhint: {hint}"))
}

/// An argument of a type that has no meaning here.
pub(crate) fn wrong_type(what: &str, found: impl std::fmt::Display, hint: &str) -> PyErr {
    PyTypeError::new_err(format!("{what} is {found}\nhint: {hint}"))
}
