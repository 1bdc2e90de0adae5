//! The fused backward pass against the f64 oracle: random shapes, strides, masks, types, every instruction set of
//! this machine.
//!
//! Tolerance: twice the error of the chain rule done plainly in f32 (Dao's rule), plus what rounding costs in any
//! order of operations. A score is off by ε times the sizes of what is added up to it, times the root of how many they
//! are (Higham and Mary 2019), which is the relative error of its weight, and a gradient is a sum of products of weights
//! that may cancel: so that share, and the rounding of the type, are taken of the largest sum of the products' sizes.

use crate::cases::{Arrays, Case, cases, indices, largest_score, negligible, random, worst};
use glasshead_attention::{
    Attention, Causal, Element, Gradients, InstructionSet, Packed, Read, TensorView, Window, reference,
};
use half::{bf16, f16};
use proptest::prelude::*;

/// The chain rule in f32, in the order of the equations, and the sizes of what is added up; outputs below `normal`
/// are rounded to a step of that size.
struct Plain {
    gradients: [Vec<f32>; 4],
    sizes: [Vec<f64>; 4],
    /// Of any score: by how many ε it may be off.
    largest_score: f64,
}

impl Plain {
    fn new<T: Element>(
        case: &Case,
        arrays: &Arrays<T>,
        request: &Attention<T>,
        grad_out: TensorView<T>,
        normal: f64,
    ) -> Self {
        let (q, k, v) = (request.q(), request.k(), request.v());
        let lens = [
            case.batch * case.heads() * case.queries * case.dim,
            case.batch * case.kv_heads * case.keys * case.dim,
            case.batch * case.kv_heads * case.keys * case.value_dim,
            case.heads(),
        ];
        let mut plain = Self {
            gradients: lens.map(|len| vec![0.0; len]),
            sizes: lens.map(|len| vec![0.0; len]),
            largest_score: 0.0,
        };
        let f32s =
            |vector: glasshead_attention::Vector<T>| vector.iter().map(T::to_f32).collect::<Vec<f32>>();
        let scale = (1.0 / (case.dim as f64).sqrt()) as f32;
        for (b, h, i) in indices(case.batch, case.heads(), case.queries) {
            let row = reference::row(request, b, h, i).unwrap();
            let (q, go) = (f32s(q.vector(b, h, i)), f32s(grad_out.vector(b, h, i)));
            let kv = h / case.group;
            let largest = largest_score(&row.scores);
            let scores = case.plain_scores(arrays, request, &row);
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sink = if case.sinks { (arrays.sinks[h] - max).exp() } else { 0.0 };
            let powers: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum = powers.iter().sum::<f32>() + sink;
            let weights: Vec<f32> = powers.iter().map(|power| power / sum).collect();
            let of = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let size_of =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from((a * b).abs())).sum::<f64>();
            let values: Vec<Vec<f32>> = row.keys.iter().map(|j| f32s(v.vector(b, kv, *j))).collect();
            let mut out = vec![0f32; case.value_dim];
            for (weight, value) in weights.iter().zip(&values) {
                out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
            }
            let mean = of(&go, &out);
            let mean_size =
                size_of(&go, &out) + normal * go.iter().map(|go| f64::from(go.abs())).sum::<f64>();
            let [gq, gk, gv, gsink] = &mut plain.gradients;
            let [sq, sk, sv, ssink] = &mut plain.sizes;
            gsink[h] -= row.sink_weight as f32 * mean;
            ssink[h] += row.sink_weight * mean_size;
            let at_q = ((b * case.heads() + h) * case.queries + i) * case.dim;
            for ((&j, &weight), value) in row.keys.iter().zip(&weights).zip(&values) {
                let key = f32s(k.vector(b, kv, j));
                let root = (case.dim as f64).sqrt();
                let score_size = root * size_of(&q, &key) * f64::from(scale) + largest;
                plain.largest_score = plain.largest_score.max(score_size);
                let mut gs = weight * (of(&go, value) - mean) * scale;
                let mut gs_size = f64::from(weight * scale) * (size_of(&go, value) + mean_size);
                if case.softcap > 0.0 {
                    let cap = case.softcap as f32;
                    let t = (of(&q, &key) * scale / cap).tanh();
                    gs *= 1.0 - t * t;
                    // 1 − t² is off by a unit of 1.
                    gs_size *= f64::from(1.0 - t * t).max(f64::from(f32::EPSILON));
                }
                let at_k = ((b * case.kv_heads + kv) * case.keys + j) * case.dim;
                let at_v = ((b * case.kv_heads + kv) * case.keys + j) * case.value_dim;
                for d in 0..case.dim {
                    gq[at_q + d] += gs * key[d];
                    sq[at_q + d] += gs_size * f64::from(key[d].abs());
                    gk[at_k + d] += gs * q[d];
                    sk[at_k + d] += gs_size * f64::from(q[d].abs());
                }
                for d in 0..case.value_dim {
                    gv[at_v + d] += weight * go[d];
                    sv[at_v + d] += f64::from((weight * go[d]).abs());
                }
            }
        }
        plain
    }
}

