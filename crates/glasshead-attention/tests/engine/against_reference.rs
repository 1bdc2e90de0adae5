//! The fused path against the f64 oracle: random shapes, strides, masks, types, every instruction set
//! of this machine. Tolerance: twice the error of the same computation done plainly in f32 (Dao's rule), plus
//! what rounding costs in any order of operations, for the plain error of a single number may be 0 by luck. A score
//! is a sum of products and is off by ε of their sizes' sum, which is the relative error of its weight; weighted
//! values may cancel, so that share is taken of the sum of their sizes; and the output is rounded to its own type.

use crate::cases::{self, Arrays, Case, MaskKind, cases, indices, negligible, random, worst};
use glasshead_attention::{
    Attention, Causal, Element, InstructionSet, Packed, Read, TensorView, Window, reference,
};
use half::{bf16, f16};
use proptest::prelude::*;

/// The plain computation in f32, and how much may cancel in it.
struct Naive {
    out: Vec<f64>,
    /// Of any score: the sizes of what is added up to it, and its own.
    score_size: f64,
    /// Of any output: the sizes of what is added up to it.
    out_size: f64,
}

impl Case {
    /// The plain computation in f32, in the order of the equation.
    fn naive<T: Element>(&self, arrays: &Arrays<T>, request: &Attention<T>) -> Naive {
        let mut naive = Naive { out: Vec::new(), score_size: 0.0, out_size: 0.0 };
        let scale = 1.0 / (self.dim as f64).sqrt();
        for (b, h, i) in indices(self.batch, self.heads(), self.queries) {
            // Who sees whom, and the bias, are exact: they come from the oracle.
            let row = reference::row(request, b, h, i).unwrap();
            let q: Vec<f64> = request.q().vector(b, h, i).iter().map(T::to_f64).collect();
            let largest = cases::largest_score(&row.scores);
            let scores = self.plain_scores(arrays, request, &row);
            let sink = self.sinks.then(|| arrays.sinks[h]);
            let max = scores.iter().copied().chain(sink).fold(f32::NEG_INFINITY, f32::max);
            let e: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum = e.iter().sum::<f32>() + sink.map_or(0.0, |s| (s - max).exp());
            let mut mixed = vec![0f32; self.value_dim];
            let mut sizes = vec![0f64; self.value_dim];
            for (e, &j) in e.iter().zip(&row.keys) {
                let k = request.k().vector(b, h / self.group, j);
                let products: f64 = q.iter().zip(k.iter()).map(|(q, k)| (q * k.to_f64()).abs()).sum();
                naive.score_size = naive.score_size.max(products * scale + largest);
                let v = request.v().vector(b, h / self.group, j);
                for ((mixed, size), v) in mixed.iter_mut().zip(&mut sizes).zip(v.iter()) {
                    let product = e / sum * v.to_f32();
                    *mixed += product;
                    *size += f64::from(product.abs());
                }
            }
            naive.out.extend(mixed.into_iter().map(f64::from));
            naive.out_size = sizes.into_iter().fold(naive.out_size, f64::max);
        }
        naive
    }

    /// How far any output may be off; `rounding` is the relative step of the output type, `smallest` its smallest number
    /// above 0.
    fn allowed<T: Element>(
        &self,
        arrays: &Arrays<T>,
        request: &Attention<T>,
        exact: &[f64],
        [rounding, smallest]: [f64; 2],
    ) -> f64 {
        let naive = self.naive(arrays, request);
        let largest = exact.iter().fold(0.0f64, |max, x| max.max(x.abs()));
        let any_order = f64::from(f32::EPSILON) * (4.0 + naive.score_size) * naive.out_size;
        let values = arrays.v.iter().fold(0.0, |max: f64, v| max.max(v.to_f64().abs()));
        // As many weights may count as 0 as there are keys.
        let lost = self.keys as f64 * negligible::<T>() * values;
        2.0 * worst(&naive.out, exact) + any_order + rounding * largest + smallest + lost
    }

