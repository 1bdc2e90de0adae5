//! The weight on one chosen key per query, `[batch, heads, queries]`: the token before it (`previous`), itself
//! (`self`), the first one (`first`), or what followed the last time (`induction`). 0 where that key is hidden.

use std::{collections::HashMap, ops::Range, sync::Arc};

use super::{
    Array, AtWork, Block, Column, Fuse, Fused, Head, Parts, Read, Readout, Shape, Slots, Tile, Values,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

#[derive(Clone, Debug)]
enum Target {
    /// So many keys before the query's own position.
    Back(i64),
    /// The first key of the sequence.
    First,
    /// By position: the key; −1 for none. Both are counted from the start of the text, `before` keys before the
    /// first one here.
    Table { keys: Arc<[i64]>, before: usize },
}

#[derive(Debug)]
struct Chosen {
    name: &'static str,
    target: Target,
}

impl Read {
    /// `previous`: the weight of every query on the key before its own position.
    pub fn previous(self) -> Self {
        self.with(Chosen { name: "previous", target: Target::Back(1) })
    }

    /// `self`: the weight of every query on the key at its own position.
    pub fn self_weight(self) -> Self {
        self.with(Chosen { name: "self", target: Target::Back(0) })
    }

    /// `first`: the weight of every query on the first key, where many heads park what they need nowhere else
    /// (Xiao et al. 2023, "attention sinks").
    pub fn first(self) -> Self {
        self.with(Chosen { name: "first", target: Target::First })
    }

    /// `induction`: the weight of every query on the key after the last earlier occurrence of its own token
    /// (Olsson et al. 2022); `ids` are the token ids of all keys.
    pub fn induction(self, ids: &[u32]) -> Self {
        let mut last = HashMap::new();
        let after = |(at, id): (usize, &u32)| last.insert(*id, at as i64).map_or(-1, |before| before + 1);
        let keys = ids.iter().enumerate().map(after).collect();
        self.with(Chosen { name: "induction", target: Target::Table { keys, before: 0 } })
    }
}

impl Target {
    /// The key of a query at this position, in a sequence from `first` on.
    fn key(&self, position: i64, first: usize) -> Option<usize> {
        let key = match self {
            Self::Back(keys) => position.checked_sub(*keys)?,
            Self::First => first as i64,
            // What stands before the sequence is another one's; its first token follows nothing.
            Self::Table { keys, before } => {
                let before = *before as i64;
                let key = *keys.get(usize::try_from(position.checked_add(before)?).ok()?)? - before;
                // The first key of a part follows the last one of the part before.
                if key < first as i64 || (key == first as i64 && before == 0) { -1 } else { key }
            }
        };
        usize::try_from(key).ok().filter(|key| *key >= first)
    }
}

impl Readout for Chosen {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32(self.name, [shape.queries])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        match &self.target {
            Target::Table { keys, .. } if keys.len() != shape.keys => {
                Err(format!("has {} token ids for {} keys", keys.len(), shape.keys))
            }
            _ => Ok(()),
        }
    }

    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(self.head())
    }

    fn merge(&self, parts: &Parts, _: &[f64]) -> Result<Vec<Values>, String> {
        match self.target {
            Target::Back(_) | Target::Table { .. } => parts.weighted_sum(),
            // The other parts have a first key of their own.
            Target::First => {
                let part = (0..parts.count()).find(|part| parts.keys_of(*part).contains(&0)).unwrap_or(0);
                let values = parts.f32(part, 0)?.iter().enumerate();
                let weights = values.map(|(n, x)| (parts.share(part, n) * f64::from(*x)) as f32);
                Ok(vec![Values::F32(weights.collect())])
            }
        }
    }

    fn of_part(&self, part: &Range<usize>, _: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        let Target::Table { keys, .. } = &self.target else { return None };
        let target = Target::Table { keys: keys.clone(), before: part.start };
        Some(Arc::new(Self { name: self.name, target }))
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Chosen(self.head())))
    }
}

impl Chosen {
    fn head(&self) -> ChosenHead<'static> {
        ChosenHead { target: self.target.clone(), values: Column::new() }
    }
}

pub(crate) struct ChosenHead<'a> {
    target: Target,
    /// `[queries seen so far]`
    values: Column<'a, f32>,
}

impl Head for ChosenHead<'_> {
    fn see(&mut self, row: &Row) {
        let key = self.target.key(row.position, row.first_key);
        let at = key.and_then(|key| row.keys.binary_search(&key).ok());
        self.values.push(at.map_or(0.0, |at| row.weights[at] as f32));
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.values.into_list())]
    }
}

/// The room holds the scores of the chosen keys.
impl<'a> Fuse<'a> for ChosenHead<'a> {
    fn room(&self) -> usize {
        1
    }

    fn start_tile<S: Simd>(&self, _: S, room: &mut [S::N]) {
        room.fill(S::N::from_f64(f64::NEG_INFINITY));
    }

    fn see_block<S: Simd>(&mut self, _: S, block: &Block<S>, room: &mut [S::N]) {
        for (lane, room) in room.iter_mut().enumerate().take(block.queries.len()) {
            let key = self.target.key(block.position.saturating_add(lane as i64), block.first_key);
            if let Some(key) = key.filter(|key| block.keys.contains(key)) {
                *room = block.scores[(key - block.keys.start) * COLUMNS * S::LANES + lane];
            }
        }
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
        for (c, scores) in room.chunks_exact_mut(S::LANES).enumerate() {
            simd.store(tile.weight(simd, c, simd.load(scores)), scores);
        }
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
