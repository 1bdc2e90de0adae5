//! The number types that q, k and v may have.

use half::{bf16, f16};

use crate::{Array, Attended, Attention, AttentionError, Gradients, TensorView, isa::Stored};

/// A number type of q, k, v and the output: `f32`, `f64`, `f16` or `bf16`.
///
/// Half types are widened and computed in `f32`; `f64` is computed in `f64`. Where a CPU multiplies bf16 in pairs faster
/// than f32 (AVX-512 BF16 of AMD), it does: weights are rounded to bf16 then and subnormal numbers count as 0, so that bits
/// differ from those of other CPUs.
pub trait Element: Stored + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// To `f64`, exact for all four types.
    fn to_f64(self) -> f64;
    /// To `f32`, exact for all but `f64`.
    fn to_f32(self) -> f32;
    /// From `f64`, rounded to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    /// [`Attention::run`]: of every type here, so that it is compiled once, and not again for everyone who calls it.
    #[doc(hidden)]
    fn attend(request: &Attention<Self>) -> Result<Attended<Self>, AttentionError>;
    /// As [`Element::attend`], [`Attention::run_into`].
    #[doc(hidden)]
    fn attend_into(request: &Attention<Self>, out: &mut [Self]) -> Result<Vec<Array>, AttentionError>;
    /// As [`Element::attend`], [`Attention::backward`].
    #[doc(hidden)]
    fn differentiate(
        request: &Attention<Self>,
        out: TensorView<Self>,
        lse: Option<&[f32]>,
        grad_out: TensorView<Self>,
    ) -> Result<Gradients<Self>, AttentionError>;
}

macro_rules! element {
    ($type:ty, $to_f64:expr, $to_f32:expr, $from_f64:expr) => {
        impl Element for $type {
            fn to_f64(self) -> f64 {
                $to_f64(self)
            }
            fn to_f32(self) -> f32 {
                $to_f32(self)
            }
            fn from_f64(value: f64) -> Self {
                $from_f64(value)
            }
            fn attend(request: &Attention<Self>) -> Result<Attended<Self>, AttentionError> {
                request.attend()
            }
            fn attend_into(
                request: &Attention<Self>,
                out: &mut [Self],
            ) -> Result<Vec<Array>, AttentionError> {
                request.attend_into(out)
            }
            fn differentiate(
                request: &Attention<Self>,
                out: TensorView<Self>,
                lse: Option<&[f32]>,
                grad_out: TensorView<Self>,
            ) -> Result<Gradients<Self>, AttentionError> {
                request.differentiate(out, lse, grad_out)
            }
        }
    };
}
element!(f32, f64::from, |x| x, |x| x as f32);
element!(f64, |x| x, |x| x as f32, |x| x);
element!(f16, f16::to_f64, f16::to_f32, f16::from_f64);
element!(bf16, bf16::to_f64, bf16::to_f32, bf16::from_f64);
