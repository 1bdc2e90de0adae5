//! Keys and values that are copied (rows that lie far apart, types that are widened) give the bits of those that are used
//! where they lie: over several panels of queries, for which copies stay, and after the memory has got other numbers.

use glasshead_attention::{
    Array, Attention, Causal, Element, InstructionSet, Packed, Read, TensorView, Window,
};
use half::{bf16, f16};

const QUERIES: usize = 700;
const KEYS: usize = 900;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIMS: [usize; 2] = [24, 17];

/// The ways of asking, each over more than one panel.
const FORMS: [&str; 5] = ["dense", "causal", "window", "packed", "lengths"];

/// Numbers that every type holds, the same in every run.
fn numbers<T: Element>(seed: u32, count: usize) -> Vec<T> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        T::from_f64(f64::from((state >> 25) as i32 - 64) / 32.0)
    };
    (0..count).map(|_| next()).collect()
}

/// What a request gives without readouts and with some.
#[derive(PartialEq)]
struct Seen {
    out: [Vec<f64>; 2],
    readouts: Vec<Array>,
}

/// From `[heads, tokens, dim]` to `[tokens, heads, dim]`.
fn by_token<T: Copy>(data: &[T], heads: usize, dim: usize) -> Vec<T> {
    let tokens = data.len() / heads / dim;
    let row = |token: usize, head: usize| &data[(head * tokens + token) * dim..][..dim];
    (0..tokens).flat_map(|token| (0..heads).flat_map(move |head| row(token, head))).copied().collect()
}

/// q, k and v head by head.
fn arrays<T: Element>(seed: u32) -> [Vec<T>; 3] {
    let [dim, value_dim] = DIMS;
    [
        numbers(seed, HEADS * QUERIES * dim),
        numbers(seed ^ 2, KV_HEADS * KEYS * dim),
        numbers(seed ^ 3, KV_HEADS * KEYS * value_dim),
    ]
}

fn run<T: Element>(set: InstructionSet, form: &str, [q, k, v]: &[Vec<T>; 3], tokens: bool) -> Seen {
    let [dim, value_dim] = DIMS;
    let view = |data, heads, len, dim| match tokens {
        true => TensorView::from_tokens(data, 1, len, heads, dim).unwrap(),
        false => TensorView::contiguous(data, [1, heads, len, dim]).unwrap(),
    };
    let attention = Attention::new(
        view(q, HEADS, QUERIES, dim),
        view(k, KV_HEADS, KEYS, dim),
        view(v, KV_HEADS, KEYS, value_dim),
    )
    .instruction_set(set);
    let (queries, keys) = ([0, 301, QUERIES], [0, 333, KEYS]);
    let attention = match form {
        "causal" => attention.causal(Causal::BottomRight),
        "window" => attention.causal(Causal::BottomRight).window(Window { left: Some(130), right: None }),
        "packed" => attention.packed(Packed { queries: &queries, keys: &keys }).causal(Causal::BottomRight),
        "lengths" => attention.kv_lengths(&[777]),
        _ => attention,
    };
    let wide = |out: &[T]| out.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
    let plain = attention.clone().run().unwrap();
    // Panels are shorter with these.
    let read = attention.read(Read::new().entropy().received().top_k(3)).run().unwrap();
    Seen { out: [wide(&plain.out), wide(&read.out)], readouts: read.readouts }
}

/// The same for both layouts.
fn of_both_layouts<T: Element>(set: InstructionSet, form: &str) -> Seen {
    let heads = arrays::<T>(7);
    let [dim, value_dim] = DIMS;
    let tokens = [
        by_token(&heads[0], HEADS, dim),
        by_token(&heads[1], KV_HEADS, dim),
        by_token(&heads[2], KV_HEADS, value_dim),
    ];
    let seen = run(set, form, &heads, false);
    assert!(seen == run(set, form, &tokens, true), "{set:?} {form}: token by token");
    seen
}

#[test]
fn copies_give_the_bits_of_what_lies_in_place() {
    for set in InstructionSet::here() {
        for form in FORMS {
            let in_place = of_both_layouts::<f32>(set, form);
            let widened = of_both_layouts::<f16>(set, form);
            assert!(in_place.readouts == widened.readouts, "{set:?} {form}: widened");
            // Some CPUs multiply these in pairs, with sums of their own.
            of_both_layouts::<bf16>(set, form);
        }
    }
}

#[test]
fn copies_do_not_outlive_the_run() {
    for set in InstructionSet::here() {
        let mut reused = arrays::<f16>(1);
        run(set, "causal", &reused, false);
        let others = arrays::<f16>(2);
        for (reused, other) in reused.iter_mut().zip(&others) {
            reused.copy_from_slice(other);
        }
        let again = run(set, "causal", &reused, false);
        assert!(again == run(set, "causal", &others, false), "{set:?}");
    }
}
