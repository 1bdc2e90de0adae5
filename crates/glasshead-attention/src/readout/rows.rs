//! `rows [batch, heads, R, keys]`: the whole rows of chosen queries.

use std::sync::Arc;

use super::{Argument, Array, Head, Read, Readout, Shape, Values, numbers};
use crate::reference::Row;

#[derive(Debug)]
struct Rows(Vec<usize>);

impl Read {
    /// `rows`: all weights of these queries, in the order given; hidden keys have weight 0.
    pub fn rows(self, queries: &[usize]) -> Self {
        self.with(Rows(queries.to_vec()))
    }
}

pub(super) fn parse(argument: Argument, shape: &Shape) -> Result<Arc<dyn Readout>, String> {
    let last = || shape.queries.checked_sub(1).into_iter().collect();
    Ok(Arc::new(Rows(numbers(argument, last, "row")?)))
}

impl Readout for Rows {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("rows", [self.0.len(), shape.keys])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        match self.0.iter().find(|&&query| query >= shape.queries) {
            Some(query) => Err(format!(
                "asks for row {query}, but rows are counted from 0 and there are {}",
                shape.queries
            )),
            None => Ok(()),
        }
    }

    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        let weights = vec![0.0; self.0.len() * shape.keys];
        Box::new(RowsHead { queries: self.0.clone(), keys: shape.keys, weights })
    }
}

struct RowsHead {
    queries: Vec<usize>,
    keys: usize,
    weights: Vec<f32>,
}

impl Head for RowsHead {
    fn see(&mut self, row: &Row) {
        for (at, _) in self.queries.iter().enumerate().filter(|(_, query)| **query == row.query) {
            for (&key, &weight) in row.keys.iter().zip(&row.weights) {
                self.weights[at * self.keys + key] = weight as f32;
            }
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.weights)]
    }
}
