//! Which keys a query may see. Causal forms, windows and lengths become a key range per query
//! ([`Visibility::keys`]), so a kernel never visits what they hide; only a mask array needs a look per key.

use std::ops::{Range, RangeInclusive};

use half::{bf16, f16};

use crate::{AttentionError, isa::Number, views::values_needed};

/// Query `i` may see key `j` where `j ≤ i + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causal {
    /// Offset 0: the first query sees the first key (torch's `is_causal`).
    TopLeft,
    /// Offset `keys − queries`: the last query sees the last key (FlashAttention, MLX, a KV cache). The keys are those of
    /// the array, whatever lengths are given: where every batch element has a length of its own, pack them, or give
    /// keys that end together.
    BottomRight,
    /// An offset of one's own, for instance the number of keys that came before this chunk.
    Offset(i64),
}

/// Keeps the keys with `i + offset − left ≤ j ≤ i + offset + right`; `None` leaves that side open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// How many keys before the query's own position are kept.
    pub left: Option<u64>,
    /// How many keys after it.
    pub right: Option<u64>,
}

/// The values of a mask array.
#[derive(Clone, Copy)]
pub enum MaskValues<'a> {
    /// True: this query may attend to this key.
    Bool(&'a [bool]),
    /// Added to the score; −∞ hides the key.
    F32(&'a [f32]),
    /// Added to the score; −∞ hides the key.
    F64(&'a [f64]),
    /// Added to the score; −∞ hides the key.
    F16(&'a [f16]),
    /// Added to the score; −∞ hides the key.
    Bf16(&'a [bf16]),
}

/// Its type; the values may be millions.
impl std::fmt::Debug for MaskValues<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bool(_) => "Bool",
            Self::F32(_) => "F32",
            Self::F64(_) => "F64",
            Self::F16(_) => "F16",
            Self::Bf16(_) => "Bf16",
        })
    }
}

/// What a mask does to some scores, where it is the same to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cover {
    /// Nothing: all are seen as they are.
    Open,
    /// Some are hidden, or something is added.
    Mixed,
    /// All are hidden.
    Hidden,
}

impl Cover {
    #[inline(always)]
    fn of<V: MaskValue>(values: &[V]) -> Self {
        match values.first() {
            Some(first) if *first == V::HIDDEN && every(values, |x| *x == V::HIDDEN) => Self::Hidden,
            Some(_) if every(values, |x| *x == V::OPEN) => Self::Open,
            _ => Self::Mixed,
        }
    }
}

/// A value of a mask array.
trait MaskValue: Copy + PartialEq {
    /// Adds nothing.
    const OPEN: Self;
    const HIDDEN: Self;
    /// What is added to the score.
    fn bias(self) -> f64;
}

impl MaskValue for bool {
    const OPEN: Self = true;
    const HIDDEN: Self = false;
    #[inline(always)]
    fn bias(self) -> f64 {
        if self { 0.0 } else { f64::NEG_INFINITY }
    }
}

macro_rules! added {
    ($($type:ty: $zero:expr, $hidden:expr;)*) => {$(
        impl MaskValue for $type {
            const OPEN: Self = $zero;
            const HIDDEN: Self = $hidden;
            #[inline(always)]
            fn bias(self) -> f64 {
                self.into()
            }
        }
    )*};
}
added! {
    f32: 0.0, f32::NEG_INFINITY;
    f64: 0.0, f64::NEG_INFINITY;
    f16: f16::ZERO, f16::NEG_INFINITY;
    bf16: bf16::ZERO, bf16::NEG_INFINITY;
}

/// The same expression of the values `$x`, whatever their type.
macro_rules! of_values {
    ($values:expr, $x:ident => $of:expr) => {
        match $values {
            MaskValues::Bool($x) => $of,
            MaskValues::F32($x) => $of,
            MaskValues::F64($x) => $of,
            MaskValues::F16($x) => $of,
            MaskValues::Bf16($x) => $of,
        }
    };
}

/// Whether all are; looked at so many at a time, for the compiler to take them side by side.
#[inline(always)]
fn every<X>(values: &[X], is: impl Fn(&X) -> bool) -> bool {
    let (strips, rest) = values.as_chunks::<32>();
    for strip in strips {
        let mut others = 0;
        for x in strip {
            others |= u8::from(!is(x));
        }
        if others > 0 {
            return false;
        }
    }
    rest.iter().all(is)
}

