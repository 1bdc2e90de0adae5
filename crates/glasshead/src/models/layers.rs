//! The parts that models share, in f32 on the CPU: linear layers (faer's matrix product), normalisation,
//! feed-forward blocks, embeddings.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::elementwise::{Activation, add, by_rows, dot, normalise, scale_to_one};
use crate::weights::{Scope, Table};
use crate::{Error, Result};

/// An operation on shapes that were checked before has failed.
pub(super) fn inner(cause: impl std::fmt::Display) -> Error {
    Error::environment(
        format!("the forward pass failed: {cause}"),
        "if there is memory enough, this is a bug of glasshead; please report it",
    )
}

/// Up to so many vectors at once, a product is bound by reading the matrix: a plain row by row, with all threads,
/// reads it fastest.
const FEW: usize = 3;

/// A product of more is cut into tiles of so many vectors and outputs; few vectors, so that all threads find work,
/// into narrower ones.
const TILE: [usize; 2] = [512, 384];
const NARROW_TILE: [usize; 2] = [64, 256];
/// Where tiles are cut: a multiple of the outputs that faer's AVX-512 kernel keeps in registers.
const CUT: usize = 96;

/// y = x·Wᵀ + b
#[derive(Debug)]
pub(super) struct Linear {
    /// `[outputs, inputs]`
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Reads `weight [outputs, inputs]` and, if there is to be one, `bias [outputs]`.
    pub(super) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        Self::stacked(&[(scope.clone(), outputs)], inputs, bias)
    }

    /// Several that read the same vectors, as one: their outputs lie behind each other.
    pub(super) fn stacked(parts: &[(Scope<'_>, usize)], inputs: usize, bias: bool) -> Result<Self> {
        let (mut weight, mut biases) = (Vec::new(), Vec::new());
        for (scope, outputs) in parts {
            weight.extend(scope.values("weight", &[*outputs, inputs])?);
            if bias {
                biases.extend(scope.values("bias", &[*outputs])?);
            }
        }
        let outputs = parts.iter().map(|(_, outputs)| outputs).sum();
        Ok(Self::new(weight, bias.then_some(biases), inputs, outputs))
    }

    /// Reads `weight [inputs, outputs]` and `bias [outputs]`: GPT-2's `Conv1D`.
    pub(super) fn load_transposed(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        let columns = scope.values("weight", &[inputs, outputs])?;
        let mut weight = vec![0f32; columns.len()];
        by_rows(&mut weight, inputs, |first, rows| {
            for (output, row) in rows.chunks_exact_mut(inputs).enumerate() {
                let column = columns[first + output..].iter().step_by(outputs);
                row.iter_mut().zip(column).for_each(|(to, from)| *to = *from);
            }
        });
        Ok(Self::new(weight, Some(scope.values("bias", &[outputs])?), inputs, outputs))
    }

    /// Of numbers that lie as `[outputs, inputs]`.
    pub(super) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, inputs: usize, outputs: usize) -> Self {
        Self { weight, bias, inputs, outputs }
    }

    /// How many numbers it gives per vector.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `x [tokens, inputs]` → `y [tokens, outputs]`, whatever it held.
    pub(super) fn forward(&self, x: &[f32], y: &mut [f32]) {
        let Some(bias) = &self.bias else { return self.multiply(x, y, Accum::Replace) };
        let width = self.outputs;
        by_rows(y, width, |_, y| y.chunks_exact_mut(width).for_each(|y| y.copy_from_slice(bias)));
        self.multiply(x, y, Accum::Add);
    }

    /// `y [tokens, outputs]` += x·Wᵀ + b
    pub(super) fn add_to(&self, x: &[f32], y: &mut [f32]) {
        if let Some(bias) = &self.bias {
            by_rows(y, self.outputs, |_, y| y.chunks_exact_mut(self.outputs).for_each(|y| add(y, bias)));
        }
        self.multiply(x, y, Accum::Add);
    }

    fn multiply(&self, x: &[f32], y: &mut [f32], accum: Accum) {
        let tokens = x.len() / self.inputs;
        if tokens <= FEW {
            return self.few(x, y, accum);
        }
        let x = MatRef::from_row_major_slice(x, tokens, self.inputs);
        let weight = MatRef::from_row_major_slice(&self.weight, self.outputs, self.inputs);
        tiles(MatMut::from_row_major_slice_mut(y, tokens, self.outputs), x, weight.transpose(), accum);
    }

    /// The product for a few vectors, every row of the matrix read once.
    fn few(&self, x: &[f32], y: &mut [f32], accum: Accum) {
        let tokens = x.len() / self.inputs;
        let mut by_output = vec![0f32; self.outputs * tokens];
        // Counted in numbers read, not in numbers written.
        let rows_of_a_task = (64 * 1024 / self.inputs).max(1);
        let work = |first: usize, y: &mut [f32]| {
            for (output, y) in y.chunks_exact_mut(tokens).enumerate() {
                let row = &self.weight[(first + output) * self.inputs..][..self.inputs];
                for (y, x) in y.iter_mut().zip(x.chunks_exact(self.inputs)) {
                    *y = dot(row, x);
                }
            }
        };
        by_output
            .par_chunks_mut((rows_of_a_task * tokens).max(1))
            .enumerate()
            .for_each(|(task, y)| work(task * rows_of_a_task, y));
        for (token, y) in y.chunks_exact_mut(self.outputs).enumerate() {
            for (y, product) in y.iter_mut().zip(by_output[token..].iter().step_by(tokens)) {
                *y = if matches!(accum, Accum::Add) { *y + product } else { *product };
            }
        }
    }
}

