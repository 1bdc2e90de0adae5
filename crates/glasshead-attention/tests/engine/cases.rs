//! Random problems for the tests that compare with the reference.

use glasshead_attention::{Attention, Causal, Element, Mask, MaskValues, TensorView, Window, reference};
use proptest::prelude::*;

/// What a random mask hides, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaskKind {
    /// Any keys.
    Bool,
    /// Any keys, and adds to the rest.
    Additive,
    /// All keys but those of the query's own document, now and then those too.
    Documents,
    /// As documents, by adding −∞.
    AdditiveDocuments,
    /// As documents, by adding the lowest number: queries of which all is hidden see all keys alike.
    Lowest,
}

impl MaskKind {
    pub(crate) fn is_additive(self) -> bool {
        !matches!(self, Self::Bool | Self::Documents)
    }
}

/// One random problem; arrays are drawn from `seed`.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) kv_heads: usize,
    pub(crate) group: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) token_major: bool,
    pub(crate) causal: Option<Causal>,
    pub(crate) window: Window,
    pub(crate) softcap: f64,
    pub(crate) mask: Option<(MaskKind, [bool; 3])>,
    pub(crate) lengths: bool,
    pub(crate) sinks: bool,
    pub(crate) alibi: bool,
    pub(crate) spread: f64,
    pub(crate) seed: u64,
}

/// So many random cases, or as many as `PROPTEST_CASES` says.
pub(crate) fn random(count: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().map(|n| n.parse().expect("PROPTEST_CASES is a number"));
    ProptestConfig { cases: asked.unwrap_or(count), failure_persistence: None, ..ProptestConfig::default() }
}

pub(crate) fn cases() -> impl Strategy<Value = Case> {
    let causal = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Causal::TopLeft)),
        2 => Just(Some(Causal::BottomRight)),
        1 => (-20i64..60).prop_map(|offset| Some(Causal::Offset(offset))),
    ];
    let side = || proptest::option::weighted(0.3, 0u64..40);
    let kinds = [
        MaskKind::Bool,
        MaskKind::Additive,
        MaskKind::Documents,
        MaskKind::AdditiveDocuments,
        MaskKind::Lowest,
    ];
    let mask =
        proptest::option::weighted(0.5, (proptest::sample::select(kinds.to_vec()), any::<[bool; 3]>()));
    // More than a panel of queries for every set, now and then.
    let queries = prop_oneof![6 => 0usize..70, 1 => 250usize..300];
    // Those of models now and then: decode multiplies values by eight vectors from 128 dims on (64 with AVX2).
    let dim = prop_oneof![5 => 1usize..70, 1 => proptest::sample::select(vec![64usize, 128, 256])];
    let value_dim = prop_oneof![5 => 1usize..40, 1 => proptest::sample::select(vec![64usize, 128, 256])];
    let sizes = (1usize..3, 1usize..3, 1usize..4, queries, 0usize..300, dim, value_dim);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let softcap = prop_oneof![3 => Just(0.0), 1 => 0.5f64..50.0];
    (sizes, causal, (side(), side()), softcap, mask, flags, 0.1f64..6.0, any::<u64>()).prop_map(
        |(sizes, causal, (left, right), softcap, mask, flags, spread, seed)| Case {
            batch: sizes.0,
            kv_heads: sizes.1,
            group: sizes.2,
            queries: sizes.3,
            keys: sizes.4,
            dim: sizes.5,
            value_dim: sizes.6,
            token_major: flags.0,
            causal,
            window: Window { left, right },
            softcap,
            mask,
            lengths: flags.1,
            sinks: flags.2,
            alibi: flags.3,
            spread,
            seed,
        },
    )
}

/// Splitmix64: numbers that depend on the seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Nearly normal: the sum of twelve, less six.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// The largest weight, as a share of the heaviest one of its row, that may count as 0: with subnormal numbers some CPUs are slow.
pub(crate) fn negligible<T>() -> f64 {
    2f64.powf(if size_of::<T>() == 8 { -989.5 } else { -99.5 })
}

/// Arrays of a case, and what else a request borrows.
pub(crate) struct Arrays<T> {
    pub(crate) q: Vec<T>,
    pub(crate) k: Vec<T>,
    pub(crate) v: Vec<T>,
    pub(crate) mask_bool: Vec<bool>,
    pub(crate) mask_f32: Vec<f32>,
    pub(crate) mask_shape: [usize; 4],
    pub(crate) lengths: Vec<i64>,
    pub(crate) sinks: Vec<f32>,
    pub(crate) slopes: Vec<f32>,
}

impl Case {
    pub(crate) fn heads(&self) -> usize {
        self.kv_heads * self.group
    }