/// A mask that is broadcast to `[batch, heads, queries, keys]`.
///
/// The last axis is the exception: it is never broadcast, and where it is shorter than `keys`, the
/// keys after it are hidden (as in ONNX `Attention`).
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    values: MaskValues<'a>,
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<'a> Mask<'a> {
    /// A mask of 1 to 4 axes in C order; axes are aligned at the right, as numpy does it.
    ///
    /// # Errors
    /// When the number of axes or of values does not fit.
    pub fn new(values: MaskValues<'a>, shape: &[usize]) -> Result<Self, AttentionError> {
        if shape.is_empty() || shape.len() > 4 {
            return Err(AttentionError::shape("mask", shape, "1 to 4 axes"));
        }
        let mut full = [1usize; 4];
        full[4 - shape.len()..].copy_from_slice(shape);
        let mut strides = [0usize; 4];
        let mut step = 1usize;
        for axis in (0..4).rev() {
            // A stride of 0 is the broadcast.
            strides[axis] = if full[axis] == 1 { 0 } else { step };
            step = step.saturating_mul(full[axis]);
        }
        let found = of_values!(values, x => x.len());
        let needed = values_needed(full, strides);
        if needed.is_none_or(|needed| needed > found) {
            let needed = needed.unwrap_or(usize::MAX);
            return Err(AttentionError::OutOfSlice { array: "mask", shape: full, strides, needed, found });
        }
        Ok(Self { values, shape: full, strides })
    }

    fn check(&self, [batch, heads, queries, keys]: [usize; 4]) -> Result<(), AttentionError> {
        let fits = |len: usize, full: usize| len == 1 || len == full;
        let [b, h, q, k] = self.shape;
        if fits(b, batch) && fits(h, heads) && fits(q, queries) && k <= keys {
            return Ok(());
        }
        let expected = format!(
            "something that broadcasts to [batch, heads, queries, keys] = [{batch}, {heads}, {queries}, {keys}] (the last axis may be shorter)"
        );
        Err(AttentionError::shape("mask", &self.shape, expected))
    }

    /// Whether it hides keys, and adds nothing to what is seen.
    pub(crate) fn only_hides(&self) -> bool {
        matches!(self.values, MaskValues::Bool(_))
    }

    /// What it does to the scores of these queries and keys.
    #[inline(always)]
    pub(crate) fn cover(
        &self,
        [batch, head]: [usize; 2],
        queries: RangeInclusive<usize>,
        keys: Range<usize>,
    ) -> Cover {
        let (first, last) = queries.into_inner();
        let last = if self.strides[2] == 0 { first } else { last };
        let cover = self.cover_of_row([batch, head, first], keys.clone());
        for query in first + 1..=last {
            if cover == Cover::Mixed || self.cover_of_row([batch, head, query], keys.clone()) != cover {
                return Cover::Mixed;
            }
        }
        cover
    }

    #[inline(always)]
    fn cover_of_row(&self, query: [usize; 3], keys: Range<usize>) -> Cover {
        let range = self.range(query, keys);
        of_values!(self.values, x => Cover::of(&x[range]))
    }

    /// What is added to the scores of those of these keys that are not hidden, if it is the same for all; −∞ where there
    /// are none.
    pub(crate) fn level(&self, query: [usize; 3], keys: Range<usize>) -> Option<f64> {
        #[inline(always)]
        fn the_one<V: MaskValue>(values: &[V]) -> Option<f64> {
            let one = values.iter().copied().find(|x| *x != V::HIDDEN).unwrap_or(V::HIDDEN);
            every(values, |x| (*x == one) | (*x == V::HIDDEN)).then(|| one.bias())
        }
        let range = self.range(query, keys);
        of_values!(self.values, x => the_one(&x[range]))
    }

    /// Where in memory the values of a query and these keys lie, how many bytes they are, and how many bytes after them
    /// those of the next query, 0 where it has the same.
    pub(crate) fn bytes(&self, query: [usize; 3], keys: Range<usize>) -> (*const u8, [usize; 2]) {
        let range = self.range(query, keys);
        let stride = self.strides[2];
        of_values!(self.values, x => {
            let row = &x[range];
            (row.as_ptr().cast(), [size_of_val(row), stride * size_of_val(&x[..1])])
        })
    }

    /// Where the values of these keys lie.
    #[inline(always)]
    fn range(&self, [batch, head, query]: [usize; 3], keys: Range<usize>) -> Range<usize> {
        let [b, h, q, k] = self.strides;
        // A last axis of one has the stride 0, and one key.
        let start = batch * b + head * h + query * q + keys.start * k;
        start..start + keys.len()
    }

    /// What is added to the score, `None` where the key is hidden.
    #[inline]
    pub(crate) fn bias(&self, batch: usize, head: usize, query: usize, key: usize) -> Option<f64> {
        let mut bias = [0.0];
        self.row([batch, head, query], key..key + 1, &mut bias);
        (bias[0] != f64::NEG_INFINITY).then_some(bias[0])
    }

    /// What is added to the scores of these keys, −∞ where one is hidden.
    #[inline(always)]
    pub(crate) fn row<N: Number>(&self, query: [usize; 3], keys: Range<usize>, to: &mut [N]) {
        let range = self.range(query, keys);
        of_values!(self.values, x => {
            to.iter_mut().zip(&x[range]).for_each(|(to, x)| *to = N::from_f64(x.bias()));
        });
    }
}

