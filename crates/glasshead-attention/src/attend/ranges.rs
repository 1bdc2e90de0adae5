//! Which keys the queries of a tile may see, before any mask array.

use std::ops::Range;

use crate::{
    isa::{COLUMNS, MAX_LANES, Number, Simd},
    mask::Reach,
};

/// The most queries of a tile, over all sets.
pub(super) const MAX_WIDTH: usize = COLUMNS * MAX_LANES;

/// The keys that the queries of a tile may see, before any mask array.
pub(super) struct Ranges {
    queries: Range<usize>,
    /// The union: what is visited.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The intersection: what needs no look per query.
    common: Range<usize>,
}

impl Ranges {
    /// Of a tile without queries.
    pub(super) const NONE: Self = Self { queries: 0..0, start: 0, end: 0, common: 0..usize::MAX };

    /// Of queries of one sequence.
    pub(super) fn new(reach: &Reach, queries: Range<usize>) -> Self {
        let Range { start, end } = reach.keys(queries.start);
        let mut ranges = Self { queries: queries.clone(), start, end, common: start..end };
        if reach.is_even() {
            return ranges;
        }
        (ranges.start, ranges.end) = (usize::MAX, 0);
        for keys in queries.clone().map(|query| reach.keys(query)).filter(|keys| !keys.is_empty()) {
            ranges.start = ranges.start.min(keys.start);
            ranges.end = ranges.end.max(keys.end);
        }
        // Both edges ascend with the position.
        ranges.common = reach.keys(queries.end - 1).start..end;
        ranges.start = ranges.start.min(ranges.end);
        ranges
    }

    /// How many keys at the start of this block every query sees.
    #[inline(always)]
    pub(super) fn open(&self, start: usize, len: usize) -> usize {
        let Range { start: first, end } = self.common;
        if first <= start { end.saturating_sub(start).min(len) } else { 0 }
    }

    /// From which to before which key of this block each lane may look; `None` where all see all. Lanes without a query of
    /// their own are as the last one.
    #[inline(always)]
    pub(super) fn bounds<S: Simd>(
        &self,
        simd: S,
        reach: &Reach,
        start: usize,
        len: usize,
    ) -> Option<[[S::F; 2]; COLUMNS]> {
        if self.common.start <= start && start + len <= self.common.end {
            return None;
        }
        let within = |edge: usize| S::N::from_f64(edge.saturating_sub(start).min(len) as f64);
        let mut bounds = [[simd.constant(0.0); 2]; COLUMNS];
        for (c, bounds) in bounds.iter_mut().enumerate() {
            let [mut starts, mut ends] = [[S::N::default(); MAX_LANES]; 2];
            let first = self.queries.start + c * S::LANES;
            for (lane, (start, end)) in starts[..S::LANES].iter_mut().zip(&mut ends).enumerate() {
                let keys = reach.keys((first + lane).min(self.queries.end - 1));
                (*start, *end) = (within(keys.start), within(keys.end));
            }
            *bounds = [simd.load(&starts), simd.load(&ends)];
        }
        Some(bounds)
    }
}

/// What any tile of a panel visits.
pub(super) fn union(ranges: &[Ranges]) -> Range<usize> {
    let start = ranges.iter().filter(|range| range.start < range.end).map(|range| range.start).min();
    start.unwrap_or(0)..ranges.iter().map(|range| range.end).max().unwrap_or(0)
}
