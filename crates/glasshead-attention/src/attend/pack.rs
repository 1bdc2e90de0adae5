//! How numbers lie while the fused paths work on them, and the ways there and back.

use std::ops::{Range, RangeInclusive};

use super::{
    ahead::Ahead,
    copies::{Copies, Stay},
    workspace::Lines,
};
use crate::{
    Element, TensorView,
    isa::{COLUMNS, Dot, Lanes, MAX_LANES, Simd},
    mask::{Cover, Mask},
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

/// The keys or values of one head: where they lie if products can use that, else to be copied block by block.
#[derive(Clone, Copy)]
pub(super) struct Source<'a, T: Element> {
    view: TensorView<'a, T>,
    batch: usize,
    head: usize,
    /// What a row is padded to with zeros.
    padded: usize,
    /// The largest stride that is used in place.
    far: usize,
    /// Copies that stay, if they may.
    stay: Option<Stay>,
    /// Where they lie with dims side by side, in their own type.
    dense: Option<Rows<'a, T>>,
}

/// Rows farther apart than this many times their length fall into few sets of the first cache, and each onto
/// a page of its own.
const SPREAD: usize = 2;

impl<'a, T: Element> Source<'a, T> {
    pub(super) fn new(view: TensorView<'a, T>, batch: usize, head: usize, padded: usize) -> Self {
        let dense = view.dense(batch, head).map(|(values, stride)| Rows { values, stride });
        Self { view, batch, head, padded, far: usize::MAX, stay: None, dense }
    }

    /// Copies rows that lie far apart: for values, of which every row is touched again for every few dims, and for what
    /// is read more than once.
    pub(super) fn gathered(mut self) -> Self {
        self.far = SPREAD * self.view.shape()[3];
        self
    }

    /// Copies stay, if they may.
    pub(super) fn staying(self, stay: Option<Stay>) -> Self {
        Self { stay, ..self }
    }

    /// Whether copies stay.
    pub(super) fn stays(&self) -> bool {
        self.stay.is_some()
    }

