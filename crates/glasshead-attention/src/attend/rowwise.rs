//! One query at a time through the reference, in f64 and O(keys) memory: the path of rows that the fused
//! paths cannot vouch for (NaN, ±∞, nothing visible), and of readouts that are not fused.

use super::Problem;
use crate::{Element, readout::Head, reference::Row, threads};

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

/// Shows every row of every head, in the order `[batch, heads]`, to its readouts that see rows.
pub(crate) fn read<T: Element>(problem: &Problem<T>, heads: &mut [Vec<Box<dyn Head>>]) {
    if heads.iter().all(Vec::is_empty) {
        return;
    }
    threads::for_each_chunk(heads, 1, Row::default, |row, index, heads| {
        let (batch, head) = (index / problem.heads, index % problem.heads);
        for query in 0..problem.queries {
            row.compute(problem, batch, head, query);
            for readout in &mut heads[0] {
                readout.see(row);
            }
        }
    });
}
