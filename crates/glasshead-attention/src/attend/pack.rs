//! How numbers lie while the fused paths work on them, and the ways there and back.

use std::ops::{Range, RangeInclusive};

use super::{ranges::MAX_LANES, workspace::LINE};
use crate::{
    Element, TensorView,
    isa::{COLUMNS, Simd},
    mask::Mask,
};

/// Rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, N> {
    pub(super) values: &'a [N],
    pub(super) stride: usize,
}

impl<'a, N> Rows<'a, N> {
    pub(super) fn skip(self, rows: usize) -> Self {
        Self { values: &self.values[(rows * self.stride).min(self.values.len())..], ..self }
    }
}

/// The keys or values of one head: where they lie if kernels can use that, else to be copied block by block.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T: Element> {
    view: TensorView<'a, T>,
    batch: usize,
    head: usize,
    /// What a row is padded to with zeros.
    padded: usize,
    in_place: Option<Rows<'a, T::Number>>,
    /// Where they lie with dims side by side, in their own type.
    dense: Option<Rows<'a, T>>,
}

/// Rows farther apart than this many times their length fall into few sets of the first cache, and each onto
/// a page of its own.
const FAR: usize = 2;

impl<'a, T: Element> Source<'a, T> {
    pub(super) fn new(view: TensorView<'a, T>, batch: usize, head: usize, padded: usize) -> Self {
        let dim = view.shape()[3];
        let dense = view.dense(batch, head);
        let rows = view.rows(batch, head).map(|(values, stride)| Rows { values, stride });
        let in_place = rows.filter(|_| padded == dim);
        Self {
            view,
            batch,
            head,
            padded,
            in_place,
            dense: dense.map(|(values, stride)| Rows { values, stride }),
        }
    }

    /// Copies blocks whose rows lie far apart: for values, of which every row is touched again for every few
    /// dims. Keys are read in one go, and gain nothing.
    pub(super) fn gathered(mut self) -> Self {
        let dim = self.view.shape()[3];
        self.in_place = self.in_place.filter(|rows| rows.stride <= FAR * dim);
        self
    }

    /// Whether blocks are not copied.
    pub(super) fn is_in_place(&self) -> bool {
        self.in_place.is_some()
    }

    /// All rows where they lie, in their own type, if they need no padding.
    pub(super) fn unpadded(&self) -> Option<Rows<'a, T>> {
        self.dense.filter(|_| self.padded == self.view.shape()[3])
    }

    /// The rows of these tokens, in place or copied to `room`.
    #[inline(always)]
    pub(super) fn block<'b, S: Simd<N = T::Number>>(
        &self,
        simd: S,
        tokens: Range<usize>,
        room: &'b mut super::workspace::Lines<T::Number>,
    ) -> Rows<'b, T::Number>
    where
        'a: 'b,
    {
        if let Some(rows) = self.in_place {
            return rows.skip(tokens.start);
        }
        let room = room.get(tokens.len() * self.padded);
        for (to, token) in room.chunks_exact_mut(self.padded).zip(tokens) {
            let vector = self.view.vector(self.batch, self.head, token);
            let mut done = 0;
            if let Some(from) = vector.as_slice() {
                while done + S::LANES <= from.len() {
                    simd.store(T::load(simd, &from[done..]), &mut to[done..]);
                    done += S::LANES;
                }
            }
            let rest = vector.iter().skip(done);
            for (to, from) in to[done..]
                .iter_mut()
                .zip(rest.map(T::to_number).chain(std::iter::repeat(T::Number::default())))
            {
                *to = from;
            }
        }
        Rows { values: room, stride: self.padded }
    }

    /// Asks for the cache lines of these tokens.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd<N = T::Number>>(&self, simd: S, tokens: Range<usize>) {
        if let Some(Rows { values, stride }) = self.dense {
            let dim = self.view.shape()[3];
            for token in tokens {
                let row = values.get(token * stride..).unwrap_or_default();
                for line in row[..dim.min(row.len())].chunks(LINE / size_of::<T>()) {
                    simd.prefetch(line);
                }
            }
        }
    }
}

