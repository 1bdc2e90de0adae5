//! Readouts beyond those of the command line, in many queries and in few, against rows of the reference; and
//! parts of the keys merged against the whole.

use glasshead_attention::{
    Array, Attended, Attention, Causal, InstructionSet, KvCache, Mask, MaskValues, Packed, Part, Read, Shape,
    TensorView, Window, merge, reference, shares,
};

const KEYS: usize = 700;
const DIM: usize = 24;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;

/// Nearly normal numbers, the same in every run.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..6).map(|_| unit()).sum::<f32>() * 1.4).collect()
}

struct Arrays {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    queries: usize,
}

impl Arrays {
    fn new(queries: usize) -> Self {
        let mut v = numbers(3, KV_HEADS * KEYS * DIM);
        // Values of very different lengths, one of them 0.
        for (key, v) in v.chunks_mut(DIM).enumerate() {
            v.iter_mut().for_each(|x| *x *= (key % 7) as f32);
        }
        Self { q: numbers(1, HEADS * queries * DIM), k: numbers(2, KV_HEADS * KEYS * DIM), v, queries }
    }

    fn keys(&self, from: usize, to: usize) -> Attention<'_, f32> {
        let strides = [KV_HEADS * KEYS * DIM, KEYS * DIM, DIM, 1];
        let keys = |data| TensorView::new(data, [1, KV_HEADS, to - from, DIM], strides).unwrap();
        let q = TensorView::contiguous(&self.q, [1, HEADS, self.queries, DIM]).unwrap();
        Attention::new(q, keys(&self.k[from * DIM..]), keys(&self.v[from * DIM..]))
    }

    /// All keys, causal.
    fn whole(&self) -> Attention<'_, f32> {
        self.keys(0, KEYS).causal(Causal::BottomRight)
    }
}

fn f32s<'a>(seen: &'a Attended<f32>, name: &str) -> &'a [f32] {
    seen.readout(name).unwrap_or_else(|| panic!("no {name}")).f32().unwrap()
}

/// ‖v‖ of every value.
fn lengths(v: &[f32], dim: usize) -> Vec<f64> {
    v.chunks(dim).map(|v| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()).collect()
}

/// A weight is a few units of the last place off, and so are sums of weights; times what they are multiplied with.
fn near(what: &str, got: f32, want: f64, scale: f64) {
    assert!((f64::from(got) - want).abs() <= 2e-6 * scale, "{what}: {got}, not {want}");
}

