//! Memory that is asked for while the processor multiplies: a little at a time, because it can wait for few
//! cache lines at once.

use std::ops::Range;

use super::{Problem, pack::Rows, workspace::LINE};
use crate::{Element, TensorView, isa::Simd};

/// Cache lines on a grid, a share of its rows for each part of the work.
#[derive(Clone, Copy)]
struct Lines {
    start: *const u8,
    /// Bytes of a row, and from one row to the next.
    row: usize,
    stride: usize,
    rows: usize,
    share: usize,
}

/// What will be needed soon.
pub(super) struct Ahead {
    lines: [Lines; 4],
    count: usize,
    /// How many parts the work has that all of it is spread over.
    parts: usize,
}

impl Ahead {
    pub(super) fn nothing(parts: usize) -> Self {
        let none = Lines { start: std::ptr::null(), row: 0, stride: 0, rows: 0, share: 0 };
        Self { lines: [none; 4], count: 0, parts: parts.max(1) }
    }

    /// Tokens of one head, if their numbers lie side by side.
    pub(super) fn tokens<T: Element>(
        self,
        view: TensorView<T>,
        [batch, head]: [usize; 2],
        tokens: Range<usize>,
    ) -> Self {
        let Some((values, stride)) = view.dense(batch, head) else { return self };
        let rows = Rows { values, stride }.skip(tokens.start);
        let dim = view.shape()[3].min(rows.values.len());
        self.grid(rows.values.as_ptr(), dim, rows.stride, tokens.len())
    }

    /// All of a slice.
    pub(super) fn slice<T>(self, values: &[T]) -> Self {
        self.grid(values.as_ptr(), values.len(), values.len(), 1)
    }

    fn grid<T>(mut self, start: *const T, len: usize, stride: usize, rows: usize) -> Self {
        let [mut row, mut stride] = [len, stride].map(|n| n * size_of::<T>());
        let mut rows = rows;
        if stride == row {
            // Without gaps it is one row of lines.
            (rows, row, stride) = ((rows * row).div_ceil(LINE), LINE, LINE);
        }
        if rows > 0 && self.count < self.lines.len() {
            let share = rows.div_ceil(self.parts);
            self.lines[self.count] = Lines { start: start.cast(), row, stride, rows, share };
            self.count += 1;
        }
        self
    }

    /// A panel's queries and its first `keys` keys and values.
    pub(super) fn panel<T: Element>(
        self,
        problem: &Problem<T>,
        [batch, head, first]: [usize; 3],
        count: usize,
        keys: usize,
    ) -> Self {
        let key_head = head / problem.group;
        let start = problem.visibility.keys(batch, first).start;
        let keys = start..problem.keys.min(start + keys);
        self.tokens(problem.q, [batch, head], first..problem.queries.min(first + count))
            .tokens(problem.k, [batch, key_head], keys.clone())
            .tokens(problem.v, [batch, key_head], keys)
    }

    /// Asks for the share of one part.
    #[inline(always)]
    pub(super) fn fetch<S: Simd>(&self, simd: S, part: usize) {
        for lines in &self.lines[..self.count] {
            let Lines { start, row, stride, rows, share } = *lines;
            let from = part * share;
            let mut at = start.wrapping_add(from * stride);
            for _ in from..rows.min(from + share) {
                for line in (0..row).step_by(LINE) {
                    simd.prefetch(at.wrapping_add(line));
                }
                at = at.wrapping_add(stride);
            }
        }
    }
}