/// Sequences of different lengths behind each other on the axes of the queries and of the keys: sequence `s`
/// has the queries `queries[s]..queries[s + 1]` and sees the keys `keys[s]..keys[s + 1]` (FlashAttention's
/// `cu_seqlens`).
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Where each sequence's queries start; the last number is where all end.
    pub queries: &'a [usize],
    /// Where each sequence's keys start; the last number is where all end.
    pub keys: &'a [usize],
}

impl Packed<'_> {
    fn check(&self, [batch, _, queries, keys]: [usize; 4]) -> Result<(), AttentionError> {
        if batch != 1 {
            return Err(AttentionError::value(
                "packed",
                batch,
                "batch elements: packed sequences lie in one",
            ));
        }
        if self.queries.len() != self.keys.len() {
            return Err(AttentionError::shape(
                "packed.keys",
                &[self.keys.len()],
                format!("as many starts as packed.queries has: {}", self.queries.len()),
            ));
        }
        for (what, starts, len) in
            [("packed.queries", self.queries, queries), ("packed.keys", self.keys, keys)]
        {
            if starts.first() != Some(&0) || starts.last() != Some(&len) || !starts.is_sorted() {
                let found = format!("{starts:?}");
                return Err(AttentionError::value(what, found, format!("do not rise from 0 to {len}")));
            }
        }
        Ok(())
    }
}

/// Keys from `first_key` on, of `keys` in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartOf {
    pub(crate) first_key: usize,
    pub(crate) keys: usize,
}

impl PartOf {
    fn check(&self, keys: usize, packed: bool) -> Result<(), AttentionError> {
        let Self { first_key, keys: all } = *self;
        if packed {
            return Err(AttentionError::value("part", first_key, "and packed sequences do not go together"));
        }
        // Positions are i64.
        if first_key.checked_add(keys).is_none_or(|end| end > all) || all > i64::MAX as usize {
            let problem = format!("is where {keys} keys start, and there are {all} in all");
            return Err(AttentionError::value("part", first_key, problem));
        }
        Ok(())
    }
}

/// What queries of one sequence see, of one batch element.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// The sequence's first query.
    first: usize,
    offset: i64,
    /// The sequence's keys.
    keys: Range<usize>,
    /// Where lengths and the mask end them.
    end: usize,
    /// How far behind and ahead of its position a query sees.
    behind: Option<u64>,
    ahead: Option<u64>,
}

impl Reach {
    /// The position of a query on the axis of the keys.
    pub(crate) fn position(&self, query: usize) -> i64 {
        let first = (query - self.first) as i64;
        first.saturating_add(self.offset).saturating_add(self.keys.start as i64)
    }

    /// The keys that causality, window and lengths leave to this query; a mask may hide more of them.
    #[inline]
    pub(crate) fn keys(&self, query: usize) -> Range<usize> {
        let Self { end, behind, ahead, ref keys, .. } = *self;
        let position = self.position(query);
        let clamp = |at: i64| at.clamp(keys.start as i64, keys.end as i64) as usize;
        let past = ahead.map(|ahead| clamp(position.saturating_add_unsigned(ahead).saturating_add(1)));
        let start = behind.map(|behind| clamp(position.saturating_sub_unsigned(behind)));
        let end = past.map_or(end, |past| end.min(past));
        start.unwrap_or(keys.start).min(end)..end
    }

