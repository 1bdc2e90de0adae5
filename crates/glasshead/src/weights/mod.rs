//! Files → named arrays. [`catalogue`] says which models are known and [`pull`] fetches them; [`Arrays`]
//! is a validated safetensors file, [`Gguf`] a validated GGUF file; [`Weights`] is what a model is read from:
//! one of these, or a checkpoint that is split over several.
//!
//! Everything that comes from a disk or a network is hostile until it is checked: sizes are compared
//! before anything is allocated, and a file that lies is refused with one sentence.

mod arrays;
mod cache;
pub mod catalogue;
mod files;
mod gguf;
mod header;
mod hub;
mod progress;
mod quantised;
mod shards;
mod sources;
mod staging;
mod store;
mod undo;
mod wheel;
mod write;

pub use arrays::{ArrayData, ArrayInfo, Arrays, read_safetensors};
pub use cache::{cache_folder, locate, model_folder};
pub use files::{Writer, check_target, read_small, sha256_of_file, write_all_atomically, write_atomically};
pub use gguf::{GgufArray, GgufHeader, GgufTensor, GgufValue, parse_gguf};
pub(crate) use header::shown;
pub use header::{Dtype, parse_header};
pub use hub::{Hub, HubCache};
pub use progress::{Progress, Silent};
pub use quantised::Gguf;
pub(crate) use shards::INDEX;
pub use sources::{Source, pull, pull_from, resolve};
pub use staging::{Staging, Trouble};
pub use store::{Scope, Table, Weights};
pub use undo::{Origin, Undo};
pub use wheel::WheelIndex;
pub use write::{NewArray, Numbers, safetensors, write_safetensors};
