//! The parts that models share, in f32 on the CPU: linear layers (candle's matrix product), layer
//! normalisation, activations.

use candle_core::{Device, Tensor};

use crate::weights::Scope;
use crate::{Error, Result};

/// A candle operation on shapes that were checked before has failed.
pub(super) fn inner(cause: impl std::fmt::Display) -> Error {
    Error::environment(
        format!("the forward pass failed: {cause}"),
        "if there is memory enough, this is a bug of glasshead; please report it",
    )
}

/// y = x·Wᵀ + b
#[derive(Debug)]
pub(super) struct Linear {
    weight_t: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Reads `weight [outputs, inputs]` and `bias [outputs]`.
    pub(super) fn load(scope: &Scope<'_>, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = scope.tensor("weight", &[outputs, inputs])?;
        let bias = scope.tensor("bias", &[outputs])?;
        // A view with swapped strides; the product reads it as it lies.
        Ok(Self { weight_t: weight.t().map_err(inner)?, bias })
    }

    /// `x [tokens, inputs]` → `[tokens, outputs]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight_t).and_then(|y| y.broadcast_add(&self.bias)).map_err(inner)
    }
}

/// Layer normalisation (Ba et al. 2016): every vector to mean 0 and variance 1, then scaled and shifted.
#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[size]`; checkpoints from the TensorFlow days say `gamma` and `beta`.
    pub(super) fn load(scope: &Scope<'_>, size: usize, epsilon: f64) -> Result<Self> {
        let old = !scope.has("weight") && scope.has("gamma");
        let [weight, bias] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        Ok(Self { weight: scope.values(weight, &[size])?, bias: scope.values(bias, &[size])?, epsilon })
    }

    /// `x [tokens, size]`, in place.
    pub(super) fn forward(&self, x: &mut [f32]) {
        for x in x.chunks_exact_mut(self.weight.len()) {
            // Sums in f64: a few hundred additions cost nothing and keep the mean exact.
            let size = x.len() as f64;
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / size;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / size;
            let factor = 1.0 / (variance + self.epsilon).sqrt();
            for ((x, weight), bias) in x.iter_mut().zip(&self.weight).zip(&self.bias) {
                *x = ((f64::from(*x) - mean) * factor) as f32 * weight + bias;
            }
        }
    }
}

/// The bend between the two linear layers of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// x·Φ(x), with the error function (Hendrycks & Gimpel 2016).
    Gelu,
    /// The same by their approximation with tanh.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

impl Activation {
    /// What configs call them.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
    ];

    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
        }
        .map_err(inner)
    }
}

/// Numbers as a tensor `[rows, columns]`.
pub(super) fn tensor(values: &[f32], rows: usize, columns: usize) -> Result<Tensor> {
    Tensor::from_slice(values, (rows, columns), &Device::Cpu).map_err(inner)
}

/// The numbers of a tensor, row-major.
pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).map_err(inner)
}

/// x += y, element by element.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
