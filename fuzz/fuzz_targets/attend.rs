//! `Attention::run` on every instruction set of this machine against `reference::attention`.
//!
//! Any small shape, strides with gaps, packed sequences, masks, causal forms, windows, lengths, sinks, slopes,
//! softcap, types, with readouts in the same pass;
//! the gaps hold NaN, and one key, value, query or mask entry may be NaN.
//!
//! Checked: no panic; a row is NaN exactly where the reference's is, so what is hidden never leaks; all other
//! numbers are within twice the error of the plain computation in f32 (Dao's rule), plus the rounding of the
//! output type and of one score.
#![no_main]

use glasshead_attention::{
    Attention, Causal, Element, InstructionSet, Mask, MaskValues, Packed, Read, TensorView, Window, bf16, f16,
    reference,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

#[derive(Arbitrary, Debug)]
struct Case {
    batch: u8,
    kv_heads: u8,
    group: u8,
    queries: u8,
    keys: u16,
    dim: u8,
    value_dim: u8,
    /// Extra stride per axis, for q, k and v.
    gaps: [[u8; 4]; 3],
    token_major: bool,
    dtype: u8,
    causal: Form,
    left: Option<u8>,
    right: Option<u8>,
    scale: Option<i8>,
    softcap: Option<u8>,
    mask: Option<(bool, [bool; 3], u8)>,
    lengths: Option<[u8; 2]>,
    /// Where the queries and the keys of a second sequence start.
    packed: Option<[u8; 2]>,
    sinks: bool,
    alibi: bool,
    spread: u8,
    poison: Option<(Poison, u16)>,
    seed: u64,
}

#[derive(Arbitrary, Debug)]
enum Form {
    None,
    TopLeft,
    BottomRight,
    Offset(i8),
    Far(i64),
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Poison {
    Query,
    Key,
    Value,
    Mask,
    Sink,
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn even(&mut self, spread: f64) -> f64 {
        (2.0 * self.unit() - 1.0) * spread
    }
}

/// Numbers of one tensor with NaN in the gaps between them.
struct Strided<T> {
    data: Vec<T>,
    shape: [usize; 4],
    strides: [usize; 4],
}

impl<T: Element> Strided<T> {
    fn new(shape: [usize; 4], gaps: [u8; 4], token_major: bool, draw: &mut dyn FnMut() -> f64) -> Self {
        let order = if token_major { [3, 1, 2, 0] } else { [3, 2, 1, 0] };
        let (mut strides, mut step) = ([0; 4], 1);
        for axis in order {
            step += usize::from(gaps[axis] % 4) * usize::from(gaps[axis] >= 128);
            strides[axis] = step;
            step *= shape[axis].max(1);
        }
        let mut data = vec![T::from_f64(f64::NAN); step];
        for at in indices(shape) {
            data[(0..4).map(|axis| at[axis] * strides[axis]).sum::<usize>()] = T::from_f64(draw());
        }
        Self { data, shape, strides }
    }

    fn view(&self) -> TensorView<'_, T> {
        TensorView::new(&self.data, self.shape, self.strides).expect("the strides fit")
    }

    fn poison(&mut self, place: usize) {
        let count: usize = self.shape.iter().product();
        if let Some(at) = place.checked_rem(count).and_then(|n| indices(self.shape).nth(n)) {
            self.data[(0..4).map(|axis| at[axis] * self.strides[axis]).sum::<usize>()] =
                T::from_f64(f64::NAN);
        }
    }
}

fn indices([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    (0..a * b * c * d).map(move |n| [n / (b * c * d), n / (c * d) % b, n / d % c, n % d])
}

fuzz_target!(|case: Case| {
    match case.dtype % 5 {
        0 | 1 => case.check::<f32>(0.0),
        4 => case.check::<f64>(0.0),
        2 => case.check::<f16>(f64::from(f16::EPSILON)),
        _ => case.check::<bf16>(f64::from(bf16::EPSILON)),
    }
});

impl Case {
    fn check<T: Element>(&self, rounding: f64) {
        let size = |n: u8, most: u8| usize::from(n % most);
        let batches = if self.packed.is_some() { 1 } else { 1 + size(self.batch, 2) };
        let (batch, kv_heads, group) =
            (batches, 1 + size(self.kv_heads, 2), 1 + size(self.group, 3));
        let (queries, keys) = (size(self.queries, 40), usize::from(self.keys % 280));
        let (dim, value_dim, heads) =
            (1 + size(self.dim, 40), 1 + size(self.value_dim, 40), kv_heads * group);
        let spread = 0.1 + f64::from(self.spread) / 32.0;
        let mut random = Random(self.seed);
        let mut tensor = |shape, gaps, spread| {
            Strided::<T>::new(shape, gaps, self.token_major, &mut || random.even(spread))
        };
        let mut q = tensor([batch, heads, queries, dim], self.gaps[0], spread);
        let mut k = tensor([batch, kv_heads, keys, dim], self.gaps[1], 2.0);
        let mut v = tensor([batch, kv_heads, keys, value_dim], self.gaps[2], 2.0);
        let mut sinks: Vec<f32> = (0..heads).map(|_| random.even(3.0) as f32).collect();
        let slopes: Vec<f32> = (0..heads).map(|_| random.unit() as f32).collect();
        let lengths: Vec<i64> = (0..batch)
            .map(|b| self.lengths.map_or(0, |lengths| (usize::from(lengths[b]) % (keys + 1)) as i64))
            .collect();
        let (additive, axes, short) = self.mask.unwrap_or_default();
        let axis = |n: usize, full: usize| if axes[n] { full } else { 1 };
        let mask_keys = keys.saturating_sub(usize::from(short % 8));
        let mask_shape = [axis(0, batch), axis(1, heads), axis(2, queries), mask_keys];
        let count: usize = mask_shape.iter().product();
        let shown: Vec<bool> = (0..count).map(|_| random.unit() < 0.7).collect();
        let mut added: Vec<f32> = shown
            .iter()
            .map(|&shown| if shown { random.even(2.0) as f32 } else { f32::NEG_INFINITY })
            .collect();
        if let Some((poison, place)) = self.poison {
            let place = usize::from(place);
            match poison {
                Poison::Query => q.poison(place),
                Poison::Key => k.poison(place),
                Poison::Value => v.poison(place),
                Poison::Mask if count > 0 => added[place % count] = f32::NAN,
                Poison::Mask => {}
                Poison::Sink => sinks[place % heads] = f32::NAN,
            }
        }

        let mut request = Attention::new(q.view(), k.view(), v.view())
            .window(Window { left: self.left.map(u64::from), right: self.right.map(u64::from) });
        let softcap = self.softcap.map_or(0.0, |cap| 0.5 + f64::from(cap));
        request = request.softcap(softcap);
        if let Some(scale) = self.scale {
            request = request.scale(f64::from(scale) / 64.0);
        }
        match self.causal {
            Form::None => {}
            Form::TopLeft => request = request.causal(Causal::TopLeft),
            Form::BottomRight => request = request.causal(Causal::BottomRight),
            Form::Offset(offset) => request = request.causal(Causal::Offset(offset.into())),
            Form::Far(offset) => request = request.causal(Causal::Offset(offset)),
        }
        if self.mask.is_some() {
            let values = if additive { MaskValues::F32(&added) } else { MaskValues::Bool(&shown) };
            request = request.mask(Mask::new(values, &mask_shape).expect("the mask has its values"));
        }
        if self.lengths.is_some() {
            request = request.kv_lengths(&lengths);
        }
        let cuts = self.packed.map(|[query, key]| {
            [[0, usize::from(query) % (queries + 1), queries], [0, usize::from(key) % (keys + 1), keys]]
        });
        if let Some([queries, keys]) = &cuts {
            request = request.packed(Packed { queries, keys });
        }
        if self.sinks {
            request = request.sinks(&sinks);
        }
        // Far from the diagonal a slope times the distance has no digits left in f32.
        let alibi = self.alibi && !matches!(self.causal, Form::Far(_));
        if alibi {
            request = request.alibi_slopes(&slopes);
        }
        let exact = reference::attention(&request).expect("a sound request");

        // The same in plain f32; who sees whom and what is added comes from the oracle's rows.
        let scale = request.scale_factor() as f32;
        let (mut naive_error, mut largest, mut score) = (0.0f64, 0.0f64, 0.0f64);
        let mut naive = vec![0f32; value_dim];
        for (row_index, [_, b, h, i]) in indices([1, batch, heads, queries]).enumerate() {
            let row = reference::row(&request, b, h, i).expect("in range");
            let q: Vec<f32> = request.q().vector(b, h, i).iter().map(T::to_f32).collect();
            let scores: Vec<f32> = row
                .keys
                .iter()
                .map(|&j| {
                    let k = request.k().vector(b, h / group, j);
                    let terms = || q.iter().zip(k.iter()).map(|(q, k)| q * k.to_f32());
                    let size = f64::from(terms().map(f32::abs).sum::<f32>() * scale.abs());
                    let mut s = terms().sum::<f32>() * scale;
                    if softcap > 0.0 {
                        s = softcap as f32 * (s / softcap as f32).tanh();
                    }
                    let mut distance = 0.0;
                    if alibi {
                        distance = slopes[h] * row.position.abs_diff(j as i64) as f32;
                        s -= distance;
                    }
                    if self.mask.is_some() && additive {
                        let [mb, mh, mi, mk] = mask_shape;
                        s += added[((b % mb * mh + h % mh) * mi + i % mi) * mk + j];
                    }
                    score = score.max(size + f64::from(distance)); // NaN is passed over
                    s
                })
                .collect();
            let sink = self.sinks.then(|| sinks[h]);
            let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
            let exps: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum = exps.iter().sum::<f32>() + sink.map_or(0.0, |s| (s - max).exp());
            naive.fill(0.0);
            for (e, &j) in exps.iter().zip(&row.keys) {
                for (naive, v) in naive.iter_mut().zip(request.v().vector(b, h / group, j).iter()) {
                    *naive += e / sum * v.to_f32();
                }
            }
            for (naive, exact) in naive.iter().zip(&exact.out[row_index * value_dim..]) {
                naive_error = naive_error.max((f64::from(*naive) - exact).abs());
                largest = largest.max(exact.abs());
            }
        }
        let epsilon = f64::from(f32::EPSILON);
        // Values are at most 2, however small their mean: so much is known of a sum of shares of them, and an
        // error in a score moves it by no more than twice that.
        let allowed = 2.0 * naive_error + rounding * largest + 4.0 * epsilon * (2.0 + score);

        for set in InstructionSet::here() {
            let plain = request.clone().instruction_set(set).run().expect("a sound request").out;
            let read = Read::new().lse().entropy().top_k(3).received().distance().blocks(7);
            let seen = request.clone().instruction_set(set).read(read).run().expect("a sound request");
            assert_eq!([plain.len(), seen.out.len()], [exact.out.len(); 2]);
            let outs = plain.iter().zip(&exact.out).chain(seen.out.iter().zip(&exact.out));
            for (n, (got, exact)) in outs.map(|(got, exact)| (got.to_f64(), exact)).enumerate() {
                assert_eq!(got.is_nan(), exact.is_nan(), "{set:?}: out[{n}] is {got}, exactly {exact}");
                assert!(
                    exact.is_nan() || (got - exact).abs() <= allowed,
                    "{set:?}: out[{n}] {got} {exact} {allowed}"
                );
            }
            let lse = seen.readout("lse").and_then(|lse| lse.f32()).expect("read out");
            for (got, exact) in lse.iter().zip(&exact.lse) {
                // An error in every score, and the rounding of the result.
                let off = 4.0 * epsilon * (2.0 + score + exact.abs());
                assert!(
                    *got == *exact as f32
                        || (got.is_nan() && exact.is_nan())
                        || exact.is_finite() && (f64::from(*got) - exact).abs() <= off,
                    "{set:?}: lse {got} {exact}"
                );
            }
        }
    }
}
