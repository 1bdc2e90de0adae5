//! A small table of numbers, row by row.

use serde::{Serialize, Serializer, ser::SerializeSeq};

/// `[rows, columns]` numbers, one row after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// A matrix without rows.
    pub fn new(columns: usize) -> Self {
        Self { columns, values: Vec::new() }
    }

    /// One more row at the end.
    ///
    /// # Panics
    /// When the row has not as many numbers as the matrix has columns.
    pub fn push(&mut self, row: impl IntoIterator<Item = f64>) {
        self.values.extend(row);
        assert!(self.values.len().is_multiple_of(self.columns.max(1)), "a row of {} numbers", self.columns);
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Numbers per row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// One row.
    ///
    /// # Panics
    /// When there are not so many rows.
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        (0..self.rows()).map(|row| self.row(row))
    }

    /// All numbers, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The mean of some rows, all zeros for none.
    pub fn mean(&self, rows: &[usize]) -> Vec<f64> {
        let mut mean = vec![0.0; self.columns];
        for &row in rows {
            for (mean, x) in mean.iter_mut().zip(self.row(row)) {
                *mean += x / rows.len() as f64;
            }
        }
        mean
    }
}

/// The length of a vector, √Σx².
pub(crate) fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A number of a model, or of a file: where f32 holds it exactly, the shortest digits that give the same
/// f32 back, so that 0.1 from a model does not read 0.10000000149011612.
struct Input(f64);

impl Serialize for Input {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let narrow = self.0 as f32;
        if f64::from(narrow) == self.0 { to.serialize_f32(narrow) } else { to.serialize_f64(self.0) }
    }
}

/// A row of inputs, see [`Matrix`].
pub(crate) struct Inputs<'a>(pub(crate) &'a [f64]);

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.0.len()))?;
        for &x in self.0 {
            seq.serialize_element(&Input(x))?;
        }
        seq.end()
    }
}

impl Serialize for Matrix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.rows()))?;
        for row in self.iter() {
            seq.serialize_element(&Inputs(row))?;
        }
        seq.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_keep_their_short_digits() {
        let mut matrix = Matrix::new(3);
        matrix.push([f64::from(0.1f32), 0.1, 2.0]);
        assert_eq!(serde_json::to_string(&matrix).unwrap(), "[[0.1,0.1,2.0]]");
        assert_eq!(Matrix::new(0).rows(), 0);
    }
}
