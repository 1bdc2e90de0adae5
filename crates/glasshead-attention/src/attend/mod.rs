//! The request, as a sentence: `Attention::new(q, k, v).causal(BottomRight).run()?`.

mod ahead;
mod backlog;
mod backward;
mod copies;
mod decode;
mod gradients;
mod pack;
mod plan;
mod prefill;
mod ranges;
mod reading;
mod rowwise;
mod schedule;
mod score;
mod tile;
mod workspace;

pub use gradients::Gradients;
pub(crate) use plan::Problem;

use crate::{
    AttentionError, Element, TensorView,
    isa::InstructionSet,
    mask::{Causal, Mask, Packed, PartOf, Window},
    readout::{Array, Read, Shape},
};

/// Softmax attention over views of q `[batch, heads, queries, dim]`, k `[batch, kv_heads, keys, dim]`
/// and v `[batch, kv_heads, keys, value_dim]`, with every option the command knows.
///
/// `heads` is a multiple of `kv_heads`: query head `h` reads key head `h / (heads / kv_heads)`.
/// Scores are `softcap(q·k · scale) − slope·|i + offset − j| + mask`. A query that may see no key gives
/// zeros. A key or value that a query may not see never touches its row, not even as NaN.
#[derive(Clone, Debug)]
pub struct Attention<'a, T> {
    q: TensorView<'a, T>,
    k: TensorView<'a, T>,
    v: TensorView<'a, T>,
    scale: Option<f64>,
    softcap: f64,
    causal: Option<Causal>,
    window: Window,
    mask: Option<Mask<'a>>,
    kv_lengths: Option<&'a [i64]>,
    packed: Option<Packed<'a>>,
    sinks: Option<&'a [f32]>,
    alibi_slopes: Option<&'a [f32]>,
    read: Read,
    part: Option<PartOf>,
    shares: Option<&'a [f32]>,
    isa: Option<InstructionSet>,
}

/// The answer to an [`Attention`] request.
#[derive(Clone, Debug, PartialEq)]
pub struct Attended<T> {
    /// `[batch, heads, queries, value_dim]`, one after the other.
    pub out: Vec<T>,
    /// The shape of `out`.
    pub shape: [usize; 4],
    /// The readouts that were asked for, by name; `sink_weight` too where sinks were given.
    pub readouts: Vec<Array>,
}

impl<T> Attended<T> {
    /// The readout array of this name (`entropy`, `top_index`, …), if it was asked for.
    pub fn readout(&self, name: &str) -> Option<&Array> {
        self.readouts.iter().find(|array| array.name == name)
    }
}

impl<'a, T: Element> Attention<'a, T> {
    /// Plain attention of these views: no mask, scale 1/√dim.
    pub fn new(q: TensorView<'a, T>, k: TensorView<'a, T>, v: TensorView<'a, T>) -> Self {
        Self {
            q,
            k,
            v,
            scale: None,
            softcap: 0.0,
            causal: None,
            window: Window::default(),
            mask: None,
            kv_lengths: None,
            packed: None,
            sinks: None,
            alibi_slopes: None,
            read: Read::new(),
            part: None,
            shares: None,
            isa: None,
        }
    }

    /// What q·k is multiplied with instead of 1/√dim.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Scores become `cap · tanh(score / cap)` before any mask; 0 turns it off.
    pub fn softcap(mut self, cap: f64) -> Self {
        self.softcap = cap;
        self
    }

    /// Query `i` sees keys up to `i + offset` only.
    pub fn causal(mut self, causal: Causal) -> Self {
        self.causal = Some(causal);
        self
    }

    /// Keeps only keys near the query's position.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// A boolean or additive mask.
    pub fn mask(mut self, mask: Mask<'a>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// `[batch]`: how many keys of each batch element are real; those after them are padding.
    pub fn kv_lengths(mut self, lengths: &'a [i64]) -> Self {
        self.kv_lengths = Some(lengths);
        self
    }

    /// Cuts the axes of the queries and keys (of a batch of one) into sequences that do not see each other.
    /// Causal forms and windows then count from the start, or end, of each sequence.
    pub fn packed(mut self, packed: Packed<'a>) -> Self {
        self.packed = Some(packed);
        self
    }

    /// `[heads]`: one extra logit per head that takes weight and gives no value.
    pub fn sinks(mut self, sinks: &'a [f32]) -> Self {
        self.sinks = Some(sinks);
        self
    }

    /// `[heads]`: the score loses `slope · |i + offset − j|` (Press et al. 2021).
    pub fn alibi_slopes(mut self, slopes: &'a [f32]) -> Self {
        self.alibi_slopes = Some(slopes);
        self
    }

    /// What to read out beside the output.
    pub fn read(mut self, read: Read) -> Self {
        self.read = read;
        self
    }

    /// Says that k and v are the keys from `first_key` on of a sequence of `keys` keys: causal forms, windows and
    /// positions count on the axis of them all, and so do lengths and readouts. A mask has the columns of the part,
    /// and sinks are given to [`merge`](crate::merge), which puts the parts together.
    ///
    /// Read out is what adds up no queries, and `lse`; the rest in a second pass, see [`Attention::shares`].
    pub fn part(mut self, first_key: usize, keys: usize) -> Self {
        self.part = Some(PartOf { first_key, keys });
        self
    }

    /// `[batch, heads, queries]`: the share that a [`part`](Attention::part) has of every query's weight, from
    /// [`shares`](crate::shares). Read out is then what adds up queries, each counting by its share.
    pub fn shares(mut self, shares: &'a [f32]) -> Self {
        self.shares = Some(shares);
        self
    }

    /// Forces an instruction set instead of the best one of this CPU.
    pub fn instruction_set(mut self, isa: InstructionSet) -> Self {
        self.isa = Some(isa);
        self
    }

    /// The view of the queries.
    pub fn q(&self) -> TensorView<'a, T> {
        self.q
    }