/// Copies `count` queries from `[batch, head, start]` on as `[dim, queries]`; lanes without a query of their
/// own repeat the last one.
#[inline(always)]
pub(super) fn pack_queries<S: Simd<N = T::Number>, T: Element>(
    simd: S,
    queries: TensorView<T>,
    [batch, head, start]: [usize; 3],
    count: usize,
    to: &mut [T::Number],
) {
    let width = COLUMNS * S::LANES;
    let dim = to.len() / width;
    let rows = queries.rows(batch, head);
    for block in (0..width).step_by(S::LANES) {
        let mut d = 0;
        if let Some((rows, stride)) = rows.filter(|_| block + S::LANES <= count) {
            while d + S::LANES <= dim {
                let from = &rows[(start + block) * stride + d..];
                simd.transpose(from, stride, &mut to[d * width + block..], width);
                d += S::LANES;
            }
        }
        if d == dim {
            continue;
        }
        for lane in block..block + S::LANES {
            let vector = queries.vector(batch, head, start + lane.min(count - 1));
            for (to, value) in to.chunks_exact_mut(width).zip(vector.iter()).skip(d) {
                to[lane] = value.to_number();
            }
        }
    }
}

/// Turns a block of the mask around, `[keys, queries]`; −∞ where a key is hidden. Lane `n` is query
/// `first + n`, but at most `last`.
#[inline(always)]
pub(super) fn pack_bias<S: Simd>(
    simd: S,
    mask: &Mask,
    [batch, head]: [usize; 2],
    queries: RangeInclusive<usize>,
    keys: Range<usize>,
    bias: &mut [S::N],
) {
    let width = COLUMNS * S::LANES;
    let mut square = [S::N::default(); MAX_LANES * MAX_LANES];
    let (first, last) = queries.into_inner();
    for lane in (0..width).step_by(S::LANES) {
        for start in keys.clone().step_by(S::LANES) {
            let len = S::LANES.min(keys.end - start);
            for (i, row) in square.chunks_exact_mut(S::LANES).take(S::LANES).enumerate() {
                mask.row([batch, head, (first + lane + i).min(last)], start..start + len, &mut row[..len]);
            }
            let to = &mut bias[(start - keys.start) * width + lane..];
            if len == S::LANES {
                simd.transpose(&square, S::LANES, to, width);
                continue;
            }
            for (key, to) in to.chunks_mut(width).enumerate() {
                for (i, to) in to[..S::LANES].iter_mut().enumerate() {
                    *to = square[i * S::LANES + key];
                }
            }
        }
    }
}

/// Turns oᵀ `[dim, queries]` around into `out [queries, dim]`, rounded to its type; `square` is room for one
/// square of lanes.
#[inline(always)]
pub(super) fn unpack<S: Simd<N = T::Number>, T: Element>(
    simd: S,
    o: &[T::Number],
    out: &mut [T],
    dim: usize,
    square: &mut [T::Number],
) {
    let width = COLUMNS * S::LANES;
    for (block, out) in out.chunks_mut(S::LANES * dim).enumerate() {
        let lane = block * S::LANES;
        let mut d = 0;
        while d + S::LANES <= dim {
            let o = &o[d * width + lane..];
            d += S::LANES;
            if let Some(out) = T::as_numbers_mut(out).filter(|out| out.len() == S::LANES * dim) {
                simd.transpose(o, width, &mut out[d - S::LANES..], dim);
                continue;
            }
            simd.transpose(o, width, square, S::LANES);
            for (out, row) in out.chunks_exact_mut(dim).zip(square.chunks_exact(S::LANES)) {
                for (out, x) in out[d - S::LANES..d].iter_mut().zip(row) {
                    *out = T::from_number(*x);
                }
            }
        }
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            for (d, out) in out.iter_mut().enumerate().skip(d) {
                *out = T::from_number(o[d * width + lane + i]);
            }
        }
    }
}
