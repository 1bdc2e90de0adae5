//! `duplicate [batch, heads, queries]`: the weight on earlier occurrences of a query's own token.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    Array, AtWork, Block, Column, Fuse, Fused, Head, Parts, Read, Readout, Shape, Slots, Tile, Values,
};
use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    reference::Row,
};

/// Where each token stands.
#[derive(Debug)]
struct Places {
    /// `[keys]`: the list of the token that stands there.
    of: Vec<usize>,
    /// Per token, ascending.
    lists: Vec<Vec<usize>>,
}

#[derive(Clone, Debug)]
struct Duplicate {
    places: Arc<Places>,
    /// Tokens before the first key: of a part of the keys.
    before: usize,
}

impl Read {
    /// `duplicate`: the weight of every query on all earlier occurrences of its own token; `ids` are the token ids of
    /// all keys. Packed sequences do not see each other.
    pub fn duplicate(self, ids: &[u32]) -> Self {
        let mut number = HashMap::new();
        let mut places = Places { of: Vec::with_capacity(ids.len()), lists: Vec::new() };
        for (at, id) in ids.iter().enumerate() {
            let list = *number.entry(*id).or_insert(places.lists.len());
            if list == places.lists.len() {
                places.lists.push(Vec::new());
            }
            places.lists[list].push(at);
            places.of.push(list);
        }
        self.with(Duplicate { places: Arc::new(places), before: 0 })
    }
}

impl Duplicate {
    /// The earlier keys of the same token within `keys`.
    fn earlier(&self, position: i64, keys: Range<usize>) -> impl Iterator<Item = usize> {
        let Self { places, before } = self;
        let position = usize::try_from(position.saturating_add(*before as i64)).unwrap_or(usize::MAX);
        let list = places.of.get(position).map_or(&[][..], |list| &places.lists[*list]);
        let start = keys.start + before;
        let end = keys.end.saturating_add(*before).min(position).max(start);
        let until = |end: usize| list.partition_point(|place| *place < end);
        list[until(start)..until(end)].iter().map(move |place| place - before)
    }
}

impl Readout for Duplicate {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("duplicate", [shape.queries])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        match self.places.of.len() {
            ids if ids != shape.keys => Err(format!("has {ids} token ids for {} keys", shape.keys)),
            _ => Ok(()),
        }
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(self.head())
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        parts.weighted_sum()
    }

    fn of_part(&self, keys: &Range<usize>, _: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        Some(Arc::new(Self { before: keys.start, ..self.clone() }))
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Duplicate(self.head())))
    }
}

impl Duplicate {
    fn head(&self) -> DuplicateHead<'static> {
        DuplicateHead { of: self.clone(), scores: Vec::new(), values: Column::new() }
    }
}

pub(crate) struct DuplicateHead<'a> {
    of: Duplicate,
    /// Of tiles that are not finished (a panel has several): a query and its score on an earlier occurrence.
    scores: Vec<(usize, f64)>,
    /// `[queries seen so far]`
    values: Column<'a, f32>,
}

impl Head for DuplicateHead<'_> {
    fn see(&mut self, row: &Row) {
        let earlier = self.of.earlier(row.position, row.first_key..usize::MAX);
        let weight = |key: usize| row.keys.binary_search(&key).map_or(0.0, |at| row.weights[at]);
        self.values.push(earlier.map(weight).sum::<f64>() as f32);
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.values.into_list())]
    }
}

/// The room holds the sums of a finished tile.
impl<'a> Fuse<'a> for DuplicateHead<'a> {
    fn room(&self) -> usize {
        1
    }

    fn see_block<S: Simd>(&mut self, _: S, block: &Block<S>, _: &mut [S::N]) {
        for (lane, query) in block.queries.clone().enumerate() {
            let keys = block.keys.start.max(block.first_key)..block.keys.end;
            for key in self.of.earlier(block.position.saturating_add(lane as i64), keys) {
                let score = block.scores[(key - block.keys.start) * COLUMNS * S::LANES + lane];
                self.scores.push((query, score.to_f64()));
            }
        }
    }

    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
        let mut lanes = [[S::N::default(); COLUMNS * MAX_LANES]; 2];
        for c in 0..COLUMNS {
            simd.store(tile.top[c], &mut lanes[0][c * S::LANES..]);
            simd.store(tile.share[c], &mut lanes[1][c * S::LANES..]);
        }
        let mut sums = [0.0; COLUMNS * MAX_LANES];
        self.scores.retain(|(query, score)| {
            let lane = query.wrapping_sub(tile.queries.start);
            let is_here = lane < tile.queries.len();
            if is_here {
                let [top, share] = [lanes[0][lane].to_f64(), lanes[1][lane].to_f64()];
                sums[lane] += (score * tile.unit.to_f64() - top).exp2() * share;
            }
            !is_here
        });
        room.iter_mut().zip(sums).for_each(|(room, sum)| *room = S::N::from_f64(sum));
    }

    fn see_lanes<S: Simd>(&mut self, _: &Tile<S>, lanes: Range<usize>, room: &[S::N]) {
        self.values.extend(room[lanes].iter().map(|x| x.to_f64() as f32));
    }

    fn by_query(&self) -> bool {
        true
    }

    fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        self.values.fill(slots);
    }
}
