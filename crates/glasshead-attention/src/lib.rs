//! Exact attention.
#![allow(missing_docs)]
