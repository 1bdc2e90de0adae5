//! What to look at, and the look itself. [`explain`] takes the four steps for one focus word: from the
//! worked [`example`], from vectors of one's own ([`own`]) or from one head of a model ([`gather`]).

mod claimed;
pub mod example;
pub mod explain;
mod gather;
mod goldens;
pub mod heads;
mod matrix;
pub mod own;
pub mod scan;
pub mod segments;
mod steps;
pub mod verify;

pub use claimed::{Claimed, Finding};
pub use gather::{Gathered, gather};
pub use matrix::Matrix;
pub use steps::{Encoded, Given, Steps};
