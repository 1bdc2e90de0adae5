//! What several test files need.

pub(crate) mod gguf;
pub(crate) mod models;
