//! Readouts beyond those of the command line, in many queries and in few, against rows of the reference; and
//! parts of the keys merged against the whole.

use glasshead_attention::{
    Attended, Attention, Causal, InstructionSet, KvCache, Packed, Part, Read, TensorView, Window, merge,
    reference, shares, total_lse,
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

    fn part(&self, from: usize, to: usize) -> Attention<'_, f32> {
        let strides = [KV_HEADS * KEYS * DIM, KEYS * DIM, DIM, 1];
        let keys = |data| TensorView::new(data, [1, KV_HEADS, to - from, DIM], strides).unwrap();
        let q = TensorView::contiguous(&self.q, [1, HEADS, self.queries, DIM]).unwrap();
        Attention::new(q, keys(&self.k[from * DIM..]), keys(&self.v[from * DIM..]))
            .causal(Causal::Offset((KEYS - self.queries) as i64 - from as i64))
    }
}

fn f32s<'a>(seen: &'a Attended<f32>, name: &str) -> &'a [f32] {
    seen.readout(name).unwrap_or_else(|| panic!("no {name}")).f32().unwrap()
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
        let request = arrays.part(0, KEYS).window(window).read(read);
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
                let norms: Vec<f64> = arrays.v[head / 2 * KEYS * DIM..][..KEYS * DIM]
                    .chunks(DIM)
                    .map(|v| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt())
                    .collect();
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

#[test]
fn wrong_lengths_are_refused() {
    let arrays = Arrays::new(3);
    for read in
        [Read::new().induction(&[1, 2]), Read::new().duplicate(&[1]), Read::new().received_weighted(&[1.0])]
    {
        let error = arrays.part(0, KEYS).read(read).run().unwrap_err().to_string();
        assert!(error.contains("has"), "{error}");
    }
}

#[test]
fn parts_of_the_keys_merge_to_the_whole() {
    for queries in [2, 50] {
        let arrays = Arrays::new(queries);
        // Sequences of 33, 367 and 300 keys; the last is not seen by all.
        let cuts = [0, 33, 400, KEYS];
        let sinks = [0.5f32, -1.0, 2.0, 0.0];
        let read = |from: usize, to: usize| {
            let ends = [20usize, 390, 650].map(|end| end.clamp(from, to) - from);
            let read = Read::new().lse().entropy().max_weight().top_k(6).rows(&[queries - 1, 0]);
            read.segments(&ends).distance().previous().self_weight().first()
        };
        let whole = arrays.part(0, KEYS).sinks(&sinks).read(read(0, KEYS)).run().unwrap();
        let parts: Vec<Attended<f32>> = cuts
            .windows(2)
            .map(|cut| {
                let part = arrays.part(cut[0], cut[1]).read(read(cut[0], cut[1]));
                if cut[0] == 33 { part.sinks(&sinks).run().unwrap() } else { part.run().unwrap() }
            })
            .collect();
        let parts: Vec<Part<f32>> =
            parts.iter().zip(cuts).map(|(attended, first_key)| Part { attended, first_key }).collect();
        let merged = merge(&read(0, KEYS), &parts).unwrap();
        let close = |what: &str, a: &[f32], b: &[f32], scale: f32| {
            assert_eq!(a.len(), b.len(), "{what}");
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() <= 1e-6 * scale * (1.0 + b.abs()), "{what}: {a} {b}");
            }
        };
        close("out", &merged.out, &whole.out, 4.0);
        assert_eq!(merged.readouts.len(), whole.readouts.len());
        for (merged, whole) in merged.readouts.iter().zip(&whole.readouts) {
            assert_eq!((merged.name, &merged.shape), (whole.name, &whole.shape));
            match (merged.f32(), whole.f32()) {
                (Some(a), Some(b)) => close(whole.name, a, b, if whole.name == "lse" { 1.0 } else { 2.0 }),
                _ => assert_eq!(merged.i64(), whole.i64(), "{}", whole.name),
            }
        }

        // Received weight takes a second pass with the shares.
        let received = arrays.part(0, KEYS).sinks(&sinks).read(Read::new().received()).run().unwrap();
        let lses: Vec<&[f32]> = parts.iter().map(|part| f32s(part.attended, "lse")).collect();
        let total = total_lse(&lses);
        for (part, cut) in cuts.windows(2).enumerate() {
            let shares = shares(lses[part], &total);
            for head in 0..HEADS {
                // Weights are those of one head here: ask head by head.
                let read = Read::new().received_weighted(&shares[head * queries..(head + 1) * queries]);
                let mut request = arrays.part(cut[0], cut[1]).read(read);
                if cut[0] == 33 {
                    request = request.sinks(&sinks);
                }
                let seen = request.run().unwrap();
                let keys = cut[1] - cut[0];
                let got = &f32s(&seen, "received_weighted")[head * keys..(head + 1) * keys];
                let want = &f32s(&received, "received")[head * KEYS + cut[0]..][..keys];
                close("received", got, want, queries as f32);
            }
        }
        let read = Read::new().lse().received();
        let part = arrays.part(0, KEYS).read(read.clone()).run().unwrap();
        let error = merge(&read, &[Part { attended: &part, first_key: 0 }]).unwrap_err().to_string();
        assert!(error.contains("second pass"), "{error}");
        assert!(merge::<f32>(&read, &[]).is_err());
    }
}

/// What a text reads while it is written, token by token, is what the whole text reads at once.
#[test]
fn readouts_of_a_cache_are_those_of_the_whole_text() {
    let arrays = Arrays::new(KEYS);
    let read = || Read::new().entropy().top_k(4).max_weight().blocks(3).received();
    let q = TensorView::contiguous(&arrays.q, [1, HEADS, KEYS, DIM]).unwrap();
    let whole = arrays.part(0, KEYS).read(read()).run().unwrap();
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
