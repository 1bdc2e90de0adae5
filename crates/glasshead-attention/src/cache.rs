//! The keys and values of a text that grows, token by token.

use crate::{Attention, AttentionError, Causal, Element, TensorView, views::fits};

/// Keys and values of the tokens so far, with room for more.
///
/// Memory for `capacity` tokens is taken at once, `[batch, kv_heads, capacity, dim]`, so that appending writes
/// the new tokens and moves nothing.
///
/// ```
/// use glasshead_attention::{KvCache, TensorView};
///
/// let mut cache = KvCache::<f32>::new([1, 2, 100], 4, 4)?;
/// let (token, query) = ([1f32; 8], [0.5f32; 16]);
/// let new = TensorView::contiguous(&token, [1, 2, 1, 4])?;
/// cache.append(new, new)?;
/// let out = cache.attention(TensorView::contiguous(&query, [1, 4, 1, 4])?).run()?.out;
/// assert_eq!((cache.len(), out), (1, vec![1.0; 16]));
/// # Ok::<(), glasshead_attention::AttentionError>(())
/// ```
#[derive(Clone)]
pub struct KvCache<T> {
    k: Vec<T>,
    v: Vec<T>,
    /// `[batch, kv_heads, capacity]`
    shape: [usize; 3],
    dim: usize,
    value_dim: usize,
    len: usize,
}

/// Its sizes; the numbers may be millions.
impl<T> std::fmt::Debug for KvCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shape, dim, value_dim, len, .. } = self;
        let mut told = f.debug_struct("KvCache");
        told.field("shape", shape).field("dim", dim).field("value_dim", value_dim).field("len", len);
        told.finish_non_exhaustive()
    }
}

impl<T: Element> KvCache<T> {
    /// An empty cache for `[batch, kv_heads, capacity]` vectors.
    ///
    /// # Errors
    /// When that does not fit into memory.
    pub fn new(shape: [usize; 3], dim: usize, value_dim: usize) -> Result<Self, AttentionError> {
        let zeros = |dim: usize| {
            let len = fits::<T>(shape.into_iter().chain([dim]))?;
            Some(vec![T::default(); len])
        };
        let too_large = || {
            let [batch, kv_heads, capacity] = shape;
            let found = [batch, kv_heads, capacity, dim.max(value_dim)];
            AttentionError::shape("cache", &found, "a cache that fits into memory")
        };
        let (k, v) = (zeros(dim).ok_or_else(too_large)?, zeros(value_dim).ok_or_else(too_large)?);
        Ok(Self { k, v, shape, dim, value_dim, len: 0 })
    }

    /// Adds the keys `[batch, kv_heads, new, dim]` and values `[batch, kv_heads, new, value_dim]` of new tokens.
    ///
    /// # Errors
    /// When a shape does not fit, or there is no room for so many; nothing is added then.
    pub fn append(&mut self, k: TensorView<T>, v: TensorView<T>) -> Result<(), AttentionError> {
        let [batch, kv_heads, capacity] = self.shape;
        let new = k.shape()[2];
        for (what, view, dim) in [("k", k, self.dim), ("v", v, self.value_dim)] {
            if view.shape() != [batch, kv_heads, new, dim] {
                let expected = format!("[{batch}, {kv_heads}, {new}, {dim}] as in the cache");
                return Err(AttentionError::shape(what, &view.shape(), expected));
            }
        }
        if new > capacity - self.len {
            let problem = format!("new tokens do not fit: the cache holds {} of {capacity}", self.len);
            return Err(AttentionError::value("append", new, problem));
        }
        for (to, view, dim) in [(&mut self.k, k, self.dim), (&mut self.v, v, self.value_dim)] {
            for head in 0..batch * kv_heads {
                for token in 0..new {
                    let start = (head * capacity + self.len + token) * dim;
                    let vector = view.vector(head / kv_heads, head % kv_heads, token);
                    match vector.as_slice() {
                        Some(from) => to[start..start + dim].copy_from_slice(from),
                        None => {
                            for (to, from) in to[start..start + dim].iter_mut().zip(vector.iter()) {
                                *to = from;
                            }
                        }
                    }
                }
            }
        }
        self.len += new;
        Ok(())
    }

    /// The keys so far, `[batch, kv_heads, len, dim]`.
    pub fn k(&self) -> TensorView<'_, T> {
        self.view(&self.k, self.dim)
    }

    /// The values so far, `[batch, kv_heads, len, value_dim]`.
    pub fn v(&self) -> TensorView<'_, T> {
        self.view(&self.v, self.value_dim)
    }

    fn view<'a>(&self, data: &'a [T], dim: usize) -> TensorView<'a, T> {
        let [batch, kv_heads, capacity] = self.shape;
        let strides = [kv_heads * capacity * dim, capacity * dim, dim, 1];
        TensorView::within(data, [batch, kv_heads, self.len, dim], strides)
    }

    /// Attention of queries `[batch, heads, new, dim]` that stand at the end of what is cached: causal, the last
    /// query sees the last key.
    pub fn attention<'a>(&'a self, q: TensorView<'a, T>) -> Attention<'a, T> {
        Attention::new(q, self.k(), self.v()).causal(Causal::BottomRight)
    }

    /// How many tokens are cached.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many tokens there is room for.
    pub fn capacity(&self) -> usize {
        self.shape[2]
    }

    /// Forgets all tokens but the first `len`; does nothing where there are no more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_piece_by_piece_is_appending_at_once() {
        let values: Vec<f32> = (0..2 * 3 * 10 * 4).map(|i| (i as f32 * 0.7).sin()).collect();
        let whole = TensorView::from_tokens(&values, 2, 10, 3, 4).unwrap();
        let mut at_once = KvCache::new([2, 3, 12], 4, 4).unwrap();
        at_once.append(whole, whole).unwrap();
        let mut pieces = KvCache::new([2, 3, 12], 4, 4).unwrap();
        for (from, to) in [(0, 1), (1, 7), (7, 10)] {
            let piece = TensorView::new(&values[from * 12..], [2, 3, to - from, 4], [120, 4, 12, 1]).unwrap();
            pieces.append(piece, piece).unwrap();
        }
        let q = TensorView::contiguous(&values, [2, 3, 2, 4]).unwrap();
        let out = at_once.attention(q).run().unwrap().out;
        assert_eq!(out, pieces.attention(q).run().unwrap().out);
        assert_eq!(out, Attention::new(q, whole, whole).causal(Causal::BottomRight).run().unwrap().out);

        assert!(pieces.append(q, q).is_ok(), "two more fit");
        assert!(pieces.append(q, q).is_err() && pieces.len() == 12);
        pieces.truncate(5);
        assert_eq!(pieces.k().shape(), [2, 3, 5, 4]);
        assert!(pieces.append(q, TensorView::contiguous(&values, [2, 3, 3, 4]).unwrap()).is_err());
        assert!(KvCache::<f32>::new([usize::MAX, 2, 3], 4, 4).is_err());
    }
}