    /// The first key of the sequence.
    pub(crate) fn first_key(&self) -> usize {
        self.keys.start
    }

    /// Whether all queries see the same keys.
    pub(crate) fn is_even(&self) -> bool {
        self.behind.is_none() && self.ahead.is_none()
    }
}

/// The rules of one request about who may see what, with every default filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visibility<'a> {
    queries: usize,
    keys: usize,
    causal: Option<Causal>,
    packed: Option<Packed<'a>>,
    part: Option<PartOf>,
    window: Window,
    lengths: Option<&'a [i64]>,
    mask: Option<Mask<'a>>,
}

impl<'a> Visibility<'a> {
    pub(crate) fn new(
        shape @ [batch, _, queries, keys]: [usize; 4],
        causal: Option<Causal>,
        window: Window,
        lengths: Option<&'a [i64]>,
        packed: Option<Packed<'a>>,
        part: Option<PartOf>,
        mask: Option<Mask<'a>>,
    ) -> Result<Self, AttentionError> {
        if let Some(mask) = &mask {
            mask.check(shape)?;
        }
        if let Some(packed) = &packed {
            packed.check(shape)?;
        }
        if let Some(part) = &part {
            part.check(keys, packed.is_some())?;
        }
        let all = part.map_or(keys, |part| part.keys);
        if let Some(lengths) = lengths {
            if lengths.len() != batch {
                return Err(AttentionError::shape(
                    "kv_lengths",
                    &[lengths.len()],
                    format!("[batch] = [{batch}]"),
                ));
            }
            if let Some(bad) = lengths.iter().find(|&&n| n < 0 || n as u64 > all as u64) {
                return Err(AttentionError::value(
                    "kv_lengths",
                    bad,
                    format!("is not between 0 and the {all} keys"),
                ));
            }
        }
        Ok(Self { queries, keys, causal, packed, part, window, lengths, mask })
    }

    /// The sequences on the axis of the queries: one, unless they are packed.
    pub(crate) fn sequences(&self) -> impl Iterator<Item = Range<usize>> {
        let starts = self.packed.map_or(&[][..], |packed| packed.queries);
        let whole = self.packed.is_none().then_some(0..self.queries);
        starts.windows(2).map(|ends| ends[0]..ends[1]).chain(whole)
    }

    /// What this query sees, and the others of its sequence.
    pub(crate) fn reach(&self, batch: usize, query: usize) -> Reach {
        let (queries, keys) = match self.packed {
            None => (0..self.queries, 0..self.keys),
            Some(packed) => {
                // At least 1: the first sequence starts at 0.
                let s = packed.queries.partition_point(|start| *start <= query);
                (packed.queries[s - 1]..packed.queries[s], packed.keys[s - 1]..packed.keys[s])
            }
        };
        let PartOf { first_key, keys: all } = self.part.unwrap_or(PartOf { first_key: 0, keys: keys.len() });
        let offset = match self.causal {
            None | Some(Causal::TopLeft) => 0,
            // Where there is nothing to compute, an axis may have any length.
            Some(Causal::BottomRight) => (all as i64).wrapping_sub(queries.len() as i64),
            Some(Causal::Offset(offset)) => offset,
        };
        let offset = offset.saturating_sub(first_key as i64);
        let mut end = keys.end;
        if let Some(lengths) = self.lengths {
            end = end.min(keys.start.max((lengths[batch] as usize).saturating_sub(first_key)));
        }
        if let Some(mask) = &self.mask {
            end = end.min(mask.shape[3]);
        }
        let causal = self.causal.map(|_| 0);
        let ahead = [causal, self.window.right].into_iter().flatten().min();
        Reach { first: queries.start, offset, keys, end, behind: self.window.left, ahead }
    }

    /// The first key of the sequence of this query.
    pub(crate) fn first_key(&self, query: usize) -> usize {
        self.reach(0, query).first_key()
    }

    /// The position of a query on the axis of the keys.
    pub(crate) fn position(&self, query: usize) -> i64 {
        self.reach(0, query).position(query)
    }

    /// As [`Reach::keys`].
    pub(crate) fn keys(&self, batch: usize, query: usize) -> Range<usize> {
        self.reach(batch, query).keys(query)
    }

