//! `top_index`, `top_weight [batch, heads, queries, K]`: the K heaviest keys of every query.

use std::{cmp::Ordering, sync::Arc};

use super::{Argument, Array, Head, Read, Readout, Shape, Values, one_number};
use crate::reference::Row;

/// More than the keys may be asked for (the rest is filled up), but not without end.
const SPARE: usize = 1024;

#[derive(Debug)]
struct TopK(usize);

impl Read {
    /// `top_index` and `top_weight`: the `k` heaviest keys of every query, descending, ties to the lower
    /// key; index −1 and weight 0 fill up where fewer keys are visible.
    pub fn top_k(self, k: usize) -> Self {
        self.with(TopK(k))
    }
}

pub(super) fn parse(argument: Argument, _: &Shape) -> Result<Arc<dyn Readout>, String> {
    Ok(Arc::new(TopK(one_number(argument, 8, "number of keys")?)))
}

impl Readout for TopK {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![
            Array::of_i64("top_index", [shape.queries, self.0]),
            Array::of_f32("top_weight", [shape.queries, self.0]),
        ]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        if self.0 == 0 || self.0 > shape.keys.saturating_add(SPARE) {
            return Err(format!("asks for the top {} of {} keys", self.0, shape.keys));
        }
        Ok(())
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(TopKHead { k: self.0, order: Vec::new(), index: Vec::new(), weight: Vec::new() })
    }
}

struct TopKHead {
    k: usize,
    order: Vec<usize>,
    index: Vec<i64>,
    weight: Vec<f32>,
}

impl Head for TopKHead {
    fn see(&mut self, row: &Row) {
        // Scores order the keys even where their weights have all become 0.
        let heavier = |a: &usize, b: &usize| -> Ordering {
            row.scores[*b].partial_cmp(&row.scores[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        self.order.clear();
        self.order.extend(0..row.keys.len());
        if !row.lse.is_nan() {
            if self.k < self.order.len() {
                self.order.select_nth_unstable_by(self.k - 1, heavier);
                self.order.truncate(self.k);
            }
            self.order.sort_unstable_by(heavier);
        }
        for at in 0..self.k {
            let key = self.order.get(at);
            self.index.push(key.map_or(-1, |&at| row.keys[at] as i64));
            self.weight.push(key.map_or(0.0, |&at| row.weights[at] as f32));
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::I64(self.index), Values::F32(self.weight)]
    }
}