    pub(crate) fn arrays<T: Element>(&self) -> Arrays<T> {
        let mut random = Random(self.seed);
        let mut draw = |count: usize, spread: f64| -> Vec<T> {
            (0..count).map(|_| T::from_f64(random.normal() * spread)).collect()
        };
        let q = draw(self.batch * self.heads() * self.queries * self.dim, self.spread);
        let k = draw(self.batch * self.kv_heads * self.keys * self.dim, 1.0);
        let v = draw(self.batch * self.kv_heads * self.keys * self.value_dim, 1.0);
        let (kind, [b, h, i]) = self.mask.unwrap_or((MaskKind::Bool, [false; 3]));
        let axis = |whole: bool, len: usize| if whole { len } else { 1 };
        let short = self.keys - self.keys / 7;
        let mask_shape = [axis(b, self.batch), axis(h, self.heads()), axis(i, self.queries), short];
        let count = mask_shape.iter().product();
        // Documents as long as some tiles of queries, or some blocks of keys.
        let document = 1 + (random.next() % 150) as usize;
        let mut seen = |n: usize| {
            let (query, key) = (n / short.max(1), n % short.max(1));
            match kind {
                MaskKind::Bool | MaskKind::Additive => random.unit() < 0.7,
                _ => query / document % 4 < 3 && query / document % 3 == key / document % 3,
            }
        };
        let mask_bool: Vec<bool> = (0..count).map(&mut seen).collect();
        let value = |seen: &bool| match (kind, seen) {
            (MaskKind::Additive, true) => random.normal() as f32,
            (MaskKind::Lowest, false) => f32::MIN,
            (_, true) => 0.0,
            (_, false) => f32::NEG_INFINITY,
        };
        let mask_f32 = mask_bool.iter().map(value).collect();
        let lengths = (0..self.batch).map(|_| (random.next() % (self.keys as u64 + 1)) as i64).collect();
        let sinks = (0..self.heads()).map(|_| random.normal() as f32).collect();
        let slopes = (0..self.heads()).map(|h| 0.5f32.powi(h as i32 + 1)).collect();
        Arrays { q, k, v, mask_bool, mask_f32, mask_shape, lengths, sinks, slopes }
    }

    pub(crate) fn view<'a, T: Element>(
        &self,
        data: &'a [T],
        heads: usize,
        tokens: usize,
        dim: usize,
    ) -> TensorView<'a, T> {
        if self.token_major {
            TensorView::from_tokens(data, self.batch, tokens, heads, dim).unwrap()
        } else {
            TensorView::contiguous(data, [self.batch, heads, tokens, dim]).unwrap()
        }
    }

    pub(crate) fn request<'a, T: Element>(&self, arrays: &'a Arrays<T>) -> Attention<'a, T> {
        let mut request = Attention::new(
            self.view(&arrays.q, self.heads(), self.queries, self.dim),
            self.view(&arrays.k, self.kv_heads, self.keys, self.dim),
            self.view(&arrays.v, self.kv_heads, self.keys, self.value_dim),
        )
        .window(self.window)
        .softcap(self.softcap);
        if let Some(causal) = self.causal {
            request = request.causal(causal);
        }
        if let Some((kind, _)) = self.mask {
            let values = if kind.is_additive() {
                MaskValues::F32(&arrays.mask_f32)
            } else {
                MaskValues::Bool(&arrays.mask_bool)
            };
            request = request.mask(Mask::new(values, &arrays.mask_shape).unwrap());
        }
        if self.lengths {
            request = request.kv_lengths(&arrays.lengths);
        }
        if self.sinks {
            request = request.sinks(&arrays.sinks);
        }
        if self.alibi {
            request = request.alibi_slopes(&arrays.slopes);
        }
        request
    }

    /// Scores of a row as the equation says them, in f32. Who sees whom, and the bias, are exact: they come from the
    /// oracle.
    pub(crate) fn plain_scores<T: Element>(
        &self,
        arrays: &Arrays<T>,
        request: &Attention<T>,
        row: &reference::Row,
    ) -> Vec<f32> {
        let (b, h, i) = (row.batch, row.head, row.query);
        let q: Vec<f32> = request.q().vector(b, h, i).iter().map(T::to_f32).collect();
        let scale = (1.0 / (self.dim as f64).sqrt()) as f32;
        let score = |&j: &usize| {
            let k = request.k().vector(b, h / self.group, j);
            let dot: f32 = q.iter().zip(k.iter()).map(|(q, k)| q * k.to_f32()).sum();
            let mut s = dot * scale;
            if self.softcap > 0.0 {
                s = self.softcap as f32 * (s / self.softcap as f32).tanh();
            }
            if self.alibi {
                s -= arrays.slopes[h] * (row.position - j as i64).abs() as f32;
            }
            if self.mask.is_some_and(|(kind, _)| kind.is_additive()) {
                let [mb, mh, mi, mk] = arrays.mask_shape;
                s += arrays.mask_f32[((b % mb * mh + h % mh) * mi + i % mi) * mk + j];
            }
            s
        };
        row.keys.iter().map(score).collect()
    }
}

/// The size of the largest score that is one; what the lowest number was added to is that number.
pub(crate) fn largest_score(scores: &[f64]) -> f64 {
    scores.iter().map(|s| s.abs()).filter(|s| *s < 1e30).fold(0.0, f64::max)
}

/// Every row, as batch element, head and query.
pub(crate) fn indices(
    batch: usize,
    heads: usize,
    queries: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..batch * heads * queries).map(move |n| (n / (heads * queries), n / queries % heads, n % queries))
}

/// The largest difference, NaN if any is.
pub(crate) fn worst<T: Element>(got: &[T], exact: &[f64]) -> f64 {
    let off = got.iter().zip(exact).map(|(a, b)| (a.to_f64() - b).abs());
    off.max_by(f64::total_cmp).unwrap_or(0.0)
}
