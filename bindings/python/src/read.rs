//! `glasshead.Read`, or a list as the command takes it, as the engine's list of readouts.

use glasshead_attention::{AttentionError, Read, Shape};
use pyo3::{exceptions::PyValueError, prelude::*};

use crate::errors::python;

/// What to read.
#[derive(FromPyObject)]
pub(crate) enum Asked {
    /// `entropy,top=8`
    List(String),
    /// The fields of `glasshead.Read`.
    Fields(Fields),
}

/// One per query, or `[batch, heads, queries]`.
#[derive(FromPyObject)]
pub(crate) enum QueryWeights {
    PerQuery(Vec<f32>),
    PerHead(Vec<Vec<Vec<f32>>>),
}

#[derive(FromPyObject)]
pub(crate) struct Fields {
    lse: bool,
    entropy: bool,
    max: bool,
    top: Option<usize>,
    top_by_value: Option<usize>,
    received: bool,
    received_by_value: bool,
    received_weighted: Option<QueryWeights>,
    rows: Option<Vec<i64>>,
    rows_by_value: Option<Vec<i64>>,
    segments: Option<Vec<usize>>,
    blocks: Option<usize>,
    distance: bool,
    first: bool,
    previous: bool,
    self_weight: bool,
    induction: Option<Vec<u32>>,
}

impl Asked {
    /// The readouts, in the order of the fields.
    pub(crate) fn read(self, shape: &Shape) -> PyResult<Read> {
        match self {
            Self::List(list) => Read::parse(&list, shape).map_err(python),
            Self::Fields(fields) => fields.read(shape),
        }
    }
}

impl Fields {
    fn read(self, shape: &Shape) -> PyResult<Read> {
        let mut read = Read::new();
        let mut when = |asked: bool, add: fn(Read) -> Read| {
            if asked {
                read = add(std::mem::take(&mut read));
            }
        };
        when(self.lse, Read::lse);
        when(self.entropy, Read::entropy);
        when(self.max, Read::max_weight);
        when(self.distance, Read::distance);
        when(self.first, Read::first);
        when(self.previous, Read::previous);
        when(self.self_weight, Read::self_weight);
        when(self.received, Read::received);
        when(self.received_by_value, Read::received_by_value);
        // Said here, because the engine would name the readout with all its numbers.
        let counted = |item: &str, what: &str, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => {
                let problem = format!("has {found} {what}, not {expected}");
                Err(python(AttentionError::Readout { item: item.into(), problem }))
            }
        };
        if let Some(weights) = self.received_weighted {
            let Shape { batch, heads, queries, .. } = *shape;
            let weights = match weights {
                QueryWeights::PerQuery(weights) => {
                    counted("received_weighted", "weights, one per query", weights.len(), queries)?;
                    weights
                }
                QueryWeights::PerHead(weights) => {
                    counted("received_weighted", "batch elements", weights.len(), batch)?;
                    for own in &weights {
                        counted("received_weighted", "heads", own.len(), heads)?;
                    }
                    for own in weights.iter().flatten() {
                        counted("received_weighted", "weights, one per query", own.len(), queries)?;
                    }
                    weights.into_iter().flatten().flatten().collect()
                }
            };
            read = read.received_weighted(&weights);
        }
        if let Some(k) = self.top {
            read = read.top_k(k);
        }
        if let Some(k) = self.top_by_value {
            read = read.top_k_by_value(k);
        }
        if let Some(rows) = self.rows {
            read = read.rows(&rows_from_the_end(&rows, shape.queries)?);
        }
        if let Some(rows) = self.rows_by_value {
            read = read.rows_by_value(&rows_from_the_end(&rows, shape.queries)?);
        }
        if let Some(ends) = self.segments {
            read = read.segments(&ends);
        }
        if let Some(size) = self.blocks {
            read = read.blocks(size);
        }
        if let Some(ids) = self.induction {
            counted("induction", "token ids, one per key", ids.len(), shape.keys)?;
            read = read.induction(&ids);
        }
        Ok(read)
    }
}

/// Rows as Python counts them: −1 is the last one.
fn rows_from_the_end(rows: &[i64], queries: usize) -> PyResult<Vec<usize>> {
    let row = |&row: &i64| {
        let at = if row < 0 { row.checked_add_unsigned(queries as u64)? } else { row };
        usize::try_from(at).ok().filter(|at| *at < queries)
    };
    let wrong = |row| {
        PyValueError::new_err(format!(
            "Read.rows has {row} and there are {queries} queries\nhint: the first is 0, the last −1"
        ))
    };
    rows.iter().map(|at| row(at).ok_or_else(|| wrong(at))).collect()
}
