//! See into attention: text → tokens → vectors → scores → softmax → weighted values → report.
//!
//! The folders carry these names, in this order:
//! [`text`] cuts a text into tokens and words that know their bytes; [`weights`] finds and opens
//! model files; [`models`] runs them and shows q, k and v of every layer; [`look`] gathers what was
//! asked for and takes the four steps; [`report`] tells them. The numbers themselves are computed by
//! [`glasshead_attention`].

mod error;
pub mod look;
pub mod models;
pub mod report;
pub mod text;
pub mod weights;

pub use error::{Error, Fault, Result};
pub use glasshead_attention as attention;
