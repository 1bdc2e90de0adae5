//! One pass of a model over its input, as every family goes through it: which token stands where, the cache,
//! and the one step in which a layer attends and is looked at.

use std::ops::ControlFlow;

use glasshead_attention::{Attention, Causal, InstructionSet, KvCache, Packed, Read, TensorView, Window};
use rayon::prelude::*;

use super::elementwise::by_rows;
use super::layers::{Linear, Norm, Scratch, inner, room};
use super::{Info, LayerView, Watch};
use crate::{Error, Result};

/// What a model reads in one pass.
#[derive(Debug)]
pub struct Input<'a> {
    /// Token ids, special tokens included; of several texts behind each other.
    pub ids: &'a [u32],
    /// Where each of several texts ends in `ids`, the last one at its end; they do not see each other. Empty: it
    /// is one text.
    pub ends: &'a [usize],
    /// What a decoder has read of this text before; the new tokens stand behind it, and are added to it.
    pub cache: Option<&'a mut Cache>,
    /// Reads texts longer than the model was made for, where its positions have no last one.
    pub force_context: bool,
    /// Forces the attention to an instruction set; linear layers take what they know best.
    pub instruction_set: Option<InstructionSet>,
}

impl<'a> Input<'a> {
    /// One text from its beginning.
    pub fn text(ids: &'a [u32]) -> Self {
        Self { ids, ends: &[], cache: None, force_context: false, instruction_set: None }
    }

    /// Several texts behind each other, each up to its end.
    pub fn several(ids: &'a [u32], ends: &'a [usize]) -> Self {
        Self { ends, ..Self::text(ids) }
    }

    /// A text that goes on after what is cached.
    pub fn after(ids: &'a [u32], cache: &'a mut Cache) -> Self {
        Self { cache: Some(cache), ..Self::text(ids) }
    }
}

/// The keys and values of a text that a decoder has read so far, of all its layers.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<KvCache<f32>>,
    /// `[kv_heads, head_dim]`
    shape: [usize; 2],
    capacity: usize,
    /// Tokens that have gone through all layers.
    len: usize,
}

impl Cache {
    /// An empty cache with room for `capacity` tokens: two times `layers · kv_heads · capacity · head_dim` numbers.
    ///
    /// # Errors
    /// When that does not fit into memory.
    pub fn new(info: &Info, capacity: usize) -> Result<Self> {
        let Info { layers, kv_heads, head_dim, .. } = *info;
        let layer = || {
            KvCache::new([1, kv_heads, capacity], head_dim, head_dim).map_err(|_| {
                Error::environment(
                    format!("the keys and values of {capacity} tokens do not fit into memory"),
                    "give a shorter text, or let the model write fewer tokens",
                )
            })
        };
        let layers = (0..layers).map(|_| layer()).collect::<Result<_>>()?;
        Ok(Self { layers, shape: [kv_heads, head_dim], capacity, len: 0 })
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
        self.capacity
    }

    /// Forgets all tokens but the first `len`; does nothing where there are no more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Refuses what does not belong to the model or has no room; drops what a pass that was stopped left behind.
    fn begin(&mut self, info: &Info, new: usize) -> Result<()> {
        if self.layers.len() != info.layers || self.shape != [info.kv_heads, info.head_dim] {
            return Err(Error::request(
                "the cache was made for another model",
                "make it from the sizes of the model that uses it",
            ));
        }
        if new > self.capacity - self.len {
            let Self { len, capacity, .. } = self;
            return Err(Error::request(
                format!("{new} more tokens do not fit into a cache that holds {len} of {capacity}"),
                "make the cache larger, or read fewer tokens",
            ));
        }
        self.layers.iter_mut().for_each(|layer| layer.truncate(self.len));
        Ok(())
    }
}

/// Where a token stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// In its own text.
    pub(super) position: usize,
    /// How long its text is.
    pub(super) length: usize,
}

/// What a layer's attention does beside its vectors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    /// A token sees itself and what stands before it.
    pub(super) causal: bool,
    /// How many tokens it sees, itself included; `None`: no limit.
    pub(super) window: Option<usize>,
    /// What q·k is multiplied with; `None`: 1/√head_dim.
    pub(super) scale: Option<f64>,
    /// Scores become cap · tanh(score / cap); 0: they do not.
    pub(super) softcap: f64,
}