/// y = x·w or y += x·w, tile by tile on all threads. Tiles follow from the shape alone and sums are never cut, so
/// threads change no bit.
fn tiles(y: MatMut<'_, f32>, x: MatRef<'_, f32>, w: MatRef<'_, f32>, accum: Accum) {
    let half = |n: usize| (n / 2).next_multiple_of(CUT);
    let (rows, columns) = (y.nrows(), y.ncols());
    let [most_rows, most_columns] = if rows <= NARROW_TILE[0] { NARROW_TILE } else { TILE };
    if rows > most_rows {
        let (first, last) = y.split_at_row_mut(half(rows));
        let (x_first, x_last) = x.split_at_row(half(rows));
        rayon::join(|| tiles(first, x_first, w, accum), || tiles(last, x_last, w, accum));
    } else if columns > most_columns {
        let (first, last) = y.split_at_col_mut(half(columns));
        let (w_first, w_last) = w.split_at_col(half(columns));
        rayon::join(|| tiles(first, x, w_first, accum), || tiles(last, x, w_last, accum));
    } else {
        matmul(y, accum, x, w, 1.0, Par::Seq);
    }
}

/// What lies between the steps of a block of tokens, used again by the next one.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) normed: Vec<f32>,
    pub(super) merged: Vec<f32>,
    pub(super) product: Vec<f32>,
    pub(super) wide: Vec<f32>,
    pub(super) gated: Vec<f32>,
}

/// So many numbers of a buffer, whatever they are.
pub(super) fn room(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        *buffer = vec![0f32; len];
    }
    &mut buffer[..len]
}

/// How vectors are brought to a common length, `[tokens, size]`.
#[derive(Debug)]
pub(super) enum Norm {
    /// To mean 0 and variance 1, then scaled and shifted (Ba et al. 2016).
    Layer(LayerNorm),
    /// To mean square 1, then scaled (Zhang & Sennrich 2019).
    Rms(RmsNorm),
}

/// Layer normalisation.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

