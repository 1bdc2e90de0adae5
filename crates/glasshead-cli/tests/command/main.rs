//! The command as its users meet it: what it prints, writes, refuses and says.
//!
//! One program for all of them: every test program of its own would be optimised and linked with the whole library.

mod architecture;
mod bad_input;
mod bad_scan;
mod common;
mod conformance;
mod explain;
mod scan;
mod scan_each;
mod scan_notes;
mod scan_page;