    /// Whether it is the same head.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.batch, self.head) == (other.batch, other.head)
    }

    /// All rows where they lie, in their own type, if they need no padding.
    pub(super) fn unpadded(&self) -> Option<Rows<'a, T>> {
        self.dense.filter(|_| self.padded == self.view.shape()[3])
    }

    /// All rows where they lie, as items along the dims.
    pub(super) fn in_place<S: Simd<N = T::Number>, D: Dot<S>>(&self) -> Option<Rows<'a, D::Item>> {
        let Rows { values, stride } = self.unpadded()?;
        if stride > self.far || stride % D::DEPTH > 0 {
            return None;
        }
        Some(Rows { values: D::in_place(values)?, stride: stride / D::DEPTH })
    }

    /// As [`Source::in_place`], as items along the tokens.
    pub(super) fn pairs_in_place<S: Simd<N = T::Number>, D: Dot<S>>(&self) -> Option<Rows<'a, D::Item>> {
        if D::DEPTH == 1 { self.in_place::<S, D>() } else { None }
    }

    /// The rows of these tokens as items along the dims, in place or copied.
    #[inline(always)]
    pub(super) fn block<'b, S: Simd<N = T::Number>, D: Dot<S>>(
        &self,
        simd: S,
        tokens: Range<usize>,
        copies: &'b mut Copies<T::Number>,
    ) -> Rows<'b, D::Item>
    where
        'a: 'b,
    {
        if let Some(rows) = self.in_place::<S, D>() {
            return rows.skip(tokens.start);
        }
        let stride = self.padded / D::DEPTH;
        let (room, missing) = copies.of(self.stay, &tokens, [stride, 1]);
        let done = (tokens.len() - missing.len()) * stride;
        self.copy::<S, D>(simd, missing, stride, &mut room[done..]);
        Rows { values: D::items(room), stride }
    }

    /// Copies the rows of these tokens as items along the dims, `stride` apart.
    #[inline(always)]
    pub(super) fn copy<S: Simd<N = T::Number>, D: Dot<S>>(
        &self,
        simd: S,
        tokens: Range<usize>,
        stride: usize,
        room: &mut [T::Number],
    ) {
        for (to, token) in room.chunks_exact_mut(stride).zip(tokens) {
            let vector = self.view.vector(self.batch, self.head, token);
            let mut done = 0;
            if let Some(from) = vector.as_slice() {
                if let Some(from) = D::in_place(from) {
                    done = copy_vectors(simd, from, to);
                } else if D::DEPTH == 1 {
                    done = copy_vectors(simd, from, to);
                }
            }
            let zero = T::Number::default();
            let mut rest = vector.iter().skip(done * D::DEPTH).map(T::to_number);
            for to in &mut to[done..] {
                let first = rest.next().unwrap_or(zero);
                let second = if D::DEPTH == 2 { rest.next().unwrap_or(zero) } else { zero };
                *to = D::item(first, second);
            }
        }
    }

    /// Asks for the copies of these tokens, or for what is to be copied, or used in place. Not for rows that lie far apart:
    /// each is on a page of its own, and looking those up holds up products for longer than copying waits for them.
    pub(super) fn ask(&self, ahead: &mut Ahead, tokens: Range<usize>, copies: &mut Copies<T::Number>) {
        match copies.get(self.stay, &tokens) {
            Some(copies) => ahead.slice(copies),
            None if self.dense.is_some_and(|rows| rows.stride <= self.far) => {
                ahead.tokens(self.view, self.batch, self.head..self.head + 1, tokens);
            }
            None => {}
        }
    }

    /// The rows of these tokens as items along the tokens: row r holds tokens DEPTH · r and following.
    #[inline(always)]
    pub(super) fn pairs<'b, S: Simd<N = T::Number>, D: Dot<S>>(
        &self,
        simd: S,
        tokens: Range<usize>,
        copies: &'b mut Copies<T::Number>,
    ) -> Rows<'b, D::Item>
    where
        'a: 'b,
    {
        if D::DEPTH == 1 {
            return self.block::<S, D>(simd, tokens, copies);
        }
        let (room, missing) = copies.of(self.stay, &tokens, [self.padded, 2]);
        let done = (tokens.len() - missing.len()) / 2 * self.padded;
        self.copy_pairs::<S, D>(simd, missing, &mut room[done..]);
        Rows { values: D::items(room), stride: self.padded }
    }

    #[inline(always)]
    fn copy_pairs<S: Simd<N = T::Number>, D: Dot<S>>(
        &self,
        simd: S,
        tokens: Range<usize>,
        room: &mut [T::Number],
    ) {
        for (to, token) in room.chunks_exact_mut(self.padded).zip(tokens.clone().step_by(2)) {
            let first = self.view.vector(self.batch, self.head, token);
            let second = (token + 1 < tokens.end).then(|| self.view.vector(self.batch, self.head, token + 1));
            let mut done = 0;
            if let (Some(first), Some(second)) =
                (first.as_slice(), second.and_then(|second| second.as_slice()))
            {
                let both = first.chunks_exact(S::LANES).zip(second.chunks_exact(S::LANES));
                let vectors = both.zip(to.chunks_exact_mut(S::LANES));
                done = vectors.len() * S::LANES;
                for ((first, second), to) in vectors {
                    simd.store(D::join(simd, T::load(simd, first), T::load(simd, second)), to);
                }
            }
            let mut second = second.into_iter().flat_map(|second| second.iter().skip(done).map(T::to_number));
            for (to, first) in to[done..].iter_mut().zip(first.iter().skip(done).map(T::to_number)) {
                *to = D::item(first, second.next().unwrap_or_default());
            }
        }
    }
}

/// Copies as many whole vectors as there are; how many values those hold.
#[inline(always)]
fn copy_vectors<S: Simd, L: Lanes<Number = S::N>>(simd: S, from: &[L], to: &mut [S::N]) -> usize {
    let vectors = from.chunks_exact(S::LANES).zip(to.chunks_exact_mut(S::LANES));
    let count = vectors.len();
    for (from, to) in vectors {
        simd.store(L::load(simd, from), to);
    }
    count * S::LANES
}

/// Copies `count` queries from `[batch, head, start]` on as items `[depth, queries]`; lanes without a query of
/// their own repeat the last one.
#[inline(always)]
pub(super) fn pack_queries<S: Simd<N = T::Number>, D: Dot<S>, T: Element>(
    simd: S,
    queries: TensorView<T>,
    [batch, head, start]: [usize; 3],
    count: usize,
    to: &mut [T::Number],
) {
    let width = COLUMNS * S::LANES;
    let depth = to.len() / width;
    let source = Source::new(queries, batch, head, depth * D::DEPTH);
    let (mut whole, done) = (count / S::LANES * S::LANES, depth / S::LANES * S::LANES);
    if let Some(Rows { values, stride }) = source.in_place::<S, D>() {
        simd.transpose([whole, done], &values[start * stride..], stride, to, width);
    } else if let (1, Some(Rows { values, stride })) = (D::DEPTH, source.unpadded()) {
        simd.transpose([whole, done], &values[start * stride..], stride, to, width);
    } else {
        whole = 0;
    }
    for lane in 0..width {
        let done = if lane < whole { done } else { 0 };
        if done == depth {
            continue;
        }
        let vector = queries.vector(batch, head, start + lane.min(count - 1));
        let mut rest = vector.iter().skip(done * D::DEPTH).map(T::to_number);
        for to in to.chunks_exact_mut(width).skip(done) {
            let first = rest.next().unwrap_or_default();
            let second = if D::DEPTH == 2 { rest.next().unwrap_or_default() } else { first };
            to[lane] = D::item(first, second);
        }
    }
}

