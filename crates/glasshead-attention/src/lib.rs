//! Exact softmax attention on the CPU that can be looked into. Slices in, slices out.
//!
//! out = softmax(q·kᵀ · scale) · v, in four steps: vectors, scores, shares, weighted values.
//!
//! ```
//! use glasshead_attention::{Attention, Causal, Read, TensorView};
//!
//! let vectors = [0.1f32, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
//! let tokens = TensorView::contiguous(&vectors, [1, 1, 3, 3])?;
//! let read = Read::new().entropy().top_k(2).rows(&[2]);
//! let seen = Attention::new(tokens, tokens, tokens).causal(Causal::BottomRight).read(read).run()?;
//! assert_eq!(seen.out.len(), 9);
//! assert_eq!(seen.readout("top_index").unwrap().i64().unwrap()[4], 2); // the last token looks at itself first
//! # Ok::<(), glasshead_attention::AttentionError>(())
//! ```
//!
//! Arrays are `[batch, heads, tokens, dim]` in any layout ([`TensorView::from_tokens`] takes `[batch, tokens, heads, dim]`);
//! the output is contiguous, `[batch, heads, queries, value_dim]`. Heads of q may be a multiple of those of k and v: query
//! head h reads key head h / group (grouped-query attention). Few queries are decoded: k and v are read once per key head,
//! and many keys are shared out (split-KV). [`KvCache`] keeps the tokens of a text that grows, [`Packed`] names sequences
//! of different lengths behind each other.
//!
//! Work is shared out by rayon (feature `rayon`, on by default) within the pool that the caller is in; the number of threads
//! changes no bit. Every thread keeps its workspace for the next call. The instruction set is the best one of this CPU, that
//! of [`Attention::instruction_set`], or what the variable `GLASSHEAD_ISA` says (`scalar`, `avx2`, `avx512`).
//!
//! The files, in the order in which a token passes them: [`views`](TensorView) (q, k, v and their
//! shapes) → `mask` (who may see whom) → `attend` (request, plan, the fused path) → `softmax` (the one
//! exp) → `readout` (what the attention looked at). [`mod@reference`] is the oracle that all of it is judged
//! against, and `isa` holds the vector instructions and the only unsafe code.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod attend;
mod cache;
pub mod ceilings;
mod element;
mod error;
#[allow(unsafe_code)]
mod isa;
mod mask;
mod readout;
pub mod reference;
mod softmax;
mod threads;
mod views;

pub use attend::{Attended, Attention, Gradients};
pub use cache::KvCache;
pub use element::Element;
pub use error::AttentionError;
pub use half::{bf16, f16};
pub use isa::InstructionSet;
pub use mask::{Causal, Mask, MaskValues, Packed, Window};
pub use readout::{Array, Head, Part, Parts, Read, Readout, Shape, Values, merge, shares};
pub use views::{TensorView, Vector};