/// A pass on its way through the layers.
pub(super) struct Pass<'a> {
    ids: &'a [u32],
    /// Where each text starts; the last number is where all end.
    starts: Vec<usize>,
    cache: Option<&'a mut Cache>,
    instruction_set: Option<InstructionSet>,
    watch: &'a mut dyn Watch,
}

impl<'a> Pass<'a> {
    /// Checks the input against the model.
    pub(super) fn new(input: Input<'a>, info: &Info, watch: &'a mut dyn Watch) -> Result<Self> {
        keep_freed_memory();
        let Input { ids, ends, cache, force_context, instruction_set } = input;
        let past = cache.as_ref().map_or(0, |cache| cache.len);
        let endless = force_context && info.endless;
        let mut starts = vec![0];
        if ends.is_empty() {
            starts.push(ids.len());
        } else {
            if !ends.is_sorted() || ends.last() != Some(&ids.len()) {
                return Err(Error::request(
                    format!("the ends of the texts do not rise to the {} tokens there are", ids.len()),
                    "give where each text ends, in order, the last one at the end of all tokens",
                ));
            }
            starts.extend(ends);
        }
        for text in starts.windows(2) {
            info.check_after(past, &ids[text[0]..text[1]], endless)?;
        }
        let mut pass = Self { ids, starts, cache, instruction_set, watch };
        if let Some(cache) = &mut pass.cache {
            if pass.starts.len() > 2 {
                return Err(Error::request(
                    "several texts share one cache",
                    "give each its own cache and its own pass",
                ));
            }
            cache.begin(info, ids.len())?;
        }
        Ok(pass)
    }

    /// The token ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> {
        self.ids.iter().map(|&id| id as usize)
    }

    /// How many tokens are read in this pass.
    pub(super) fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The ids of each text.
    pub(super) fn texts(&self) -> impl Iterator<Item = &'a [u32]> {
        self.starts.windows(2).map(|text| &self.ids[text[0]..text[1]])
    }

    /// How many tokens of the text were read before.
    pub(super) fn past(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.len)
    }

    /// Where each token stands.
    pub(super) fn places(&self) -> Vec<Place> {
        let past = self.past();
        let places = self.texts().flat_map(|text| {
            let length = past + text.len();
            (past..length).map(move |position| Place { position, length })
        });
        places.collect()
    }

    /// A layer attends, and is looked at: `[heads, tokens, head_dim]`, or `None` where the watch ends the pass.
    /// `input [tokens, hidden]` is what entered the layer.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        input: &[f32],
        heads: &Heads,
        rules: &Rules,
    ) -> Result<Option<Vec<f32>>> {
        let offset = self.past();
        let [q, k, v] = heads.views()?;
        let (k, v) = match &mut self.cache {
            Some(cache) => {
                let layer = &mut cache.layers[layer];
                layer.append(k, v).map_err(inner)?;
                (layer.k(), layer.v())
            }
            None => (k, v),
        };
        let mut attention = Attention::new(q, k, v).softcap(rules.softcap);
        if rules.causal {
            attention = attention.causal(Causal::BottomRight);
        }
        if let Some(scale) = rules.scale {
            attention = attention.scale(scale);
        }
        if let Some(set) = self.instruction_set {
            attention = attention.instruction_set(set);
        }
        if let Some(window) = rules.window {
            attention = attention.window(Window { left: Some(window.saturating_sub(1) as u64), right: None });
        }
        if self.starts.len() > 2 {
            attention = attention.packed(Packed { queries: &self.starts, keys: &self.starts });
        }
        let Rules { window, softcap, .. } = *rules;
        let view = LayerView { layer, input, attention: &attention, offset, window, softcap };
        let ControlFlow::Continue(read) = self.watch.layer(&view) else { return Ok(None) };
        let attended = attention.read(read).run().map_err(unreadable)?;
        let goes_on = self.watch.seen(layer, attended.readouts).is_continue();
        Ok(goes_on.then_some(attended.out))
    }

    /// The pass has gone through; `last_hidden` is `[tokens, hidden]`.
    pub(super) fn finish(self, last_hidden: &[f32]) {
        if let Some(cache) = self.cache {
            cache.len += self.ids.len();
        }
        self.watch.finished(last_hidden);
    }
}

/// The shapes are ours and fit; what is left is a readout that asks for too much.
fn unreadable(cause: impl std::fmt::Display) -> Error {
    Error::request(format!("the attention cannot be read out: {cause}"), "ask for other readouts")
}

