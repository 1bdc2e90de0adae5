//! The engine through what it offers, against the f64 reference.
//!
//! One program for all of them: every test program of its own would be optimised and linked with all kernels.

mod against_reference;
mod cases;
mod gradients;
mod layouts;
mod own_readout;
mod readouts;