    /// Compares every instruction set, see [`Case::allowed`].
    fn check<T: Element>(&self, rounding: f64, smallest: f64) {
        let arrays = self.arrays::<T>();
        let request = self.request(&arrays);
        let exact = reference::attention(&request).unwrap().out;
        let allowed = self.allowed(&arrays, &request, &exact, [rounding, smallest]);
        for set in InstructionSet::ALL {
            let request = request.clone().instruction_set(set);
            if !set.is_here() {
                assert!(request.run().is_err());
                continue;
            }
            let got = request.run().unwrap().out;
            assert_eq!(got.len(), exact.len());
            let off = worst(&got, &exact);
            assert!(off <= allowed, "{set:?}: {off} > {allowed} in {self:?}");
        }
    }
}

#[cfg(feature = "rayon")]
impl Case {
    /// Token-major arrays, with one thread and with several, against the same numbers head by head, bit by bit.
    fn check_layouts<T: Element>(&self) {
        let lying = Case { token_major: true, ..self.clone() };
        let standing = Case { token_major: false, ..self.clone() };
        let arrays = lying.arrays::<T>();
        let by_head = |data: &[T], heads: usize, tokens: usize, dim: usize| -> Vec<T> {
            let view = lying.view(data, heads, tokens, dim);
            indices(self.batch, heads, tokens).flat_map(|(b, h, i)| view.vector(b, h, i).iter()).collect()
        };
        let mut turned = lying.arrays::<T>();
        turned.q = by_head(&arrays.q, self.heads(), self.queries, self.dim);
        turned.k = by_head(&arrays.k, self.kv_heads, self.keys, self.dim);
        turned.v = by_head(&arrays.v, self.kv_heads, self.keys, self.value_dim);
        let read = || Read::new().received().entropy().top_k(3);
        for set in InstructionSet::here() {
            let run = |case: &Case, arrays: &Arrays<T>, threads: usize| {
                let request = case.request(arrays).instruction_set(set);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let seen =
                    pool.install(|| (request.run().unwrap(), request.clone().read(read()).run().unwrap()));
                let bits = |out: &[T]| out.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
                (bits(&seen.0.out), bits(&seen.1.out), format!("{:?}", seen.1.readouts))
            };
            let expected = run(&standing, &turned, 1);
            for threads in [1, 2, 5] {
                assert_eq!(run(&lying, &arrays, threads), expected, "{set:?}, {threads} threads, {self:?}");
            }
        }
    }
}

