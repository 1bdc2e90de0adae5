//! Strided views of q, k and v. Nothing is copied; every later index is covered by the check in `new`.

use crate::{AttentionError, Element};

/// A view of `[batch, heads, tokens, dim]` numbers with any stride on any axis.
#[derive(Clone, Copy)]
pub struct TensorView<'a, T> {
    data: &'a [T],
    shape: [usize; 4],
    strides: [usize; 4],
}

/// One token's vector inside a view: `len` values, `stride` apart.
#[derive(Clone, Copy)]
pub struct Vector<'a, T> {
    data: &'a [T],
    len: usize,
    stride: usize,
}

/// Its shape and strides; the numbers may be millions.
impl<T> std::fmt::Debug for TensorView<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, strides, .. } = self;
        f.debug_struct("TensorView").field("shape", shape).field("strides", strides).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Vector<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { len, stride, .. } = self;
        f.debug_struct("Vector").field("len", len).field("stride", stride).finish_non_exhaustive()
    }
}

impl<'a, T: Element> TensorView<'a, T> {
    /// A view with `strides` (in values) of the axes `[batch, heads, tokens, dim]`.
    ///
    /// # Errors
    /// [`AttentionError::OutOfSlice`] when the last value lies past the end of `data`.
    pub fn new(data: &'a [T], shape: [usize; 4], strides: [usize; 4]) -> Result<Self, AttentionError> {
        let needed = values_needed(shape, strides);
        if needed.is_none_or(|needed| needed > data.len()) {
            let (needed, found) = (needed.unwrap_or(usize::MAX), data.len());
            return Err(AttentionError::OutOfSlice { array: "view", shape, strides, needed, found });
        }
        Ok(Self { data, shape, strides })
    }

    /// A view that its maker knows to lie in the slice.
    ///
    /// # Panics
    /// When it does not.
    pub(crate) fn within(data: &'a [T], shape: [usize; 4], strides: [usize; 4]) -> Self {
        assert!(values_needed(shape, strides).is_some_and(|needed| needed <= data.len()));
        Self { data, shape, strides }
    }

    /// A view of values that lie as `[batch, heads, tokens, dim]`, one after the other.
    ///
    /// # Errors
    /// [`AttentionError::OutOfSlice`] when `data` is too short.
    pub fn contiguous(data: &'a [T], shape: [usize; 4]) -> Result<Self, AttentionError> {
        let [_, heads, tokens, dim] = shape;
        let token = dim;
        let head = token.saturating_mul(tokens);
        Self::new(data, shape, [head.saturating_mul(heads), head, token, 1])
    }

    /// A view of values that lie as `[batch, tokens, heads, dim]`, the way linear layers leave them.
    ///
    /// # Errors
    /// [`AttentionError::OutOfSlice`] when `data` is too short.
    pub fn from_tokens(
        data: &'a [T],
        batch: usize,
        tokens: usize,
        heads: usize,
        dim: usize,
    ) -> Result<Self, AttentionError> {
        let token = heads.saturating_mul(dim);
        Self::new(data, [batch, heads, tokens, dim], [token.saturating_mul(tokens), dim, token, 1])
    }

    /// `[batch, heads, tokens, dim]`
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The vector of one token in one head.
    ///
    /// # Panics
    /// When an index is not below its axis.
    #[inline]
    pub fn vector(&self, batch: usize, head: usize, token: usize) -> Vector<'a, T> {
        let [batches, heads, tokens, len] = self.shape;
        assert!(
            batch < batches && head < heads && token < tokens,
            "vector [{batch}, {head}, {token}] of {:?}",
            self.shape
        );
        let [batch_stride, head_stride, token_stride, stride] = self.strides;
        let start =
            if len == 0 { 0 } else { batch * batch_stride + head * head_stride + token * token_stride };
        Vector { data: &self.data[start..], len, stride }
    }

    /// Whether the heads of a token lie side by side.
    pub(crate) fn heads_together(&self) -> bool {
        let [_, heads, _, dim] = self.shape;
        let unit = self.strides[3] == 1 || dim == 1;
        unit && self.strides[1] == dim && heads.saturating_mul(dim) <= self.strides[2]
    }

    /// The values of one head from its first vector on, and the stride between vectors, where their dims lie
    /// side by side.
    pub(crate) fn dense(&self, batch: usize, head: usize) -> Option<(&'a [T], usize)> {
        let [_, _, tokens, dim] = self.shape;
        let [batch_stride, head_stride, token_stride, dim_stride] = self.strides;
        let unit = dim_stride == 1 || dim == 1;
        (unit && tokens > 0).then(|| (&self.data[batch * batch_stride + head * head_stride..], token_stride))
    }
}

impl<'a, T: Element> Vector<'a, T> {
    /// The values in order.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = T> + 'a {
        let Self { data, len, stride } = self;
        (0..len).map(move |at| data[at * stride])
    }

    /// The values as they lie, where they lie side by side.
    pub fn as_slice(self) -> Option<&'a [T]> {
        (self.stride == 1 || self.len <= 1).then(|| &self.data[..self.len])
    }

    /// The values in order, widened to f64.
    pub fn to_f64(self) -> Vec<f64> {
        self.iter().map(T::to_f64).collect()
    }
}

/// How many values an array of this shape holds, `None` on overflow.
pub(crate) fn count(shape: impl IntoIterator<Item = usize>) -> Option<usize> {
    shape.into_iter().try_fold(1usize, |n, len| n.checked_mul(len))
}

/// Bytes that memory has room for: to ask the system would take as long as a small problem.
const ROOM: usize = 16 << 20;

/// As [`count`], `None` also where memory has no room for them.
pub(crate) fn fits<T>(shape: impl IntoIterator<Item = usize>) -> Option<usize> {
    let len = count(shape)?;
    let small = len.saturating_mul(size_of::<T>()) <= ROOM;
    (small || Vec::<T>::new().try_reserve_exact(len).is_ok()).then_some(len)
}

/// One more than the largest index, 0 for an empty shape, `None` on overflow.
pub(crate) fn values_needed(shape: [usize; 4], strides: [usize; 4]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0usize;
    for (len, stride) in shape.into_iter().zip(strides) {
        last = last.checked_add((len - 1).checked_mul(stride)?)?;
    }
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_never_reaches_past_its_slice() {
        let data = [0f32; 24];
        assert!(TensorView::contiguous(&data, [1, 2, 3, 4]).is_ok());
        assert!(TensorView::contiguous(&data, [1, 2, 3, 5]).is_err());
        assert!(TensorView::contiguous(&data, [usize::MAX, 2, 3, usize::MAX]).is_err());
        assert!(TensorView::new(&data, [1, 1, 24, 1], [0, 0, 1, 1]).is_ok());
        assert!(TensorView::new(&data, [1, 1, 24, 2], [0, 0, 1, 1]).is_err());
        assert!(TensorView::new(&data, [0, 9, 9, 9], [99, 99, 99, 99]).is_ok());
    }

    #[test]
    fn token_major_and_head_major_views_agree() {
        let data: Vec<f32> = (0..24).map(|x| x as f32).collect();
        let view = TensorView::from_tokens(&data, 1, 3, 2, 4).unwrap();
        assert_eq!(view.shape(), [1, 2, 3, 4]);
        assert_eq!(view.vector(0, 1, 2).to_f64(), [20.0, 21.0, 22.0, 23.0]);
    }
}
