//! Readouts inside the fused pass: what a tile of queries shows them, block of keys by block of keys.
//!
//! Exponents are those of 2, x = score · log₂e, as the pass has them. A weight is 2^(x − top) · share, where
//! `top` is the row's largest exponent and `share` is 1 / Σ 2^(x − top), the sink counted.

use std::ops::Range;

use super::{Head, column::Slots};
use crate::{
    isa::{COLUMNS, MAX_LANES, Simd},
    reference::Normalizer,
    softmax::exp2,
};

/// What a readout needs the pass to keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// [`PerLane`]; entropy and distance are right with `moments` alone.
    pub(crate) lanes: bool,
    /// Σ weight · exponent and Σ weight · distance of every query.
    pub(crate) moments: bool,
    /// Every weight: see [`Fuse::see_weights`].
    pub(crate) weights: bool,
    /// The length ‖v‖ of every value.
    pub(crate) value_norms: bool,
    /// The sum of the weights between neighbouring keys of this ascending list.
    pub(crate) cuts: Vec<usize>,
}

/// A readout that can be read out of tiles. Numbers that it keeps per tile stand in a `room`, `[.., queries]`.
pub(crate) trait Fuse<'a>: Head {
    /// What the pass must keep for it.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Vectors that it keeps per vector of queries.
    fn room(&self) -> usize {
        0
    }
    /// Whether each of its arrays has the queries as its first axis and is filled query by query.
    fn by_query(&self) -> bool {
        false
    }
    /// Where the numbers of its queries go, array by array, if they come query by query.
    fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        let _ = slots;
    }
    /// A new tile.
    fn start_tile<S: Simd>(&self, simd: S, room: &mut [S::N]) {
        let _ = (simd, room);
    }
    /// A block of keys in a tile.
    fn see_block<S: Simd>(&mut self, simd: S, block: &Block<S>, room: &mut [S::N]) {
        let _ = (simd, block, room);
    }
    /// All keys have been seen: what concerns all queries of the tile.
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
        let _ = (simd, tile, room);
    }
    /// All weights of a finished tile, block by block in the order of the keys. They come when their place is needed: after
    /// all else of that tile, often while the next one is at work, and tiles not in the order of their queries.
    fn see_weights<S: Simd>(&mut self, simd: S, weights: &Weights<S>) {
        let _ = (simd, weights);
    }
    /// Some queries of a finished tile, one after the other; queries come in ascending order, and those that the pass
    /// can't vouch for come through [`Head::see`] instead.
    fn see_lanes<S: Simd>(&mut self, tile: &Tile<S>, lanes: Range<usize>, room: &[S::N]) {
        let _ = (tile, lanes, room);
    }
    /// Whether it needs of a decoded query no more than [`Fuse::see_sum`] shows.
    fn sum_is_enough(&self) -> bool {
        false
    }
    /// A decoded query, if all readouts have enough of its sum; else they see rows.
    fn see_sum(&mut self, sum: &Normalizer) {
        let _ = sum;
    }
    /// Takes in the same readout of the queries that follow; nothing to do where their numbers are in their place.
    fn absorb(&mut self, later: Self)
    where
        Self: Sized,
    {
        let _ = later;
    }
}

/// The scores of a tile of queries and a block of keys.
pub(crate) struct Block<'a, S: Simd> {
    /// `[keys, queries]`; exponents once multiplied with `unit`.
    pub(crate) scores: &'a [S::N],
    /// The largest score of each query.
    pub(crate) max: [S::F; COLUMNS],
    pub(crate) keys: Range<usize>,
    /// Those of the tile's queries that are not repetitions.
    pub(crate) queries: Range<usize>,
    /// Where the first query stands on the axis of the keys, and the first key of its sequence.
    pub(crate) position: i64,
    pub(crate) first_key: usize,
    /// What scores are multiplied with to be exponents.
    pub(crate) unit: S::N,
    /// `[keys of the head]`, where they were needed.
    pub(crate) value_norms: &'a [f32],
}

/// A tile whose keys have all been seen.
pub(crate) struct Tile<'a, S: Simd> {
    /// Batch element and head.
    pub(crate) head: [usize; 2],
    pub(crate) queries: Range<usize>,
    /// What scores are multiplied with to be exponents.
    pub(crate) unit: S::N,
    pub(crate) top: [S::F; COLUMNS],
    pub(crate) share: [S::F; COLUMNS],
    pub(crate) lanes: &'a PerLane,
    /// Keys between two cuts; the pass may cut them further.
    pub(crate) spans: &'a [Range<usize>],
    /// Weight of each span, `[spans, queries]`; 0 for queries that the pass can't vouch for.
    pub(crate) sums: &'a [S::N],
    /// `[keys of the head]`, where they were needed.
    pub(crate) value_norms: &'a [f32],
}

/// The weights of a finished tile on a block of keys: numbers times the factors of their queries. 0 for queries that the
/// pass can't vouch for.
pub(crate) struct Weights<'a, S: Simd> {
    /// Batch element and head.
    pub(crate) head: [usize; 2],
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
    /// `[keys, queries]`
    pub(crate) numbers: &'a [S::N],
    pub(crate) factors: [S::F; COLUMNS],
    /// `[keys of the head]`, where they were needed.
    pub(crate) value_norms: &'a [f32],
}

impl<S: Simd> Tile<'_, S> {
    /// From scores of the queries in column `c` to weights.
    #[inline(always)]
    pub(crate) fn weight(&self, simd: S, c: usize, scores: S::F) -> S::F {
        self.weight_of(simd, scores, self.top[c], self.share[c])
    }

    /// As [`Tile::weight`], for any queries.
    #[inline(always)]
    pub(crate) fn weight_of(&self, simd: S, scores: S::F, top: S::F, share: S::F) -> S::F {
        let exponent = simd.mul_add_once(scores, simd.splat(self.unit), simd.sub(simd.constant(0.0), top));
        simd.mul(exp2(simd, exponent), share)
    }
}

/// A number of each query of a finished tile.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerLane {
    /// ln Σ exp(score), the sink counted.
    pub(crate) lse: [f64; COLUMNS * MAX_LANES],
    /// −Σ p ln p over the keys.
    pub(crate) entropy: [f64; COLUMNS * MAX_LANES],
    /// The largest weight on a key.
    pub(crate) max_weight: [f64; COLUMNS * MAX_LANES],
    /// Σ p · |distance|.
    pub(crate) distance: [f64; COLUMNS * MAX_LANES],
    /// The share of the sink.
    pub(crate) sink_weight: [f64; COLUMNS * MAX_LANES],
}