impl Case {
    /// All readouts against those of the reference's rows. A score is a sum of `dim` products and is off by a few
    /// units of its parts' sum, which is the relative error of its weight; results are rounded to f32.
    fn check_readouts<T: Element>(&self, size: usize) {
        let arrays = self.arrays::<T>();
        let ends = [self.keys / 3, self.keys / 3, self.keys - 1];
        let chosen = [self.queries - 1, 0, self.queries / 2];
        let k = 1 + self.keys / 9;
        let read = Read::new().lse().entropy().max_weight().top_k(k).received().rows(&chosen);
        let read = read.segments(&ends).blocks(size).distance();
        let request = self.request(&arrays).read(read);
        for set in InstructionSet::here() {
            let got = request.clone().instruction_set(set).run().unwrap();
            let f32s = |name: &str| got.readout(name).unwrap().f32().unwrap();
            let columns = self.keys.div_ceil(size);
            let squares = self.queries.div_ceil(size) * columns;
            let mut received = vec![0.0; self.batch * self.heads() * self.keys];
            let mut blocks = vec![0.0; self.batch * self.heads() * squares];
            let mut score_error = 0f64;
            for (n, (b, h, i)) in indices(self.batch, self.heads(), self.queries).enumerate() {
                let row = reference::row(&request, b, h, i).unwrap();
                let largest = cases::largest_score(&row.scores);
                let parts = self.spread * (self.dim as f64).sqrt();
                let off = 2.0 * f64::from(f32::EPSILON) * (parts + largest);
                score_error = score_error.max(off);
                let near = |what: &str, got: f32, want: f64, scale: f64| {
                    let allowed = 2.0 * off * scale + 1e-6 * (1.0 + want.abs());
                    let got = f64::from(got);
                    assert!(
                        got == want || (got - want).abs() <= allowed,
                        "{set:?} {what} of {:?}: {got}, not {want} ± {allowed}, in {self:?}",
                        (b, h, i)
                    );
                };
                let entropy: f64 = row.weights.iter().filter(|w| **w > 0.0).map(|w| -w * w.ln()).sum();
                near("lse", f32s("lse")[n], row.lse, 1.0);
                near("entropy", f32s("entropy")[n], entropy, 2.0 + (self.keys as f64).ln());
                near("max", f32s("max_weight")[n], row.weights.iter().copied().fold(0.0, f64::max), 1.0);
                if self.sinks {
                    near("sink", f32s("sink_weight")[n], row.sink_weight, 1.0);
                }
                let far = |key: &usize| row.position.abs_diff(*key as i64) as f64;
                let distance: f64 = row.keys.iter().zip(&row.weights).map(|(key, w)| far(key) * w).sum();
                let farthest = row.keys.iter().map(far).fold(0.0, f64::max);
                near("distance", f32s("distance")[n], distance, 1.0 + farthest);
                let mut start = 0;
                for (s, end) in ends.into_iter().enumerate() {
                    let inside = |key: &usize| (start..end).contains(key);
                    let pairs = row.keys.iter().zip(&row.weights);
                    let sum = pairs.filter(|(key, _)| inside(key)).map(|(_, w)| w).sum();
                    near("segment", f32s("segments")[n * ends.len() + s], sum, 1.0);
                    start = end;
                }
                let mut whole = vec![0.0; self.keys];
                for (&key, &weight) in row.keys.iter().zip(&row.weights) {
                    whole[key] = weight;
                    received[n / self.queries * self.keys + key] += weight;
                    blocks[n / self.queries * squares + i / size * columns + key / size] += weight;
                }
                for (at, _) in chosen.iter().enumerate().filter(|(_, query)| **query == i) {
                    let place = (n / self.queries * chosen.len() + at) * self.keys;
                    for (got, want) in f32s("rows")[place..place + self.keys].iter().zip(&whole) {
                        near("row", *got, *want, 1.0);
                    }
                }
                let top = &got.readout("top_index").unwrap().i64().unwrap()[n * k..(n + 1) * k];
                let weights = &f32s("top_weight")[n * k..(n + 1) * k];
                let filled = top.iter().filter(|key| **key >= 0).count();
                assert_eq!(filled, k.min(row.keys.len()), "{set:?} {:?} in {self:?}", (b, h, i));
                assert!(weights.is_sorted_by(|a, b| a >= b), "{weights:?}");
                let mut taken = std::collections::HashSet::new();
                for (&key, &weight) in top.iter().zip(weights).take(filled) {
                    assert!(taken.insert(key as usize) && row.keys.contains(&(key as usize)));
                    near("top", weight, whole[key as usize], 1.0);
                }
                let least = if filled < k { 0.0 } else { f64::from(weights[k - 1]) };
                for key in row.keys.iter().filter(|key| !taken.contains(key)) {
                    near("left out", whole[*key].max(least) as f32, least, 1.0);
                }
            }
            let sums = [("received", &received, self.queries), ("blocks", &blocks, size * size)];
            for (name, want, terms) in sums {
                for (got, want) in f32s(name).iter().zip(want) {
                    let allowed = (2.0 * score_error + 1e-6) * (1.0 + want.abs().min(terms as f64));
                    assert!(
                        (f64::from(*got) - want).abs() <= allowed,
                        "{set:?} {name}: {got} {want} in {self:?}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(random(200))]

    #[test]
    fn fused_f32_is_within_twice_the_plain_error(case in cases()) {
        case.check::<f32>(0.0, 0.0);
    }

    #[test]
    fn fused_half_types_are_within_twice_the_plain_error(case in cases()) {
        case.check::<f16>(f64::from(f16::EPSILON), f64::from(f16::MIN_POSITIVE_SUBNORMAL));
        case.check::<bf16>(f64::from(bf16::EPSILON), f64::from(bf16::MIN_POSITIVE_SUBNORMAL));
    }

    #[test]
    fn f64_is_computed_in_f64(case in cases()) {
        let arrays = case.arrays::<f64>();
        let request = case.request(&arrays);
        let exact = reference::attention(&request).unwrap();
        for set in InstructionSet::here() {
            let got = request.clone().instruction_set(set).run().unwrap().out;
            for (a, b) in got.iter().zip(&exact.out) {
                prop_assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{:?}: {} {}", set, a, b);
            }
        }
    }

    #[test]
    fn readouts_of_every_set_agree_with_rows_of_the_reference(case in cases(), size in 1usize..70) {
        prop_assume!(case.keys > 0 && case.queries > 0);
        case.check_readouts::<f32>(size);
        case.check_readouts::<bf16>(size);
        case.check_readouts::<f64>(size);
    }

    /// NaN and ∞ in a value or key touch the rows that see it, and no other row.
    #[test]
    fn what_is_hidden_is_never_read(case in cases(), at in any::<proptest::sample::Index>(), poison in 0usize..3) {
        prop_assume!(case.keys > 0 && case.queries > 0);
        let mut arrays = case.arrays::<f32>();
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][poison];
        let key = at.index(case.batch * case.kv_heads * case.keys);
        let request = case.request(&arrays);
        let exact = reference::attention(&request).unwrap().out;
        let allowed = case.allowed(&arrays, &request, &exact, [0.0; 2]);
        let (kb, kh, kj) = if case.token_major {
            (key / (case.keys * case.kv_heads), key % case.kv_heads, key / case.kv_heads % case.keys)
        } else {
            (key / (case.keys * case.kv_heads), key / case.keys % case.kv_heads, key % case.keys)
        };
        arrays.k[key * case.dim..(key + 1) * case.dim].fill(bad);
        arrays.v[key * case.value_dim..(key + 1) * case.value_dim].fill(bad);
        let request = case.request(&arrays);
        for set in InstructionSet::here() {
            let got = request.clone().instruction_set(set).run().unwrap().out;
            for (n, (b, h, i)) in indices(case.batch, case.heads(), case.queries).enumerate() {
                let row = reference::row(&request, b, h, i).unwrap();
                let sees = b == kb && h / case.group == kh && row.keys.contains(&kj);
                let range = n * case.value_dim..(n + 1) * case.value_dim;
                if !sees {
                    prop_assert!(got[range.clone()].iter().all(|x| x.is_finite()), "{:?} row {:?}", set, (b, h, i));
                    let off = worst(&got[range.clone()], &exact[range]);
                    prop_assert!(off <= allowed, "{:?} row {:?}: {} > {}", set, (b, h, i), off, allowed);
                } else if bad.is_nan() {
                    prop_assert!(got[range].iter().all(|x| x.is_nan()), "{:?} row {:?}", set, (b, h, i));
                }
            }
        }
    }

    /// The same bits for any number of threads, and for an element alone or in a batch.
    #[cfg(feature = "rayon")]
    #[test]
    fn threads_and_batches_change_no_bit(case in cases()) {
        let arrays = case.arrays::<f32>();
        let request = case.request(&arrays).read(Read::new().received().entropy());
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let one = pool(1).install(|| request.run().unwrap());
        let three = pool(3).install(|| request.run().unwrap());
        prop_assert!(one.out.iter().zip(&three.out).all(|(a, b)| a.to_bits() == b.to_bits()));
        prop_assert_eq!(format!("{:?}", one.readouts), format!("{:?}", three.readouts));
        // Whatever an output held before, all of it is written.
        let mut used = vec![f32::NAN; one.out.len()];
        request.run_into(&mut used).unwrap();
        prop_assert!(one.out.iter().zip(&used).all(|(a, b)| a.to_bits() == b.to_bits()));

        let mut alone = case.clone();
        alone.batch = 1;
        alone.mask = None;
        alone.lengths = false;
        let mut both = alone.clone();
        both.batch = case.batch;
        let whole = both.request(&arrays).run().unwrap().out;
        let first = alone.request(&arrays).run().unwrap().out;
        prop_assert!(first.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

proptest! {
    #![proptest_config(random(60))]

    /// Packed sequences give what each of them gives alone, to the bit.
    #[test]
    fn packed_sequences_are_those_sequences_alone(
        case in cases(),
        lengths in proptest::collection::vec((0usize..60, 0usize..200), 1..6),
    ) {
        let starts = |len: fn(&(usize, usize)) -> usize| -> Vec<usize> {
            let ends = lengths.iter().scan(0, |end, lengths| { *end += len(lengths); Some(*end) });
            std::iter::once(0).chain(ends).collect()
        };
        let (queries, keys) = (starts(|lengths| lengths.0), starts(|lengths| lengths.1));
        let case = Case {
            batch: 1,
            queries: queries[lengths.len()],
            keys: keys[lengths.len()],
            mask: None,
            lengths: false,
            token_major: true,
            ..case
        };
        let arrays = case.arrays::<f32>();
        let packed = Packed { queries: &queries, keys: &keys };
        let request = case.request(&arrays).packed(packed);
        let exact = reference::attention(&request).unwrap().out;
        let allowed = case.allowed(&arrays, &request, &exact, [0.0; 2]);
        for set in InstructionSet::here() {
            let got = request.clone().instruction_set(set).run().unwrap().out;
            let off = worst(&got, &exact);
            prop_assert!(off <= allowed, "{:?}: {} > {}", set, off, allowed);
            for s in 0..lengths.len() {
                let part = |data, heads: usize, starts: &[usize], dim: usize| {
                    let len = starts[s + 1] - starts[s];
                    let data: &[f32] = data;
                    TensorView::from_tokens(&data[starts[s] * heads * dim..], 1, len, heads, dim).unwrap()
                };
                let mut alone = Attention::new(
                    part(&arrays.q, case.heads(), &queries, case.dim),
                    part(&arrays.k, case.kv_heads, &keys, case.dim),
                    part(&arrays.v, case.kv_heads, &keys, case.value_dim),
                )
                .window(case.window)
                .softcap(case.softcap)
                .instruction_set(set);
                if let Some(causal) = case.causal {
                    alone = alone.causal(causal);
                }
                if case.sinks {
                    alone = alone.sinks(&arrays.sinks);
                }
                if case.alibi {
                    alone = alone.alibi_slopes(&arrays.slopes);
                }
                let alone = alone.run().unwrap().out;
                let len = queries[s + 1] - queries[s];
                for head in 0..case.heads() {
                    let whole = &got[(head * case.queries + queries[s]) * case.value_dim..][..len * case.value_dim];
                    let part = &alone[head * len * case.value_dim..][..len * case.value_dim];
                    prop_assert!(whole.iter().zip(part).all(|(a, b)| a.to_bits() == b.to_bits()), "{:?} {}", set, s);
                }
            }
        }
    }

    /// Where heads lie side by side many are read together, as many as the threads leave: that changes no bit.
    #[cfg(feature = "rayon")]
    #[test]
    fn how_heads_lie_changes_no_bit(
        case in cases(),
        kv_heads in 1usize..12,
        queries in 1usize..20,
        keys in 1usize..1700,
    ) {
        let case = Case { kv_heads, queries, keys, ..case };
        case.check_layouts::<f32>();
        case.check_layouts::<bf16>();
        case.check_layouts::<f64>();
    }

    /// Long keys, few queries: more than one chunk, and groups of every size.
    #[test]
    fn decode_is_within_twice_the_plain_error(case in cases(), queries in 1usize..20, keys in 400usize..1700) {
        Case { queries, keys, ..case }.check::<f32>(0.0, 0.0);
    }
}

#[test]
fn readouts_agree_with_the_whole_matrix() {
    let case = Case {
        batch: 2,
        kv_heads: 2,
        group: 2,
        queries: 9,
        keys: 40,
        dim: 8,
        value_dim: 4,
        token_major: false,
        causal: Some(Causal::BottomRight),
        window: Window { left: Some(20), right: None },
        softcap: 0.0,
        mask: Some((MaskKind::Additive, [true, true, true])),
        lengths: true,
        sinks: true,
        alibi: true,
        spread: 2.0,
        seed: 7,
    };
    let arrays = case.arrays::<f32>();
    let read = Read::new()
        .lse()
        .entropy()
        .max_weight()
        .top_k(5)
        .received()
        .rows(&[8, 0])
        .segments(&[7, 30])
        .blocks(16)
        .distance();
    let request = case.request(&arrays).read(read);
    let exact = reference::attention(&request).unwrap();
    let got = request.run().unwrap();
    let f32s = |name: &str| got.readout(name).unwrap().f32().unwrap();
    let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-6 * (1.0 + b.abs());
    for (n, weights) in exact.weights.chunks(case.keys).enumerate() {
        let (head, i) = (n / case.queries, n % case.queries);
        let entropy: f64 = -weights.iter().filter(|w| **w > 0.0).map(|w| w * w.ln()).sum::<f64>();
        assert!(close(f32s("entropy")[n], entropy));
        assert!(close(f32s("max_weight")[n], weights.iter().copied().fold(0.0, f64::max)));
        assert!(close(f32s("segments")[2 * n], weights[..7].iter().sum()));
        assert!(close(f32s("segments")[2 * n + 1], weights[7..30].iter().sum()));
        let position = i as i64 + 31;
        let distance: f64 =
            weights.iter().enumerate().map(|(j, w)| w * position.abs_diff(j as i64) as f64).sum();
        assert!(close(f32s("distance")[n], distance));
        assert!(f32s("lse")[n] == exact.lse[n] as f32 || close(f32s("lse")[n], exact.lse[n]));
        let top = &got.readout("top_index").unwrap().i64().unwrap()[5 * n..5 * n + 5];
        for (place, &key) in top.iter().enumerate() {
            let weight = f32s("top_weight")[5 * n + place];
            let better = weights.iter().filter(|w| **w > f64::from(weight) * (1.0 + 1e-6)).count();
            assert!(if key < 0 {
                weight == 0.0
            } else {
                close(weight, weights[key as usize]) && better <= place
            });
        }
        if i == 8 {
            let row = &f32s("rows")[head * 2 * case.keys..][..case.keys];
            assert!(row.iter().zip(weights).all(|(a, b)| close(*a, *b)));
        }
    }
    for head in 0..case.batch * case.heads() {
        for key in 0..case.keys {
            let column =
                (0..case.queries).map(|i| exact.weights[(head * case.queries + i) * case.keys + key]);
            assert!(close(f32s("received")[head * case.keys + key], column.sum()));
        }
        let blocks = &f32s("blocks")[head * 3..head * 3 + 3];
        let total: f64 =
            exact.weights[head * case.queries * case.keys..][..case.queries * case.keys].iter().sum();
        assert!(close(blocks.iter().sum::<f32>(), total));
    }
    assert_eq!(got.readout("blocks").unwrap().shape, [2, 4, 1, 3]);
    assert!(got.readout("sink_weight").is_some());
}
