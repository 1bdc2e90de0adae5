//! Bad requests: each ends in one sentence that names the culprit, one hint, the right exit code, and leaves
//! nothing behind. No test here needs a network or a model of the catalogue.

mod attend;
mod explain;
mod manners;
mod models;
mod scan;
