//! The command as its users meet it: what it prints, writes, refuses and says.
//!
//! One program for all of them: every test program of its own would be optimised and linked with the whole library.

mod architecture;
mod common;
mod conformance;
mod explain;
mod refusals;
mod scan;
mod scan_each;
mod scan_notes;
mod scan_page;