/// Root mean square normalisation.
#[derive(Debug)]
pub(super) struct RmsNorm {
    weight: Vec<f32>,
    epsilon: f32,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[size]`; checkpoints from the TensorFlow days say `gamma` and `beta`.
    pub(super) fn load(scope: &Scope<'_>, size: usize, epsilon: f64) -> Result<Self> {
        let old = !scope.has("weight") && scope.has("gamma");
        let [weight, bias] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        Ok(Self {
            weight: scope.values(weight, &[size])?,
            bias: scope.values(bias, &[size])?,
            epsilon: epsilon as f32,
        })
    }

    /// How many numbers a vector has.
    pub(super) fn size(&self) -> usize {
        self.weight.len()
    }

    /// `x [tokens, size]`, in place.
    pub(super) fn in_place(&self, x: &mut [f32]) {
        let size = self.weight.len();
        by_rows(x, size, |_, x| x.chunks_exact_mut(size).for_each(|x| self.vector(x)));
    }

    fn vector(&self, x: &mut [f32]) {
        normalise(x, &self.weight, &self.bias, self.epsilon);
    }
}

impl RmsNorm {
    /// Reads `weight [size]`.
    pub(super) fn load(scope: &Scope<'_>, size: usize, epsilon: f64) -> Result<Self> {
        Ok(Self { weight: scope.values("weight", &[size])?, epsilon: epsilon as f32 })
    }

    /// The same where a checkpoint keeps how much the factors differ from 1 (Gemma).
    pub(super) fn load_around_one(scope: &Scope<'_>, size: usize, epsilon: f64) -> Result<Self> {
        let mut norm = Self::load(scope, size, epsilon)?;
        norm.weight.iter_mut().for_each(|weight| *weight += 1.0);
        Ok(norm)
    }

    /// `x [size]`, in place.
    pub(super) fn vector(&self, x: &mut [f32]) {
        scale_to_one(x, &self.weight, self.epsilon);
    }

    /// x += norm(y), `[tokens, size]`; y is normed in place.
    pub(super) fn add_to(&self, x: &mut [f32], y: &mut [f32]) {
        by_rows(y, self.weight.len(), |_, y| {
            y.chunks_exact_mut(self.weight.len()).for_each(|y| self.vector(y));
        });
        by_rows(x, self.weight.len(), |first, x| add(x, &y[first * self.weight.len()..]));
    }
}

impl Norm {
    /// `x [tokens, size]` → `y`, the same, normalised.
    pub(super) fn forward<'a>(&self, x: &[f32], y: &'a mut [f32]) -> &'a [f32] {
        let size = match self {
            Self::Layer(norm) => norm.weight.len(),
            Self::Rms(norm) => norm.weight.len(),
        };
        by_rows(y, size, |first, y| {
            for (y, x) in y.chunks_exact_mut(size).zip(x[first * size..].chunks_exact(size)) {
                y.copy_from_slice(x);
                match self {
                    Self::Layer(norm) => norm.vector(y),
                    Self::Rms(norm) => norm.vector(y),
                }
            }
        });
        y
    }
}

/// The feed-forward block.
#[derive(Debug)]
pub(super) struct Mlp {
    /// Widens; of a gated block, both branches behind each other.
    pub(super) up: Linear,
    pub(super) activation: Activation,
    /// Whether the first half of what `up` gives is the gate: down(activation(gate(x)) · up(x)) (Shazeer 2020).
    pub(super) gated: bool,
    pub(super) down: Linear,
}

impl Mlp {
    /// `x [tokens, hidden]` → `[tokens, intermediate]`: all but `down`.
    pub(super) fn widen<'a>(&self, x: &[f32], wide: &'a mut Vec<f32>, gated: &'a mut Vec<f32>) -> &'a [f32] {
        let Linear { inputs, outputs: width, .. } = self.up;
        let wide = room(wide, x.len() / inputs * width);
        self.up.forward(x, wide);
        if self.gated {
            let gated = room(gated, wide.len() / 2);
            self.gate(wide, gated);
            return gated;
        }
        by_rows(wide, width, |_, wide| self.activation.forward(wide));
        wide
    }

    fn gate(&self, wide: &[f32], gated: &mut [f32]) {
        let (width, half) = (self.up.outputs, self.up.outputs / 2);
        by_rows(gated, half, |first, gated| {
            for (gated, row) in gated.chunks_exact_mut(half).zip(wide[first * width..].chunks_exact(width)) {
                let (gate, up) = row.split_at(half);
                self.activation.gate(gated, gate, up);
            }
        });
    }
}

/// A vector per token id.
#[derive(Debug)]
pub(super) struct Embedding {
    table: Table,
    /// What every vector is multiplied with.
    scale: Option<f32>,
}

impl Embedding {
    pub(super) fn new(table: Table, scale: Option<f32>) -> Self {
        Self { table, scale }
    }

    /// `[tokens, width]`
    pub(super) fn forward(&self, ids: impl IntoIterator<Item = usize>) -> Result<Vec<f32>> {
        let mut x = Vec::new();
        for id in ids {
            x.extend(self.table.row(id).ok_or_else(|| inner(format!("there is no embedding {id}")))?);
        }
        self.scale.into_iter().for_each(|scale| x.iter_mut().for_each(|x| *x *= scale));
        Ok(x)
    }

    /// The table as a linear layer from vectors to ids, without the scale.
    pub(super) fn transposed(&self, width: usize) -> Result<Linear> {
        let rows = self.table.rows();
        let whole = Self { table: self.table.clone(), scale: None }.forward(0..rows)?;
        Ok(Linear::new(whole, None, width, rows))
    }
}
