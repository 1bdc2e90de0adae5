//! `segments [batch, heads, queries, S]`: how much of a query's weight falls into each range of keys.

use std::{ops::Range, sync::Arc};

use super::{
    Argument, Array, AtWork, Column, Fuse, Fused, Head, Needs, Parts, Read, Readout, Shape, Slots, Tile,
    Values, numbers,
};
use crate::{
    isa::{COLUMNS, Number, Simd},
    reference::Row,
};

#[derive(Debug)]
struct Segments(Vec<usize>);

impl Read {
    /// `segments`: the weight on each range of keys. Segment `s` ends before `ends[s]` and starts where
    /// the one before it ends; keys after the last end are in no segment.
    pub fn segments(self, ends: &[usize]) -> Self {
        self.with(Segments(ends.to_vec()))
    }
}

pub(super) fn parse(argument: Argument, shape: &Shape) -> Result<Arc<dyn Readout>, String> {
    let quarters = || (1..=4).map(|n| (shape.keys as u128 * n / 4) as usize).collect();
    Ok(Arc::new(Segments(numbers(argument, quarters, "segment end")?)))
}

impl Readout for Segments {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("segments", [shape.queries, self.0.len()])]
    }

    fn check(&self, shape: &Shape) -> Result<(), String> {
        if let Some(pair) = self.0.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(format!("has an end {} after {}; ends must ascend", pair[1], pair[0]));
        }
        match self.0.last() {
            Some(&end) if end > shape.keys => Err(format!("has an end {end} past the {} keys", shape.keys)),
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
        let ends = self.0.iter().map(|end| (*end).clamp(keys.start, keys.end) - keys.start);
        Some(Arc::new(Self(ends.collect())))
    }

    fn fuse(&self, _: &Shape) -> Option<Fused> {
        Some(Fused(AtWork::Segments(self.head())))
    }
}

impl Segments {
    fn head(&self) -> SegmentsHead<'static> {
        SegmentsHead { ends: self.0.clone(), sums: Column::new() }
    }
}

pub(crate) struct SegmentsHead<'a> {
    ends: Vec<usize>,
    /// `[queries seen so far, S]`
    sums: Column<'a, f32>,
}

impl Head for SegmentsHead<'_> {
    fn see(&mut self, row: &Row) {
        let mut at = 0;
        for &end in &self.ends {
            let mut sum = 0.0;
            while at < row.keys.len() && row.keys[at] < end {
                sum += row.weights[at];
                at += 1;
            }
            self.sums.push(sum as f32);
        }
    }

    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.sums.into_list())]
    }
}

impl<'a> Fuse<'a> for SegmentsHead<'a> {
    fn needs(&self) -> Needs {
        Needs { cuts: self.ends.clone(), ..Needs::default() }
    }

    /// One per segment.
    fn room(&self) -> usize {
        self.ends.len()
    }

    #[inline(always)]
    fn finish_tile<S: Simd>(&mut self, simd: S, tile: &Tile<S>, room: &mut [S::N]) {
        let width = COLUMNS * S::LANES;
        let mut spans = tile.spans.iter().zip(tile.sums.chunks_exact(width)).peekable();
        for (end, room) in self.ends.iter().zip(room.chunks_exact_mut(width)) {
            // Beside small blocks a segment is cut into many spans: what an addition loses, the next one gives back (Kahan
            // 1965).
            let mut sums = [[simd.constant(0.0); 2]; COLUMNS];
            while let Some((_, weights)) = spans.next_if(|(span, _)| span.end <= *end) {
                for ([sum, lost], weights) in sums.iter_mut().zip(weights.chunks_exact(S::LANES)) {
                    let more = simd.sub(simd.load(weights), *lost);
                    let both = simd.add(*sum, more);
                    *lost = simd.sub(simd.sub(both, *sum), more);
                    *sum = both;
                }
            }
            for ([sum, _], room) in sums.into_iter().zip(room.chunks_exact_mut(S::LANES)) {
                simd.store(sum, room);
            }
        }
    }

    fn see_lanes<S: Simd>(&mut self, _: &Tile<S>, lanes: Range<usize>, room: &[S::N]) {
        self.sums.extend_lanes(room, COLUMNS * S::LANES, lanes, |sum| sum.to_f64() as f32);
    }

    fn by_query(&self) -> bool {
        true
    }

    fn fill(&mut self, slots: &mut dyn Iterator<Item = Slots<'a>>) {
        self.sums.fill(slots);
    }
}