    /// What any of these queries of one sequence sees.
    pub(crate) fn keys_of_all(&self, batch: usize, queries: Range<usize>) -> Range<usize> {
        if queries.is_empty() {
            return 0..0;
        }
        let reach = self.reach(batch, queries.start);
        // A later query starts and ends no earlier.
        let mut seen = queries.map(|query| reach.keys(query)).filter(|keys| !keys.is_empty());
        match (seen.next(), seen.next_back()) {
            (Some(first), Some(last)) => first.start..last.end,
            (only, _) => only.unwrap_or(0..0),
        }
    }

    pub(crate) fn mask(&self) -> Option<&Mask<'a>> {
        self.mask.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(causal: Option<Causal>, window: Window) -> Visibility<'static> {
        Visibility::new([1, 1, 4, 6], causal, window, None, None, None, None).unwrap()
    }

    #[test]
    fn causal_forms_differ_by_their_offset() {
        let open = Window::default();
        assert_eq!(rules(None, open).keys(0, 0), 0..6);
        assert_eq!(rules(Some(Causal::TopLeft), open).keys(0, 1), 0..2);
        assert_eq!(rules(Some(Causal::BottomRight), open).keys(0, 1), 0..4);
        assert_eq!(rules(Some(Causal::Offset(-2)), open).keys(0, 1), 0..0);
    }

    #[test]
    fn windows_keep_both_sides_of_the_position() {
        let window = Window { left: Some(1), right: Some(2) };
        assert_eq!(rules(None, window).keys(0, 2), 1..5);
        assert_eq!(rules(Some(Causal::Offset(1)), window).keys(0, 2), 2..4);
    }

    #[test]
    fn offsets_at_the_ends_of_i64_do_not_wrap() {
        let far = Window { left: Some(u64::MAX), right: Some(u64::MAX) };
        assert_eq!(rules(Some(Causal::Offset(i64::MAX)), far).keys(0, 3), 0..6);
        assert_eq!(rules(Some(Causal::Offset(i64::MIN)), far).keys(0, 3), 0..0);
        let near = Window { left: Some(0), right: None };
        assert_eq!(rules(Some(Causal::Offset(i64::MAX)), near).keys(0, 3), 6..6);
    }

    #[test]
    fn a_part_counts_on_the_axis_of_all_keys() {
        let part = |causal, window, first_key| {
            let part = Some(PartOf { first_key, keys: 10 });
            Visibility::new([1, 1, 4, 6], causal, window, Some(&[8]), None, part, None)
        };
        let open = Window::default();
        assert_eq!(part(None, open, 4).unwrap().keys(0, 0), 0..4);
        assert_eq!(part(Some(Causal::TopLeft), open, 2).unwrap().keys(0, 3), 0..2);
        assert_eq!(part(Some(Causal::BottomRight), open, 2).unwrap().keys(0, 0), 0..5);
        assert_eq!(part(Some(Causal::Offset(5)), open, 4).unwrap().keys(0, 1), 0..3);
        let near = Window { left: Some(1), right: Some(2) };
        assert_eq!(part(None, near, 1).unwrap().keys(0, 3), 1..5);
        assert!(part(None, open, 5).is_err());
    }

    #[test]
    fn packed_sequences_do_not_see_each_other() {
        let packed = Packed { queries: &[0, 2, 2, 4], keys: &[0, 3, 4, 6] };
        let rules = |causal| {
            Visibility::new([1, 1, 4, 6], causal, Window::default(), None, Some(packed), None, None).unwrap()
        };
        assert_eq!(rules(None).keys(0, 1), 0..3);
        assert_eq!(rules(None).keys(0, 2), 4..6);
        assert_eq!(rules(Some(Causal::BottomRight)).keys(0, 0), 0..2);
        assert_eq!(rules(Some(Causal::TopLeft)).keys(0, 2), 4..5);
        assert_eq!(rules(None).sequences().collect::<Vec<_>>(), [0..2, 2..2, 2..4]);
        for wrong in [&[0usize, 3, 4][..], &[0, 2, 2, 5], &[1, 2, 2, 4], &[0, 3, 2, 4]] {
            let packed = Packed { queries: wrong, ..packed };
            assert!(packed.check([1, 1, 4, 6]).is_err(), "{wrong:?}");
        }
    }
}