#[test]
fn chosen_keys_weighted_queries_and_lengths_of_values() {
    let ids: Vec<u32> = (0..KEYS as u32).map(|at| at * at % 61).collect();
    for queries in [1, 5, 40] {
        let arrays = Arrays::new(queries);
        let weights: Vec<f32> = numbers(5, queries);
        let read = Read::new()
            .previous()
            .self_weight()
            .first()
            .induction(&ids)
            .duplicate(&ids)
            .received_weighted(&weights)
            .received_by_value()
            .rows_by_value(&[queries - 1])
            .top_k_by_value(5)
            .top_k_by_value(11);
        let window = Window { left: Some(650), right: None };
        let request = arrays.whole().window(window).read(read);
        for set in InstructionSet::here() {
            let seen = request.clone().instruction_set(set).run().unwrap();
            let mut weighted = vec![0.0; HEADS * KEYS];
            let mut by_value = vec![0.0; HEADS * KEYS];
            for (n, (head, query)) in
                (0..HEADS).flat_map(|head| (0..queries).map(move |query| (head, query))).enumerate()
            {
                let row = reference::row(&request, 0, head, query).unwrap();
                let mut whole = vec![0.0; KEYS];
                row.keys.iter().zip(&row.weights).for_each(|(key, weight)| whole[*key] = *weight);
                let at = (KEYS - queries) + query;
                let last = (0..at).rev().find(|before| ids[*before] == ids[at]);
                let cases = [
                    ("previous", Some(at - 1)),
                    ("self", Some(at)),
                    ("first", Some(0)),
                    ("induction", last.map(|j| j + 1)),
                ];
                for (name, key) in cases {
                    near(name, f32s(&seen, name)[n], key.map_or(0.0, |key| whole[key]), 1.0);
                }
                let earlier = (0..at).filter(|before| ids[*before] == ids[at]);
                let want = earlier.map(|key| whole[key]).sum();
                near("duplicate", f32s(&seen, "duplicate")[n], want, 1.0);
                let norms = lengths(&arrays.v[head / 2 * KEYS * DIM..][..KEYS * DIM], DIM);
                for key in 0..KEYS {
                    weighted[head * KEYS + key] += whole[key] * f64::from(weights[query]);
                    by_value[head * KEYS + key] += whole[key] * norms[key];
                    if query == queries - 1 {
                        let got = f32s(&seen, "rows_by_value")[head * KEYS + key];
                        near("rows_by_value", got, whole[key] * norms[key], norms[key]);
                    }
                }
                let mut order: Vec<usize> = row.keys.clone();
                order.sort_by(|a, b| (whole[*b] * norms[*b]).total_cmp(&(whole[*a] * norms[*a])));
                let index = seen.readout("top_index_by_value").unwrap().i64().unwrap();
                for (place, key) in order[..5].iter().enumerate() {
                    near(
                        "top",
                        f32s(&seen, "top_weight_by_value")[n * 5 + place],
                        whole[*key] * norms[*key],
                        30.0,
                    );
                    let found = usize::try_from(index[n * 5 + place]).unwrap();
                    near("order", (whole[found] * norms[found]) as f32, whole[*key] * norms[*key], 1.0);
                }
                let long = seen.readouts.last().unwrap().f32().unwrap();
                for (place, key) in order[..11].iter().enumerate() {
                    near("long top", long[n * 11 + place], whole[*key] * norms[*key], 30.0);
                }
            }
            for (at, (weighted, by_value)) in weighted.iter().zip(&by_value).enumerate() {
                near("weighted", f32s(&seen, "received_weighted")[at], *weighted, queries as f64);
                near("by value", f32s(&seen, "received_by_value")[at], *by_value, 30.0 * queries as f64);
            }
        }
    }
}

/// Equal scores, so that every visible key has the same weight; one sequence shorter than a prefill, one longer.
#[test]
fn packed_sequences_have_no_earlier_tokens_in_each_other() {
    let starts = [0usize, 5, 45];
    let zeros = [0f32; 45];
    let view = TensorView::contiguous(&zeros, [1, 1, 45, 1]).unwrap();
    let ids: Vec<u32> = (0..45).map(|at| at % 3).collect();
    let read = Read::new().duplicate(&ids).induction(&ids);
    let request = Attention::new(view, view, view).causal(Causal::BottomRight).read(read);
    let seen = request.packed(Packed { queries: &starts, keys: &starts }).run().unwrap();
    for sequence in starts.windows(2) {
        for at in sequence[0]..sequence[1] {
            let place = at - sequence[0];
            let each = 1.0 / (place + 1) as f64;
            near("duplicate", f32s(&seen, "duplicate")[at], (place / 3) as f64 * each, 1.0);
            near("induction", f32s(&seen, "induction")[at], if place < 3 { 0.0 } else { each }, 1.0);
        }
    }
}

