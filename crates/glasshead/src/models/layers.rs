//! The parts that models share, in f32 on the CPU: linear layers (candle's matrix product), normalisation,
//! feed-forward blocks, embeddings.

use candle_core::{CpuStorage, Device, Storage, Tensor};

use super::elementwise::{Activation, add, by_rows, dot, squares, sum};
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

/// y = x·Wᵀ + b
#[derive(Debug)]
pub(super) struct Linear {
    /// `[inputs, outputs]`, a view with swapped strides of what lies as `[outputs, inputs]`.
    weight_t: Tensor,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

/// What a linear layer gives, before its bias is added: whoever takes it further adds it on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product<'a> {
    /// `[tokens, width]`
    pub(super) values: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) width: usize,
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
        Self::new(weight, bias.then_some(biases), inputs, outputs)
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
        Self::new(weight, Some(scope.values("bias", &[outputs])?), inputs, outputs)
    }

    /// Of numbers that lie as `[outputs, inputs]`.
    pub(super) fn new(
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        let weight = Tensor::from_vec(weight, (outputs, inputs), &Device::Cpu).map_err(inner)?;
        Ok(Self { weight_t: weight.t().map_err(inner)?, bias, inputs, outputs })
    }

    /// `x [tokens, inputs]` → `then` of `[tokens, outputs]`.
    pub(super) fn forward<R>(&self, x: Vec<f32>, then: impl FnOnce(Product<'_>) -> R) -> Result<R> {
        let tokens = x.len() / self.inputs;
        let then = |values: &[f32]| then(Product { values, bias: self.bias.as_deref(), width: self.outputs });
        if tokens <= FEW {
            return Ok(then(&with_numbers(&self.weight_t, |weight| self.few(weight, &x))?));
        }
        let x = Tensor::from_vec(x, (tokens, self.inputs), &Device::Cpu).map_err(inner)?;
        with_numbers(&x.matmul(&self.weight_t).map_err(inner)?, then)
    }

    /// The product for a few vectors, every row of the matrix read once.
    fn few(&self, weight: &[f32], x: &[f32]) -> Vec<f32> {
        let tokens = x.len() / self.inputs;
        let mut by_output = vec![0f32; self.outputs * tokens];
        // Counted in numbers read, not in numbers written.
        let rows_of_a_task = (64 * 1024 / self.inputs).max(1);
        let work = |first: usize, y: &mut [f32]| {
            for (output, y) in y.chunks_exact_mut(tokens).enumerate() {
                let row = &weight[(first + output) * self.inputs..][..self.inputs];
                for (y, x) in y.iter_mut().zip(x.chunks_exact(self.inputs)) {
                    *y = dot(row, x);
                }
            }
        };
        use rayon::prelude::*;
        by_output
            .par_chunks_mut((rows_of_a_task * tokens).max(1))
            .enumerate()
            .for_each(|(task, y)| work(task * rows_of_a_task, y));
        if tokens == 1 {
            return by_output;
        }
        let mut y = Vec::with_capacity(by_output.len());
        (0..tokens).for_each(|token| y.extend(by_output[token..].iter().step_by(tokens)));
        y
    }
}

/// The numbers of a whole tensor as they lie, without a copy.
fn with_numbers<R>(tensor: &Tensor, then: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, _) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(then(values)),
        _ => Err(inner("a tensor is not of f32 on the CPU")),
    }
}

impl Product<'_> {
    /// x += y, `[tokens, width]`.
    pub(super) fn add_to(&self, x: &mut [f32]) {
        by_rows(x, self.width, |first, x| {
            for (x, y) in x.chunks_exact_mut(self.width).zip(self.rows(first)) {
                add(x, y);
                self.bias.into_iter().for_each(|bias| add(x, bias));
            }
        });
    }

    /// The rows from one on.
    pub(super) fn rows(&self, first: usize) -> impl Iterator<Item = &[f32]> {
        self.values[first * self.width..].chunks_exact(self.width)
    }
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

    /// `x [tokens, size]`, in place.
    pub(super) fn in_place(&self, x: &mut [f32]) {
        let size = self.weight.len();
        by_rows(x, size, |_, x| x.chunks_exact_mut(size).for_each(|x| self.vector(x)));
    }

    fn vector(&self, x: &mut [f32]) {
        let size = x.len() as f32;
        let mean = sum(x) / size;
        let factor = 1.0 / (squares(x, mean) / size + self.epsilon).sqrt();
        for ((x, weight), bias) in x.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = (*x - mean) * factor * weight + bias;
        }
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
        let factor = 1.0 / (squares(x, 0.0) / x.len() as f32 + self.epsilon).sqrt();
        for (x, weight) in x.iter_mut().zip(&self.weight) {
            *x = *x * factor * weight;
        }
    }

    /// x += norm(y)
    pub(super) fn add_to(&self, x: &mut [f32], y: &Product<'_>) {
        by_rows(x, y.width, |first, x| {
            let mut normed = vec![0f32; y.width];
            for (x, y_row) in x.chunks_exact_mut(y.width).zip(y.rows(first)) {
                normed.copy_from_slice(y_row);
                y.bias.into_iter().for_each(|bias| add(&mut normed, bias));
                self.vector(&mut normed);
                add(x, &normed);
            }
        });
    }
}

impl Norm {
    /// `x [tokens, size]` → the same, normalised.
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let size = match self {
            Self::Layer(norm) => norm.weight.len(),
            Self::Rms(norm) => norm.weight.len(),
        };
        let mut y = vec![0f32; x.len()];
        by_rows(&mut y, size, |first, y| {
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
    /// `x [tokens, hidden]` → `then` of `[tokens, hidden]`.
    pub(super) fn forward<R>(&self, x: Vec<f32>, then: impl FnOnce(Product<'_>) -> R) -> Result<R> {
        let wide = self.up.forward(x, |wide| if self.gated { self.gate(wide) } else { self.bend(wide) })?;
        self.down.forward(wide, then)
    }

    fn bend(&self, wide: Product<'_>) -> Vec<f32> {
        let mut bent = vec![0f32; wide.values.len()];
        by_rows(&mut bent, wide.width, |first, bent| {
            for (bent, wide_row) in bent.chunks_exact_mut(wide.width).zip(wide.rows(first)) {
                bent.copy_from_slice(wide_row);
                wide.bias.into_iter().for_each(|bias| add(bent, bias));
                self.activation.forward(bent);
            }
        });
        bent
    }

    fn gate(&self, wide: Product<'_>) -> Vec<f32> {
        let half = wide.width / 2;
        let mut gated = vec![0f32; wide.values.len() / 2];
        by_rows(&mut gated, half, |first, gated| {
            let mut biased = vec![0f32; if wide.bias.is_some() { wide.width } else { 0 }];
            for (gated, row) in gated.chunks_exact_mut(half).zip(wide.rows(first)) {
                let mut row = row;
                if let Some(bias) = wide.bias {
                    biased.copy_from_slice(row);
                    add(&mut biased, bias);
                    row = &biased;
                }
                let (gate, up) = row.split_at(half);
                self.activation.gate(gated, gate, up);
            }
        });
        gated
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
        Linear::new(whole, None, width, rows)
    }
}