    /// The view of the keys.
    pub fn k(&self) -> TensorView<'a, T> {
        self.k
    }

    /// The view of the values.
    pub fn v(&self) -> TensorView<'a, T> {
        self.v
    }

    /// What q·k is multiplied with: the scale that was set, else 1/√dim.
    pub fn scale_factor(&self) -> f64 {
        self.scale.unwrap_or_else(|| 1.0 / (self.q.shape()[3] as f64).sqrt())
    }

    /// Whether a causal form was set.
    pub fn is_causal(&self) -> bool {
        self.causal.is_some()
    }

    /// How many pairs of query and key are visible under causal forms, windows and lengths, over all heads;
    /// a mask array is not looked at.
    ///
    /// # Errors
    /// As [`Attention::run`].
    pub fn visible_pairs(&self) -> Result<u64, AttentionError> {
        let problem = self.checked()?;
        let mut pairs = 0;
        for batch in 0..problem.batch {
            for query in 0..problem.queries {
                pairs += problem.visibility.keys(batch, query).len() as u64;
            }
        }
        Ok(pairs * problem.heads as u64)
    }

    /// The shape `[batch, heads, queries, value_dim]` of the output.
    ///
    /// # Errors
    /// As [`Attention::run`].
    pub fn out_shape(&self) -> Result<[usize; 4], AttentionError> {
        Ok(self.checked()?.out_shape())
    }

    /// Checks every shape and fills in every default.
    pub(crate) fn checked(&self) -> Result<Problem<'a, T>, AttentionError> {
        Problem::new(self)
    }

    /// Computes the output and the readouts.
    ///
    /// Threads are those of the rayon pool that the caller runs in. The output has the same bits for
    /// any number of threads.
    ///
    /// # Errors
    /// When shapes do not fit together, an option has no meaning, or the instruction set that was
    /// asked for is missing here.
    pub fn run(&self) -> Result<Attended<T>, AttentionError> {
        T::attend(self)
    }

    /// As [`Attention::run`], into an output that is there already; returns the readouts.
    ///
    /// # Errors
    /// Also when `out` has not as many values as `[batch, heads, queries, value_dim]`.
    pub fn run_into(&self, out: &mut [T]) -> Result<Vec<Array>, AttentionError> {
        T::attend_into(self, out)
    }

    /// As [`Attention::run`].
    pub(crate) fn attend(&self) -> Result<Attended<T>, AttentionError> {
        let problem = self.checked()?;
        let mut out = vec![T::default(); problem.out_len()];
        let readouts = self.compute(&problem, &mut out)?;
        Ok(Attended { out, shape: problem.out_shape(), readouts })
    }

    /// As [`Attention::run_into`].
    pub(crate) fn attend_into(&self, out: &mut [T]) -> Result<Vec<Array>, AttentionError> {
        let problem = self.checked()?;
        if out.len() != problem.out_len() {
            let expected = format!("as many values as {:?}", problem.out_shape());
            return Err(AttentionError::shape("out", &[out.len()], expected));
        }
        self.compute(&problem, out)
    }

    fn compute(&self, problem: &Problem<'a, T>, out: &mut [T]) -> Result<Vec<Array>, AttentionError> {
        let isa = InstructionSet::choose(self.isa)?;
        let shape = problem.shape();
        let keys = self.part.map_or(shape.keys, |part| part.keys);
        self.read.check(&Shape { keys, ..shape })?;
        let read = match self.part {
            None => &self.read,
            Some(PartOf { first_key, .. }) => {
                &self.read.of_part(&(first_key..first_key + shape.keys), self.shares)
            }
        };
        let readouts = read.start(&shape, problem.sinks.is_some())?;
        Ok(schedule::run(problem, isa, readouts, out))
    }
}
