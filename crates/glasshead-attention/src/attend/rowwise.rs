//! One query at a time through the reference, in f64 and O(keys) memory: the path of rows that the fused
//! paths cannot vouch for (NaN, ±∞, nothing visible), and of the readouts.

use super::Problem;
use crate::{
    Element,
    readout::{Array, Readouts},
    reference::Row,
    threads,
};

/// The output of one query.
pub(crate) fn one<T: Element>(
    problem: &Problem<T>,
    batch: usize,
    head: usize,
    query: usize,
    row: &mut Row,
    out: &mut [T],
) {
    row.compute(problem, batch, head, query);
    for (out, value) in out.iter_mut().zip(row.mix(problem)) {
        *out = T::from_f64(value);
    }
}

/// Shows every row to every readout, head by head.
pub(crate) fn read<T: Element>(problem: &Problem<T>, readouts: Readouts) -> Vec<Array> {
    if readouts.is_empty() {
        return Vec::new();
    }
    let mut heads: Vec<_> = (0..problem.batch * problem.heads).map(|_| readouts.head()).collect();
    threads::for_each_chunk(&mut heads, 1, Row::default, |row, index, heads| {
        let (batch, head) = (index / problem.heads, index % problem.heads);
        for query in 0..problem.queries {
            row.compute(problem, batch, head, query);
            for readout in &mut heads[0] {
                readout.see(row);
            }
        }
    });
    readouts.finish(heads)
}