/// Beside sequences of other lengths, and without keys or queries.
#[test]
fn empty_sequences_have_nothing_to_read() {
    let (queries, keys) = ([0usize, 0, 40, 40, 43, 43], [0usize, 7, 20, 20, 20, 43]);
    let zeros = [0f32; 43];
    let view = TensorView::contiguous(&zeros, [1, 1, 43, 1]).unwrap();
    for list in ["received", "blocks=4", "top=2", "entropy", "all"] {
        let read = Read::parse(list, &Shape { batch: 1, heads: 1, queries: 43, keys: 43 }).unwrap();
        let request = Attention::new(view, view, view).read(read);
        let seen = request.packed(Packed { queries: &queries, keys: &keys }).run().unwrap();
        if let Some(received) = seen.readout("received").and_then(Array::f32) {
            // Forty queries share thirteen keys; three have none.
            for (key, received) in received.iter().enumerate() {
                let expected = if (7..20).contains(&key) { 40.0 / 13.0 } else { 0.0 };
                near(list, *received, expected, 40.0);
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let arrays = Arrays::new(3);
    for read in
        [Read::new().induction(&[1, 2]), Read::new().duplicate(&[1]), Read::new().received_weighted(&[1.0])]
    {
        let error = arrays.whole().read(read).run().unwrap_err().to_string();
        assert!(error.contains("has"), "{error}");
    }
}

/// Every readout there is, of queries whose rows have keys in all parts, in some, in one and in none.
#[test]
fn parts_of_the_keys_merge_to_the_whole() {
    let ids: Vec<u32> = (0..KEYS as u32).map(|at| at * at % 61).collect();
    let sinks = [0.5f32, -1.0, 2.0, 0.0];
    for queries in [2, 50] {
        let arrays = Arrays::new(queries);
        let weights = numbers(5, queries);
        let of_heads = numbers(6, HEADS * queries);
        let read = Read::new()
            .received()
            .entropy()
            .max_weight()
            .blocks(48)
            .top_k(6)
            .rows(&[queries - 1, 0])
            .segments(&[20, 390, 650])
            .distance()
            .previous()
            .self_weight()
            .first()
            .induction(&ids)
            .duplicate(&ids)
            .received_weighted(&weights)
            .received_weighted(&of_heads)
            .received_by_value()
            .rows_by_value(&[1])
            .top_k_by_value(900)
            .lse();
        let windows = [Window::default(), Window { left: Some(300), right: Some(40) }];
        let causal = [Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(-1)), None];
        for (cuts, (window, causal)) in
            [&[0, KEYS][..], &[0, 33, 400, KEYS], &[0, 0, 321, 337, 337, 600, KEYS]]
                .iter()
                .flat_map(|cuts| windows.map(|window| causal.map(|causal| (*cuts, (window, causal)))))
                .flatten()
        {
            let slopes = [0.0, 0.01, 0.1, 0.0];
            let request = |from: usize, to: usize| {
                let mut request = arrays.keys(from, to).read(read.clone()).window(window).softcap(3.0);
                request = request.kv_lengths(&[690]).alibi_slopes(&slopes);
                match causal {
                    Some(causal) => request.causal(causal),
                    None => request,
                }
            };
            let whole = request(0, KEYS).sinks(&sinks).run().unwrap();
            let keys: Vec<_> = cuts.windows(2).map(|cut| cut[0]..cut[1]).collect();
            let part = |n: usize| request(keys[n].start, keys[n].end).part(keys[n].start, KEYS);
            let seen: Vec<_> = (0..keys.len()).map(|n| part(n).run().unwrap()).collect();
            let shares = shares(&seen.iter().collect::<Vec<_>>(), Some(&sinks)).unwrap();
            let summed: Vec<_> =
                (0..keys.len()).map(|n| part(n).shares(&shares[n]).run().unwrap().readouts).collect();
            let parts: Vec<_> = (0..keys.len())
                .map(|n| Part { attended: &seen[n], summed: &summed[n], keys: keys[n].clone() })
                .collect();
            let merged = merge(&read, &parts, Some(&sinks)).unwrap();

            let close = |what: &str, a: &[f32], b: &[f32], scale: f32| {
                assert_eq!(a.len(), b.len(), "{what}");
                for (a, b) in a.iter().zip(b) {
                    let near = (a - b).abs() <= 1e-6 * scale * (1.0 + b.abs());
                    assert!(near || a == b, "{what}: {a} {b}; {causal:?} {window:?} {cuts:?}");
                }
            };
            close("out", &merged.out, &whole.out, 4.0);
            assert_eq!(merged.readouts.len(), whole.readouts.len());
            for (merged, whole) in merged.readouts.iter().zip(&whole.readouts) {
                assert_eq!((merged.name, &merged.shape), (whole.name, &whole.shape));
                match (merged.f32(), whole.f32()) {
                    // The fused pass takes a mean of positions from a position, each as large as KEYS in f32.
                    (Some(a), Some(b)) if whole.name == "distance" => {
                        close(whole.name, a, b, KEYS as f32 * f32::EPSILON / 1e-6);
                    }
                    (Some(a), Some(b)) => close(whole.name, a, b, 2.0),
                    // Of equal weights either may come first.
                    _ if whole.name == "top_index_by_value" => {}
                    _ => assert_eq!(merged.i64(), whole.i64(), "{}", whole.name),
                }
            }
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let arrays = Arrays::new(3);
    let read = Read::new().received().entropy();
    let part = |from: usize, to: usize| arrays.keys(from, to).read(read.clone()).part(from, KEYS);
    let seen = [part(0, 300).run().unwrap(), part(300, KEYS).run().unwrap()];
    let refused =
        |read: &Read, keys: [std::ops::Range<usize>; 2], summed: &[Array], sinks: Option<&[f32]>| {
            let parts = [0, 1].map(|n| Part { attended: &seen[n], summed, keys: keys[n].clone() });
            merge(read, &parts, sinks).unwrap_err().to_string()
        };
    let keys = || [0..300, 300..KEYS];
    assert!(refused(&read, keys(), &[], None).contains("second pass"));
    assert!(refused(&Read::new().top_k(2), keys(), &[], None).contains("not read out of part 0"));
    assert!(refused(&Read::new(), [0..300, 200..KEYS], &[], None).contains("should start at 300"));
    assert!(
        refused(&Read::new(), [0..300, std::ops::Range { start: 300, end: 200 }], &[], None)
            .contains("should start at 300")
    );
    assert!(refused(&Read::new(), keys(), &[], Some(&[0.0])).contains("sinks"));
    assert!(merge::<f32>(&Read::new(), &[], None).is_err());
    let error = |request: Attention<f32>| request.run().unwrap_err().to_string();
    assert!(error(part(0, 300).sinks(&[0.0; HEADS])).contains("given to merge"));
    assert!(error(part(0, 300).shares(&[0.0; 3])).contains("shares"));
    assert!(error(arrays.whole().shares(&[0.0; HEADS * 3])).contains("no part"));
    assert!(error(arrays.keys(0, 300).part(500, KEYS)).contains("part 500"));
    assert!(error(part(0, 300).read(Read::new().segments(&[KEYS + 1]))).contains("past the 700 keys"));
}

/// What a text reads while it is written, token by token, is what the whole text reads at once.
#[test]
fn readouts_of_a_cache_are_those_of_the_whole_text() {
    let arrays = Arrays::new(KEYS);
    let read = || Read::new().entropy().top_k(4).max_weight().blocks(3).received();
    let q = TensorView::contiguous(&arrays.q, [1, HEADS, KEYS, DIM]).unwrap();
    let whole = arrays.whole().read(read()).run().unwrap();
    let mut cache = KvCache::new([1, KV_HEADS, KEYS], DIM, DIM).unwrap();
    let strides = [KV_HEADS * KEYS * DIM, KEYS * DIM, DIM, 1];
    let mut received = vec![0f64; HEADS * KEYS];
    for at in 0..KEYS {
        let token = |data| TensorView::new(data, [1, KV_HEADS, 1, DIM], strides).unwrap();
        cache.append(token(&arrays.k[at * DIM..]), token(&arrays.v[at * DIM..])).unwrap();
        let own =
            TensorView::new(&arrays.q[at * DIM..], [1, HEADS, 1, DIM], [0, KEYS * DIM, DIM, 1]).unwrap();
        let seen = cache.attention(own).read(read()).run().unwrap();
        for head in 0..HEADS {
            for name in ["entropy", "max_weight"] {
                let want = f64::from(f32s(&whole, name)[head * KEYS + at]);
                near(name, f32s(&seen, name)[head], want, 1.0 + want);
            }
            let row = &f32s(&seen, "received")[head * (at + 1)..(head + 1) * (at + 1)];
            received[head * KEYS..].iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
    for (got, want) in received.iter().zip(f32s(&whole, "received")) {
        near("received", *got as f32, f64::from(*want), 1.0 + f64::from(*want));
    }
    assert_eq!(q.shape()[2], KEYS);
}

/// The bits of a sequence are those that it has alone, whatever is read out and however much is packed beside it.
#[test]
fn packed_beside_much_a_sequence_keeps_its_bits() {
    const OTHER: usize = 9000;
    for (own, left) in [(300, 70), (300, 300), (90, 7)] {
        let tokens = own + OTHER;
        let [q, k, v] = [1, 2, 3].map(|seed| numbers(seed, tokens * DIM));
        let window = Window { left: Some(left), right: Some(3) };
        let read = || Read::new().received().entropy().top_k(3);
        for set in InstructionSet::here() {
            let request = |from: usize, to: usize| {
                let view = |data| TensorView::from_tokens(data, 1, to - from, 1, DIM).unwrap();
                let [q, k, v] = [&q, &k, &v].map(|data| view(&data[from * DIM..to * DIM]));
                Attention::new(q, k, v).window(window).read(read()).instruction_set(set)
            };
            // Behind the others, so that nothing of it starts at a round number.
            let starts = [0, OTHER, tokens];
            let packed = Packed { queries: &starts, keys: &starts };
            let all = request(0, tokens).packed(packed).run().unwrap();
            let alone = request(OTHER, tokens).run().unwrap();
            assert!(all.out[OTHER * DIM..] == alone.out, "{own} tokens, {set:?}: the output");
            for (all, alone) in all.readouts.iter().zip(&alone.readouts) {
                let (Some(all_of), Some(alone_of)) = (all.f32(), alone.f32()) else { continue };
                let from = all_of.len() - alone_of.len();
                assert!(all_of[from..] == *alone_of, "{own} tokens, {set:?}: {}", all.name);
            }
        }
    }
}

/// Weights that wait for a later panel are those that the reference has: whether panels visit the same keys or others,
/// and whether the pass vouches for all queries of a tile.
#[test]
fn received_of_many_panels_is_that_of_the_reference() {
    const TOKENS: usize = 2500;
    const DIM: usize = 8;
    let [mut q, k, v] = [1, 2, 3].map(|seed| numbers(seed, TOKENS * DIM));
    q[1300 * DIM..1301 * DIM].fill(1e30);
    let weights = numbers(4, TOKENS);
    let norms = lengths(&v, DIM);
    let view = |data| TensorView::contiguous(data, [1, 1, TOKENS, DIM]).unwrap();
    let plain = Attention::new(view(&q), view(&k), view(&v));
    let windows = [(None, None), (None, Some(0)), (Some(900), Some(40)), (Some(0), Some(1200))];
    for (left, right) in windows {
        let read = Read::new().received().received_weighted(&weights).received_by_value();
        let request = plain.clone().window(Window { left, right }).read(read);
        let mut wanted = [vec![0.0; TOKENS], vec![0.0; TOKENS], vec![0.0; TOKENS]];
        for (query, of_query) in weights.iter().enumerate() {
            let row = reference::row(&request, 0, 0, query).unwrap();
            for (&key, weight) in row.keys.iter().zip(&row.weights) {
                let factors = [1.0, f64::from(*of_query), norms[key]];
                wanted.iter_mut().zip(factors).for_each(|(wanted, factor)| wanted[key] += weight * factor);
            }
        }
        let names = ["received", "received_weighted", "received_by_value"];
        for set in InstructionSet::here() {
            let seen = request.clone().instruction_set(set).run().unwrap();
            for (name, wanted) in names.into_iter().zip(&wanted) {
                for (got, want) in f32s(&seen, name).iter().zip(wanted) {
                    near(name, *got, *want, 10.0);
                }
            }
        }
    }
}

/// What a thread has done before changes no bit, nor what it has memory for: neither when weights are seen nor in which
/// order.
#[test]
fn a_cold_thread_and_a_warm_one_give_the_same_bits() {
    const QUERIES: usize = 2688;
    const KEYS: usize = 4300;
    let [q, v] = [(1, QUERIES), (3, KEYS)].map(|(value, tokens)| vec![value as f32; tokens]);
    // Every query gives all its weight to the first key.
    let mut k = vec![0f32; KEYS];
    k[0] = 1e3;
    // A sum of queries that are not of one tile tells in which order they were added: 1 where it is ascending, else 0.
    let mut weights = vec![0f32; QUERIES];
    for (query, weight) in [(2304, 1e20), (2336, -1e20), (2400, 1.0)] {
        weights[query] = weight;
    }
    let view = |data, tokens| TensorView::contiguous(data, [1, 1, tokens, 1]).unwrap();
    let [q, k, v] = [view(&q, QUERIES), view(&k, KEYS), view(&v, KEYS)];
    for set in InstructionSet::here() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let run = || {
            let read = Read::new().received_weighted(&weights);
            // The queries that come next see 4096 keys and a few more.
            let request = Attention::new(q, k, v).causal(Causal::Offset(1568)).read(read);
            pool.install(|| request.instruction_set(set).run().unwrap())
        };
        for turn in ["cold", "warm"] {
            assert_eq!(f32s(&run(), "received_weighted")[0], 1.0, "{turn}, {set:?}");
        }
    }
}

/// Where q·k of one key is too large for the type and negative, that key has no weight and takes nothing with it.
#[test]
fn a_score_of_minus_infinity_leaves_the_entropy_alone() {
    let (queries, keys, dim) = (40, 90, 4);
    let q = vec![1e20f32; queries * dim];
    let mut k: Vec<f32> = numbers(2, keys * dim).iter().map(|x| x * 1e-20).collect();
    k[33 * dim..34 * dim].fill(-1e20);
    let v = numbers(3, keys * dim);
    let view = |data, tokens| TensorView::contiguous(data, [1, 1, tokens, dim]).unwrap();
    let read = || Read::new().lse().entropy().max_weight().distance().segments(&[keys / 2, keys]);
    for set in InstructionSet::here() {
        let request = Attention::new(view(&q, queries), view(&k, keys), view(&v, keys));
        let seen = request.instruction_set(set).read(read()).run().unwrap();
        let wide = |data: &[f32]| data.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (q, k, v) = (wide(&q), wide(&k), wide(&v));
        let view = |data, tokens| TensorView::contiguous(data, [1, 1, tokens, dim]).unwrap();
        let exact = Attention::new(view(&q, queries), view(&k, keys), view(&v, keys));
        for query in 0..queries {
            let row = reference::row(&exact, 0, 0, query).unwrap();
            let entropy = -row.weights.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
            near(&format!("{set:?} entropy"), f32s(&seen, "entropy")[query], entropy, 5.0);
            let max = row.weights.iter().copied().fold(0.0, f64::max);
            near(&format!("{set:?} max"), f32s(&seen, "max_weight")[query], max, 1.0);
        }
    }
}

/// A query whose scores are all far below 0, behind a block of which it sees nothing.
#[test]
fn low_scores_behind_keys_out_of_sight_keep_their_weights() {
    const TOKENS: usize = 600;
    let values: Vec<f32> = (0..TOKENS * 3).map(|n| (n % 7) as f32).collect();
    let view = TensorView::contiguous(&values, [1, 1, TOKENS, 3]).unwrap();
    let low = [-1e3f32; TOKENS];
    let request = Attention::new(view, view, view)
        .scale(1e-3)
        .causal(Causal::TopLeft)
        .window(Window { left: Some(30), right: None })
        .mask(Mask::new(MaskValues::F32(&low), &[1, 1, 1, TOKENS]).unwrap())
        .read(Read::new().segments(&[100, 333, TOKENS]).blocks(64).received());
    for set in InstructionSet::here() {
        let got = request.clone().instruction_set(set).run().unwrap();
        let f32s = |name: &str| got.readout(name).unwrap().f32().unwrap();
        for (query, segments) in f32s("segments").chunks(3).enumerate() {
            let sum: f32 = segments.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{set:?}, query {query}: {segments:?}");
        }
        for name in ["received", "blocks"] {
            let sum: f64 = f32s(name).iter().map(|x| f64::from(*x)).sum();
            assert!((sum - TOKENS as f64).abs() < 1e-2, "{set:?}, {name}: {sum}");
        }
    }
}
