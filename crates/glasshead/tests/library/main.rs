//! The library through what it offers: forwards against their authors' code, files that are sound and files that
//! lie, what a scan sees.
//!
//! One program for all of them: every test program of its own would be optimised and linked with the whole library.

mod common;
mod models;
mod scan;
mod weights;
