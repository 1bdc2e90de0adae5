//! Every way a request can be wrong. Nothing else in this crate can fail.

use crate::isa::InstructionSet;

/// A request that cannot be answered; the text says which array or option is at fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// The strides reach past the end of the slice, or their product does not fit into memory.
    #[error("{array}: shape {shape:?} with strides {strides:?} needs {needed} values, the slice has {found}")]
    OutOfSlice {
        /// `q`, `k`, `v` or `mask`.
        array: &'static str,
        /// `[batch, heads, tokens, dim]`
        shape: [usize; 4],
        /// Strides of the four axes, in values.
        strides: [usize; 4],
        /// How many values the slice must have (`usize::MAX` where the product overflows).
        needed: usize,
        /// How many it has.
        found: usize,
    },
    /// Two arrays do not fit together.
    #[error("{what}: {found:?} does not fit, expected {expected}")]
    Shape {
        /// What has the wrong shape.
        what: &'static str,
        /// The shape as given.
        found: Vec<usize>,
        /// What was expected, in words.
        expected: String,
    },
    /// A number that has no meaning here.
    #[error("{option} {value} {problem}")]
    Value {
        /// The option by its name.
        option: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The instruction set was asked for by name and this CPU does not have it.
    #[error("this CPU has no {}; it has {}", .asked.name(), InstructionSet::names_here())]
    MissingInstructionSet {
        /// The set that was asked for.
        asked: InstructionSet,
    },
    /// No instruction set has this name.
    #[error("no instruction set is called {0:?}; there are scalar, avx2 and avx512")]
    UnknownInstructionSet(String),
    /// A readout list that cannot be read.
    #[error("readout {item:?}: {problem}")]
    Readout {
        /// The item of the list.
        item: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl AttentionError {
    pub(crate) fn value(option: &'static str, value: impl ToString, problem: impl Into<String>) -> Self {
        Self::Value { option, value: value.to_string(), problem: problem.into() }
    }

    pub(crate) fn shape(what: &'static str, found: &[usize], expected: impl Into<String>) -> Self {
        Self::Shape { what, found: found.to_vec(), expected: expected.into() }
    }
}
