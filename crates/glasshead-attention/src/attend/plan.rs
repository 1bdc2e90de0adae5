//! From a request to a checked problem: shapes fit, defaults are filled in, nothing is computed.

use super::{Attention, copies::Run};
use crate::{
    AttentionError, Element, TensorView,
    isa::Number,
    mask::{Mask, Visibility},
    readout::Shape,
    views::fits,
};

/// A checked request.
#[derive(Clone, Debug)]
pub(crate) struct Problem<'a, T> {
    pub(crate) run: Run,
    pub(crate) q: TensorView<'a, T>,
    pub(crate) k: TensorView<'a, T>,
    pub(crate) v: TensorView<'a, T>,
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    /// Query heads per key head.
    pub(crate) group: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) scale: f64,
    /// 0 where there is none.
    pub(crate) softcap: f64,
    pub(crate) sinks: Option<&'a [f32]>,
    pub(crate) alibi_slopes: Option<&'a [f32]>,
    pub(crate) visibility: Visibility<'a>,
}

impl<'a, T: Element> Problem<'a, T> {
    pub(crate) fn new(request: &Attention<'a, T>) -> Result<Self, AttentionError> {
        let Attention { q, k, v, .. } = *request;
        let [batch, heads, queries, dim] = q.shape();
        let [k_batch, kv_heads, keys, k_dim] = k.shape();
        let [v_batch, v_heads, v_keys, value_dim] = v.shape();
        if k_batch != batch || k_dim != dim {
            return Err(AttentionError::shape(
                "k",
                &k.shape(),
                format!("[{batch}, kv_heads, keys, {dim}] beside q {:?}", q.shape()),
            ));
        }
        if [v_batch, v_heads, v_keys] != [batch, kv_heads, keys] {
            let expected = format!("[{batch}, {kv_heads}, {keys}, value_dim] beside k {:?}", k.shape());
            return Err(AttentionError::shape("v", &v.shape(), expected));
        }
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 {
            let expected = match heads == 0 || kv_heads == 0 {
                true => format!("at least one head, and in k (it has {kv_heads}) too"),
                false => format!("a number of heads that is a multiple of k's {kv_heads}"),
            };
            return Err(AttentionError::shape("q", &q.shape(), expected));
        }
        for (what, shape, len) in [("q", q.shape(), dim), ("v", v.shape(), value_dim)] {
            if len == 0 {
                return Err(AttentionError::shape(what, &shape, "vectors of at least one number"));
            }
        }
        for (what, per_head) in [("sinks", request.sinks), ("alibi_slopes", request.alibi_slopes)] {
            if let Some(values) = per_head.filter(|values| values.len() != heads) {
                return Err(AttentionError::shape(what, &[values.len()], format!("[heads] = [{heads}]")));
            }
        }
        let scale = request.scale_factor();
        if !scale.is_finite() {
            return Err(AttentionError::value("scale", scale, "is not a finite number"));
        }
        if !(request.softcap.is_finite() && request.softcap >= 0.0) {
            return Err(AttentionError::value(
                "softcap",
                request.softcap,
                "is not a positive number, nor 0 for none",
            ));
        }
        if request.softcap > 0.0 && T::Number::from_f64(request.softcap) == T::Number::default() {
            let problem = "is too small for the type that the arrays are computed in: it would be 0";
            return Err(AttentionError::value("softcap", request.softcap, problem));
        }
        let visibility = Visibility::new(
            [batch, heads, queries, keys],
            request.causal,
            request.window,
            request.kv_lengths,
            request.packed,
            request.part,
            request.mask,
        )?;
        if let Some(shares) = request.shares {
            if request.part.is_none() {
                return Err(AttentionError::value("shares", shares.len(), "numbers, and no part"));
            }
            if shares.len() != batch * heads * queries {
                let expected = format!("[batch, heads, queries] = [{batch}, {heads}, {queries}]");
                return Err(AttentionError::shape("shares", &[shares.len()], expected));
            }
        }
        if let Some(sinks) = request.sinks.filter(|_| request.part.is_some()) {
            let problem = "logits, and a part of the keys: they are given to merge";
            return Err(AttentionError::value("sinks", sinks.len(), problem));
        }
        let problem = Self {
            run: Run::new(),
            q,
            k,
            v,
            batch,
            heads,
            group: heads / kv_heads,
            queries,
            keys,
            dim,
            value_dim,
            scale,
            softcap: request.softcap,
            sinks: request.sinks,
            alibi_slopes: request.alibi_slopes,
            visibility,
        };
        // A view may repeat values with stride 0, and one without keys has values of any length: the output
        // can be larger than any input, and than memory.
        if fits::<T>(problem.out_shape()).is_none() {
            return Err(AttentionError::shape(
                "out",
                &problem.out_shape(),
                "an output that fits into memory",
            ));
        }
        Ok(problem)
    }

    /// Whether the scores of a head that are seen are q·k times a positive scale, and nothing else.
    pub(crate) fn is_plain(&self, head: usize) -> bool {
        self.softcap == 0.0
            && self.slope(head) == 0.0
            && self.mask().is_none_or(Mask::only_hides)
            && T::Number::from_f64(self.scale) > T::Number::default()
    }

    /// What readouts need to know of the problem.
    pub(crate) fn shape(&self) -> Shape {
        let Self { batch, heads, queries, keys, .. } = *self;
        Shape { batch, heads, queries, keys }
    }

    pub(crate) fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.queries, self.value_dim]
    }

    /// Whether `view` has the shape of the output.
    pub(crate) fn check_output(&self, what: &'static str, view: TensorView<T>) -> Result<(), AttentionError> {
        if view.shape() == self.out_shape() {
            return Ok(());
        }
        let expected = format!("the shape of the output, {:?}", self.out_shape());
        Err(AttentionError::shape(what, &view.shape(), expected))
    }

    pub(crate) fn out_len(&self) -> usize {
        self.out_shape().iter().product()
    }

    /// An upper bound of the work, in multiply-adds.
    pub(crate) fn multiply_adds(&self) -> usize {
        let Self { batch, heads, queries, keys, dim, value_dim, .. } = *self;
        [batch, heads, queries, keys, dim + value_dim].into_iter().fold(1, usize::saturating_mul)
    }

    pub(crate) fn mask(&self) -> Option<&Mask<'a>> {
        self.visibility.mask()
    }

    /// The bias slope of this head, 0 where there is none.
    pub(crate) fn slope(&self, head: usize) -> f32 {
        self.alibi_slopes.map_or(0.0, |slopes| slopes[head])
    }
}
