//! Memory that is asked for while the processor multiplies. It can wait for few cache lines at once, and what
//! is asked for in one go holds up what is needed now: so it is a little at a time, inside the register tiles.

use std::ops::Range;

use super::{pack::Rows, prefill::TILES, workspace::LINE};
use crate::{Element, TensorView, isa::Simd, mask::Mask};

/// Bytes that one call of [`Share::fetch`] asks for.
const PAIR: usize = 2 * LINE;

/// The most that is asked for at a time: queries, output, mask, keys and values, the weights of each tile.
const GRIDS: usize = 5 + TILES;

/// Pairs of cache lines on a grid.
#[derive(Clone, Copy)]
struct LinePairs {
    start: *const u8,
    /// How many pairs, and bytes from one to the next, on the axis that a share walks on and on the other.
    along: [usize; 2],
    across: [usize; 2],
}

/// What will be needed soon, shared out over register tiles.
pub(super) struct Ahead {
    lines: [LinePairs; GRIDS],
    count: usize,
    /// How many pairs a register tile asks for.
    pairs: usize,
    /// How many register tiles there will be, how many are needed, and how the one spreads over the other.
    tiles: usize,
    needed: usize,
    turn: usize,
    /// What comes next: of which lines, which pair across, from which pair along on.
    at: [usize; 3],
}

/// What one register tile asks for, pair by pair.
#[derive(Clone, Copy)]
pub(super) struct Share {
    at: *const u8,
    step: usize,
    len: usize,
}

impl Share {
    #[inline(always)]
    pub(super) fn fetch<S: Simd>(&mut self, simd: S) {
        simd.prefetch(self.at);
        simd.prefetch(self.at.wrapping_add(LINE));
        self.at = self.at.wrapping_add(self.step);
    }

    /// As many times as a register tile is to ask.
    #[inline(always)]
    pub(super) fn fetch_all<S: Simd>(mut self, simd: S) {
        self.fetch_some(simd, self.len);
    }

    /// So many times, as far as there is something left to ask for.
    #[inline(always)]
    pub(super) fn fetch_some<S: Simd>(&mut self, simd: S, times: usize) {
        let times = times.min(self.len);
        self.len -= times;
        for _ in 0..times {
            self.fetch(simd);
        }
    }

    /// How many times are left to ask; 0 where there is nothing to ask for.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// How many pairs of cache lines a token of this view takes.
pub(super) fn pairs<T: Element>(view: TensorView<T>) -> usize {
    (view.shape()[3] * size_of::<T>()).div_ceil(PAIR)
}

impl Ahead {
    /// For so many register tiles, each of which asks `pairs` times.
    pub(super) fn nothing(tiles: usize, pairs: usize) -> Self {
        let none = LinePairs { start: std::ptr::null(), along: [0; 2], across: [0; 2] };
        Self { lines: [none; GRIDS], count: 0, pairs, tiles, needed: 0, turn: 0, at: [0; 3] }
    }

    /// Whether nothing is asked for, whatever is to come.
    pub(super) fn is_idle(&self) -> bool {
        self.pairs == 0
    }

    /// Tokens of one head, or of several that lie side by side, if their numbers lie side by side.
    pub(super) fn tokens<T: Element>(
        &mut self,
        view: TensorView<T>,
        batch: usize,
        heads: Range<usize>,
        tokens: Range<usize>,
    ) {
        let Some((values, stride)) = view.dense(batch, heads.start) else { return };
        let rows = Rows { values, stride }.skip(tokens.start);
        let len = (heads.len() * view.shape()[3]).min(rows.values.len());
        self.grid(rows.values.as_ptr(), len, rows.stride, tokens.len());
    }

    /// All of a slice.
    pub(super) fn slice<T>(&mut self, values: &[T]) {
        self.grid(values.as_ptr(), values.len(), values.len(), 1);
    }

    /// What a mask says of some queries and keys.
    pub(super) fn mask(
        &mut self,
        mask: Option<&Mask>,
        [batch, head]: [usize; 2],
        queries: Range<usize>,
        keys: Range<usize>,
    ) {
        let Some(mask) = mask.filter(|_| !keys.is_empty()) else { return };
        let (start, [row, stride]) = mask.bytes([batch, head, queries.start], keys);
        self.grid(start, row, stride, if stride == 0 { 1 } else { queries.len() });
    }

    fn grid<T>(&mut self, start: *const T, len: usize, stride: usize, rows: usize) {
        let [row, stride] = [len, stride].map(|n| n * size_of::<T>());
        // Without gaps it is one row.
        let (row, rows) = if stride == row { (rows * row, rows.min(1)) } else { (row, rows) };
        if rows > 0 && row > 0 && self.count < self.lines.len() && self.pairs > 0 {
            let (columns, rows) = ([row.div_ceil(PAIR), PAIR], [rows, stride]);
            // Along a row where it is long enough, or the only one: every row may lie on a memory page of its own.
            let by_row = rows[0] == 1 || columns[0] >= self.pairs;
            let (along, across) = if by_row { (columns, rows) } else { (rows, columns) };
            self.lines[self.count] = LinePairs { start: start.cast(), along, across };
            self.count += 1;
            self.needed += across[0].saturating_mul(along[0].div_ceil(self.pairs));
        }
    }

    /// What the next register tile is to ask for; `idle`, which is at hand already, where that is nothing.
    #[inline(always)]
    pub(super) fn next<T>(&mut self, idle: &[T]) -> Share {
        self.turn += self.needed.min(self.tiles);
        let [lines, across, along] = &mut self.at;
        if self.turn < self.tiles || *lines == self.count {
            return Share { at: idle.as_ptr().cast(), step: 0, len: 0 };
        }
        self.turn -= self.tiles;
        let grid = self.lines[*lines];
        let at = grid.start.wrapping_add(*across * grid.across[1] + *along * grid.along[1]);
        *along += self.pairs;
        if *along >= grid.along[0] {
            (*across, *along) = (*across + 1, 0);
        }
        if *across >= grid.across[0] {
            (*lines, *across) = (*lines + 1, 0);
        }
        Share { at, step: grid.along[1], len: self.pairs }
    }
}