/// Copies `count` tokens from `[batch, head, start]` on, dims in the lanes: columns as wide as a register tile (the
/// last may be half as wide), in each `tokens` rows. Zeros where there is no token or no dim.
#[inline(always)]
pub(super) fn pack_rows<S: Simd<N = T::Number>, T: Element>(
    simd: S,
    view: TensorView<T>,
    [batch, head, start]: [usize; 3],
    count: usize,
    tokens: usize,
    to: &mut [T::Number],
) {
    let padded = to.len() / tokens;
    for column in (0..padded).step_by(COLUMNS * S::LANES) {
        let width = (padded - column).min(COLUMNS * S::LANES);
        let (to, rest) = to[tokens * column..][..tokens * width].split_at_mut(count * width);
        rest.fill(T::Number::default());
        for (token, to) in to.chunks_exact_mut(width).enumerate() {
            let vector = view.vector(batch, head, start + token);
            let mut done = 0;
            if let Some(from) = vector.as_slice() {
                let from = &from[column..];
                done = copy_vectors(simd, &from[..from.len().min(width)], to);
            }
            let mut rest = vector.iter().skip(column + done).map(T::to_number);
            to[done..].fill_with(|| rest.next().unwrap_or_default());
        }
    }
}

/// Keys of a mask that are read in one go.
const STRIP: usize = 64;

/// The mask of a tile of queries and some keys. Lane `n` is query `first + n`, but at most `last`.
pub(super) struct MaskBlock<'a> {
    mask: Option<&'a Mask<'a>>,
    /// Batch element and head.
    at: [usize; 2],
    queries: RangeInclusive<usize>,
    keys: Range<usize>,
    pub(super) cover: Cover,
}

impl<'a> MaskBlock<'a> {
    #[inline(always)]
    pub(super) fn new(
        mask: Option<&'a Mask>,
        at: [usize; 2],
        queries: RangeInclusive<usize>,
        keys: Range<usize>,
    ) -> Self {
        let cover = match mask {
            Some(mask) => mask.cover(at, queries.clone(), keys.clone()),
            None => Cover::Open,
        };
        Self { mask, at, queries, keys, cover }
    }

    /// What is added to scores, turned around to `[keys, queries]`, −∞ where a key is hidden; None where that is nothing.
    #[inline(always)]
    pub(super) fn pack<'r, S: Simd>(&self, simd: S, room: &'r mut Lines<S::N>) -> Option<&'r [S::N]> {
        let Self { mask, at: [batch, head], ref queries, ref keys, cover } = *self;
        let mask = mask.filter(|_| cover != Cover::Open)?;
        let width = COLUMNS * S::LANES;
        let bias = room.get(keys.len() * width);
        let mut strip = [S::N::default(); MAX_LANES * STRIP];
        for lane in (0..width).step_by(S::LANES) {
            for start in keys.clone().step_by(STRIP) {
                let len = STRIP.min(keys.end - start);
                for (i, row) in strip.chunks_exact_mut(STRIP).take(S::LANES).enumerate() {
                    let query = (queries.start() + lane + i).min(*queries.end());
                    mask.row([batch, head, query], start..start + len, &mut row[..len]);
                }
                let to = &mut bias[(start - keys.start) * width + lane..];
                let whole = len / S::LANES * S::LANES;
                simd.transpose([S::LANES, whole], &strip, STRIP, to, width);
                for (key, to) in to.chunks_mut(width).enumerate().take(len).skip(whole) {
                    for (i, to) in to[..S::LANES].iter_mut().enumerate() {
                        *to = strip[i * STRIP + key];
                    }
                }
            }
        }
        Some(bias)
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
    let turned = dim / S::LANES * S::LANES;
    let mut whole = 0;
    if let Some(out) = T::as_numbers_mut(out) {
        whole = out.len() / dim / S::LANES * S::LANES;
        simd.transpose([turned, whole], o, width, out, dim);
    }
    for (block, out) in out.chunks_mut(S::LANES * dim).enumerate() {
        let lane = block * S::LANES;
        for d in (0..turned).step_by(S::LANES).skip_while(|_| lane < whole) {
            simd.transpose([S::LANES; 2], &o[d * width + lane..], width, square, S::LANES);
            for (out, row) in out.chunks_exact_mut(dim).zip(square.chunks_exact(S::LANES)) {
                T::store(simd, simd.load(row), &mut out[d..]);
            }
        }
        for (i, out) in out.chunks_exact_mut(dim).enumerate() {
            for (d, out) in out.iter_mut().enumerate().skip(turned) {
                *out = T::from_number(o[d * width + lane + i]);
            }
        }
    }
}
