//! Which keys the queries of a tile may see, before any mask array.

use std::ops::Range;

use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    mask::Reach,
};

/// The most queries of a tile, over all sets.
pub(super) const MAX_WIDTH: usize = COLUMNS * MAX_LANES;

/// The keys that each query of a tile may see, before any mask array.
pub(super) struct Ranges {
    /// The union: what is visited.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The intersection: what needs no look per query.
    pub(super) common: Range<usize>,
    pub(super) starts: [usize; MAX_WIDTH],
    pub(super) ends: [usize; MAX_WIDTH],
}

impl Ranges {
    /// Of a tile without queries.
    pub(super) const NONE: Self =
        Self { start: 0, end: 0, common: 0..usize::MAX, starts: [0; MAX_WIDTH], ends: [0; MAX_WIDTH] };

    /// Of `width` lanes: the queries of one sequence from `first` on, the last of them repeated.
    pub(super) fn new(reach: &Reach, queries: Range<usize>, width: usize) -> Self {
        let Range { start, end } = reach.keys(queries.start);
        let mut ranges =
            Self { start, end, common: start..end, starts: [start; MAX_WIDTH], ends: [end; MAX_WIDTH] };
        if reach.is_even() {
            return ranges;
        }
        let last = queries.end - 1;
        (ranges.start, ranges.end) = (usize::MAX, 0);
        for lane in 0..width {
            let keys = reach.keys(last.min(queries.start + lane));
            (ranges.starts[lane], ranges.ends[lane]) = (keys.start, keys.end);
            if !keys.is_empty() {
                ranges.start = ranges.start.min(keys.start);
                ranges.end = ranges.end.max(keys.end);
            }
        }
        // Both edges ascend with the position.
        ranges.common = ranges.starts[width - 1]..ranges.ends[0];
        ranges.start = ranges.start.min(ranges.end);
        ranges
    }

    /// How many keys at the start of this block every query sees.
    #[inline(always)]
    pub(super) fn open(&self, start: usize, len: usize) -> usize {
        let Range { start: first, end } = self.common;
        if first <= start { end.saturating_sub(start).min(len) } else { 0 }
    }

    /// From which to before which key of this block each lane may look; `None` where all see all.
    #[inline(always)]
    pub(super) fn bounds<S: Simd>(&self, simd: S, start: usize, len: usize) -> Option<[[S::F; 2]; COLUMNS]> {
        if self.common.start <= start && start + len <= self.common.end {
            return None;
        }
        let mut bounds = [[simd.constant(0.0); 2]; COLUMNS];
        for (c, bounds) in bounds.iter_mut().enumerate() {
            for (bound, edges) in bounds.iter_mut().zip([&self.starts, &self.ends]) {
                let mut lanes = [S::N::default(); MAX_LANES];
                for (lane, edge) in lanes.iter_mut().zip(&edges[c * S::LANES..(c + 1) * S::LANES]) {
                    *lane = S::N::from_f64(edge.saturating_sub(start).min(len) as f64);
                }
                *bound = simd.load(&lanes);
            }
        }
        Some(bounds)
    }
}

/// What any tile of a panel visits.
pub(super) fn union(ranges: &[Ranges]) -> Range<usize> {
    let start = ranges.iter().filter(|range| range.start < range.end).map(|range| range.start).min();
    start.unwrap_or(0)..ranges.iter().map(|range| range.end).max().unwrap_or(0)
}