/// The allocator of Linux gives large pieces back to the system as soon as they are freed, and every operation of a
/// layer would pay for fresh pages; one piece of the largest size that it reuses, freed once, teaches it to keep them.
fn keep_freed_memory() {
    /// A little less than the 32 MiB above which it never keeps any (mallopt(3), `M_MMAP_THRESHOLD`).
    const LARGEST: usize = (32 << 20) - (64 << 10);
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST))));
}

/// q, k and v of a layer, `[tokens, heads · dim]` behind each other as the linear layer leaves them; every layer fills
/// them anew.
pub(super) struct Heads {
    /// `[tokens, width]`
    values: Vec<f32>,
    counts: [usize; 3],
    tokens: usize,
    dim: usize,
    width: usize,
}

impl Heads {
    /// Still without numbers.
    pub(super) fn new(info: &Info, tokens: usize) -> Self {
        let Info { heads, kv_heads, head_dim: dim, .. } = *info;
        let width = (heads + 2 * kv_heads) * dim;
        Self { values: vec![0f32; tokens * width], counts: [heads, kv_heads, kv_heads], tokens, dim, width }
    }

    /// What the linear layer of all three gives for `x [tokens, hidden]`, normed before if there is a norm.
    /// `then(part, token, vector)` turns or norms each vector of q (part 0), k (1) and v (2).
    pub(super) fn fill(
        &mut self,
        x: &[f32],
        norm: Option<&Norm>,
        qkv: &Linear,
        then: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) {
        let Self { counts: [heads, kv_heads, _], tokens, dim, width, .. } = *self;
        let hidden = x.len() / tokens.max(1);
        let part_of = |head: usize| usize::from(head >= heads) + usize::from(head >= heads + kv_heads);
        by_blocks(&mut self.values, width, |scratch, first, values| {
            let mut x = &x[first * hidden..][..values.len() / width * hidden];
            if let Some(norm) = norm {
                x = norm.forward(x, room(&mut scratch.normed, x.len()));
            }
            qkv.forward(x, values);
            by_rows(values, width, |row, values| {
                for (at, values) in values.chunks_exact_mut(width).enumerate() {
                    for (head, vector) in values.chunks_exact_mut(dim).enumerate() {
                        then(part_of(head), first + row + at, vector);
                    }
                }
            });
        });
    }

    fn views(&self) -> Result<[TensorView<'_, f32>; 3]> {
        let Self { counts: [heads, kv_heads, _], tokens, dim, width, .. } = *self;
        let view = |first: usize, count: usize| {
            let strides = [tokens * width, dim, width, 1];
            TensorView::new(&self.values[first * dim..], [1, count, tokens, dim], strides).map_err(inner)
        };
        Ok([view(0, heads)?, view(heads, kv_heads)?, view(heads + kv_heads, kv_heads)?])
    }

    /// What the attention gave, `[heads, tokens, dim]`, as `merged [rows, heads · dim]` for the tokens from `first` on.
    pub(super) fn merge<'a>(
        &self,
        out: &[f32],
        first: usize,
        rows: usize,
        merged: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let (heads, dim) = (self.counts[0], self.dim);
        let merged = room(merged, rows * heads * dim);
        by_rows(merged, heads * dim, |row, merged| {
            for (at, merged) in merged.chunks_exact_mut(heads * dim).enumerate() {
                for (head, to) in merged.chunks_exact_mut(dim).enumerate() {
                    let start = (head * self.tokens + first + row + at) * dim;
                    to.copy_from_slice(&out[start..start + dim]);
                }
            }
        });
        merged
    }
}

/// So many tokens go through the linear layers at once: what is between them stays in the caches of a core, and
/// memory does not grow with the text.
const BLOCK: usize = 512;

/// Calls `work(scratch, first, rows)` for every block of tokens of `x [tokens, width]`, on all threads.
pub(super) fn by_blocks(
    x: &mut [f32],
    width: usize,
    work: impl Fn(&mut Scratch, usize, &mut [f32]) + Send + Sync,
) {
    let blocks = x.par_chunks_mut(BLOCK * width).enumerate();
    blocks.for_each_init(Scratch::default, |scratch, (block, x)| work(scratch, block * BLOCK, x));
}

/// A watch that does not look: for passes that only fill a cache or write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn layer(&mut self, _: &LayerView<'_>) -> ControlFlow<(), Read> {
        ControlFlow::Continue(Read::new())
    }
}