/// q's, k's, v's and the sinks' gradients in f64.
fn widened<T: Element>(gradients: &Gradients<T>) -> [Vec<f64>; 4] {
    let wide = |x: &[T]| x.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
    let sinks = gradients.sinks.iter().flatten().map(|x| f64::from(*x)).collect();
    [wide(&gradients.q), wide(&gradients.k), wide(&gradients.v), sinks]
}

/// The gradient that comes in.
fn incoming<T: Element>(case: &Case) -> Vec<T> {
    let other = Case { seed: case.seed ^ 1, spread: 1.0, dim: case.value_dim, ..case.clone() };
    other.arrays::<T>().q
}

/// The output of a request and its lse, as the forward pass leaves them.
fn forward<T: Element>(request: &Attention<T>) -> (Vec<T>, Vec<f32>) {
    let seen = request.clone().read(Read::new().lse()).run().unwrap();
    let lse = seen.readout("lse").unwrap().f32().unwrap().to_vec();
    (seen.out, lse)
}

fn check<T: Element>(case: &Case, rounding: f64, smallest: f64) {
    let arrays = case.arrays::<T>();
    let request = case.request(&arrays);
    let incoming = incoming::<T>(case);
    let grad_out = case.view(&incoming, case.heads(), case.queries, case.value_dim);
    let exact = reference::gradients(&request, grad_out).unwrap();
    let exact = [exact.q, exact.k, exact.v, exact.sinks];
    let plain =
        Plain::new(case, &arrays, &request, grad_out, if rounding > 0.0 { smallest / rounding } else { 0.0 });
    let rounding = rounding + f64::from(f32::EPSILON) * (4.0 + plain.largest_score);
    // A gradient adds up weights, one per query and key that meet in it, times dp − Δ (each a product of value and gradient)
    // times a number of q or k, or times a number of the gradient.
    let largest = |values: &[T]| values.iter().fold(0.0, |max: f64, x| max.max(x.to_f64().abs()));
    let [q, k, v, g] = [&arrays.q, &arrays.k, &arrays.v, &incoming].map(|values| largest(values));
    let terms = (case.batch * case.group * (case.queries + case.keys)) as f64;
    let lost = terms * negligible::<T>() * g * (1.0 + 2.0 * case.value_dim as f64 * v * q.max(k).max(1.0));
    for set in InstructionSet::ALL {
        let request = request.clone().instruction_set(set);
        if !set.is_here() {
            continue;
        }
        let (out, lse) = forward(&request);
        let out =
            TensorView::contiguous(&out, [case.batch, case.heads(), case.queries, case.value_dim]).unwrap();
        for lse in [Some(&lse[..]), None] {
            let got = widened(&request.backward(out, lse, grad_out).unwrap());
            for (n, what) in ["q", "k", "v", "sinks"].into_iter().enumerate() {
                if what == "sinks" && !case.sinks {
                    assert!(got[n].is_empty());
                    continue;
                }
                assert_eq!(got[n].len(), exact[n].len());
                let plain_error =
                    worst(&plain.gradients[n].iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), &exact[n]);
                let largest = plain.sizes[n].iter().copied().fold(0.0, f64::max);
                let allowed = 2.0 * plain_error + rounding * largest + smallest + lost;
                let error = worst(&got[n], &exact[n]);
                assert!(
                    error <= allowed,
                    "{set:?} {what}, lse {}: {error} > {allowed} in {case:?}",
                    lse.is_some()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(random(150))]

    #[test]
    fn gradients_in_f32_are_within_twice_the_plain_error(case in cases()) {
        check::<f32>(&case, 0.0, 0.0);
    }

    #[test]
    fn gradients_of_half_types_are_within_twice_the_plain_error(case in cases()) {
        check::<f16>(&case, f64::from(f16::EPSILON), f64::from(f16::MIN_POSITIVE_SUBNORMAL));
        check::<bf16>(&case, f64::from(bf16::EPSILON), f64::from(bf16::MIN_POSITIVE_SUBNORMAL));
    }

    #[test]
    fn gradients_in_f64_are_computed_in_f64(case in cases()) {
        let arrays = case.arrays::<f64>();
        let request = case.request(&arrays);
        let incoming = incoming::<f64>(&case);
        let grad_out = case.view(&incoming, case.heads(), case.queries, case.value_dim);
        let exact = reference::gradients(&request, grad_out).unwrap();
        let sizes = Plain::new(&case, &arrays, &request, grad_out, 0.0).sizes;
        for set in InstructionSet::here() {
            let request = request.clone().instruction_set(set);
            let (out, lse) = forward(&request);
            let out = TensorView::contiguous(&out, [case.batch, case.heads(), case.queries, case.value_dim]).unwrap();
            let got = request.backward(out, Some(&lse), grad_out).unwrap();
            for (n, (got, exact)) in [(&got.q, &exact.q), (&got.k, &exact.k), (&got.v, &exact.v)].into_iter().enumerate() {
                let largest = sizes[n].iter().copied().fold(0.0, f64::max);
                prop_assert!(worst(got, exact) <= 1e-12 * (1.0 + largest), "{:?} {}: {}", set, n, worst(got, exact));
            }
        }
    }

    /// NaN in a key and its value touches only gradients that it reaches; hidden ones are as without it.
    #[test]
    fn hidden_keys_touch_no_gradient(case in cases(), at in any::<proptest::sample::Index>()) {
        prop_assume!(case.keys > 0 && case.queries > 0);
        let mut arrays = case.arrays::<f32>();
        let key = at.index(case.batch * case.kv_heads * case.keys);
        arrays.k[key * case.dim..(key + 1) * case.dim].fill(f32::NAN);
        arrays.v[key * case.value_dim..(key + 1) * case.value_dim].fill(f32::NAN);
        let request = case.request(&arrays);
        let incoming = incoming::<f32>(&case);
        let grad_out = case.view(&incoming, case.heads(), case.queries, case.value_dim);
        let exact = reference::gradients(&request, grad_out).unwrap();
        for set in InstructionSet::here() {
            let request = request.clone().instruction_set(set);
            let (out, lse) = forward(&request);
            let out = TensorView::contiguous(&out, [case.batch, case.heads(), case.queries, case.value_dim]).unwrap();
            let got = request.backward(out, Some(&lse), grad_out).unwrap();
            for (got, exact) in [(&got.q, &exact.q), (&got.k, &exact.k), (&got.v, &exact.v)] {
                prop_assert!(got.iter().zip(exact).all(|(got, exact)| got.is_nan() == exact.is_nan()), "{:?}", set);
            }
        }
    }

    /// The same bits for any number of threads.
    #[cfg(feature = "rayon")]
    #[test]
    fn threads_change_no_bit_of_a_gradient(case in cases()) {
        let arrays = case.arrays::<f32>();
        let request = case.request(&arrays);
        let (out, lse) = forward(&request);
        let out = TensorView::contiguous(&out, [case.batch, case.heads(), case.queries, case.value_dim]).unwrap();
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        let run = |n| pool(n).install(|| request.backward(out, Some(&lse), out).unwrap());
        let bits = |gradients: &Gradients<f32>| {
            [&gradients.q, &gradients.k, &gradients.v].map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        };
        prop_assert_eq!(bits(&run(1)), bits(&run(3)));
    }
}

/// Long enough for several tasks over one key head, packed, in a window, with queries that see nothing.
#[test]
fn stretches_of_a_long_text_add_up() {
    let case = Case {
        batch: 1,
        kv_heads: 1,
        group: 2,
        queries: 4500,
        keys: 4700,
        dim: 20,
        value_dim: 9,
        token_major: true,
        causal: Some(Causal::Offset(-5)),
        window: Window { left: Some(90), right: None },
        softcap: 0.0,
        mask: None,
        lengths: false,
        sinks: true,
        alibi: false,
        spread: 1.0,
        seed: 3,
    };
    check::<f32>(&case, 0.0, 0.0);
    let (queries, keys) = ([0, 100, 4400, 4500], [0, 300, 4500, 4700]);
    let arrays = case.arrays::<f32>();
    let request = case.request(&arrays).packed(Packed { queries: &queries, keys: &keys });
    let (out, lse) = forward(&request);
    let out = TensorView::contiguous(&out, [1, 2, case.queries, case.value_dim]).unwrap();
    let got = widened(&request.backward(out, Some(&lse), out).unwrap());
    let exact = reference::gradients(&request, out).unwrap();
    for (got, exact) in got.iter().zip([exact.q, exact.k, exact.v, exact.sinks]) {
        let largest = exact.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        assert!(worst(got, &exact) <= 1e-5 * largest, "{} of {largest}", worst(got, &exact));
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let tokens = [0.5f32; 12];
    let view = TensorView::contiguous(&tokens, [1, 1, 4, 3]).unwrap();
    let short = TensorView::contiguous(&tokens[..9], [1, 1, 3, 3]).unwrap();
    let request = Attention::new(view, view, view);
    let refused =
        |out, lse: Option<&[f32]>, grad_out| request.backward(out, lse, grad_out).unwrap_err().to_string();
    assert!(
        refused(short, None, view)
            .starts_with("out: [1, 1, 3, 3] does not fit, expected the shape of the output")
    );
    assert!(refused(view, None, short).starts_with("grad_out: "));
    assert!(
        refused(view, Some(&tokens[..5]), view)
            .starts_with("lse: [5] does not fit, expected [batch, heads, queries]")
    );
}
