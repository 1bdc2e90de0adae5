//! Every fused readout against the same one over rows of the reference, where it is hard: NaN and ∞ behind masks, equal
//! scores, scores and sinks far from 0, blocks that end within a tile.

use std::{ops::Range, sync::Arc};

use super::{Array, Head, Parts, Read, Readout, Shape, Values};
use crate::{Attention, Causal, Element, InstructionSet, Mask, MaskValues, TensorView};

/// A readout that is not fused.
#[derive(Debug)]
struct ByRow(Arc<dyn Readout>);

impl Readout for ByRow {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        self.0.arrays(shape)
    }
    fn start(&self, shape: &Shape) -> Box<dyn Head> {
        self.0.start(shape)
    }
    fn merge(&self, parts: &Parts, lse: &[f64]) -> Result<Vec<Values>, String> {
        self.0.merge(parts, lse)
    }
    fn of_part(&self, keys: &Range<usize>, shares: Option<&[f32]>) -> Option<Arc<dyn Readout>> {
        self.0.of_part(keys, shares)
    }
}

/// A whole number from −`most` to `most`, the same in every run.
fn whole(seed: usize, most: i64) -> f64 {
    let mixed = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)) >> 20) as i64 as f64 % (2 * most + 1) as f64 - most as f64
}

/// What is tried beside the kind of numbers and how many queries there are.
#[derive(Clone, Copy, Debug)]
struct Case {
    keys: usize,
    causal: Option<Causal>,
    /// Added to every score, and the sink's own score.
    offset: f32,
    sink: Option<f32>,
    /// Every seventh key is hidden, and its value NaN, ∞ or −∞.
    poison: bool,
    /// A visible value is NaN.
    nan: bool,
}

/// Scores are small whole numbers plus the offset, or the offset alone where f32 could not hold the sum.
fn compare<T: Element>(queries: usize, case: Case) {
    let Case { keys, causal, offset, sink, poison, nan } = case;
    let (heads, dim) = (2, 2);
    let number = |seed: usize, most| T::from_f64(whole(seed, most));
    let q: Vec<T> = (0..heads * queries * dim).map(|n| number(n, i64::from(offset.abs() < 1e5))).collect();
    let k: Vec<T> = (0..keys * dim).map(|n| number(3 * n + 7, 2)).collect();
    let mut v: Vec<T> = (0..keys).map(|n| number(5 * n + 3, 4)).collect();
    let mut bias = vec![offset; keys];
    for key in (3..keys).step_by(7).filter(|_| poison) {
        bias[key] = f32::NEG_INFINITY;
        v[key] = T::from_f64([f64::NAN, f64::INFINITY, f64::NEG_INFINITY][key % 3]);
    }
    if nan {
        v[keys / 2] = T::from_f64(f64::NAN);
    }
    let sinks = sink.map(|sink| [sink; 2]);
    let q = TensorView::contiguous(&q, [1, heads, queries, dim]).unwrap();
    let k = TensorView::contiguous(&k, [1, 1, keys, dim]).unwrap();
    let v = TensorView::contiguous(&v, [1, 1, keys, 1]).unwrap();
    let mut request = Attention::new(q, k, v).scale(1.0);
    if let Some(causal) = causal {
        request = request.causal(causal);
    }
    if poison || offset != 0.0 {
        request = request.mask(Mask::new(MaskValues::F32(&bias), &[keys]).unwrap());
    }
    if let Some(sinks) = &sinks {
        request = request.sinks(sinks);
    }
    let shape = Shape { batch: 1, heads, queries, keys };
    let middle = queries / 2;
    let cuts = keys / 3;
    for list in [
        format!("lse,entropy,max,top=3,received,rows=0:{middle},segments=0:{cuts}:{keys},blocks=4,distance"),
        "lse".into(),
        "lse,max,distance,blocks=64".into(),
        "top=9,rows=0,blocks=1".into(),
        "top=40,entropy,blocks=17".into(),
        "blocks=24".into(),
        format!("segments=0:{cuts}:{keys},blocks=1"),
        "distance,received".into(),
    ] {
        let read = Read::parse(&list, &shape).unwrap();
        let by_row =
            Read { items: read.items.iter().map(|item| Arc::new(ByRow(item.clone())) as _).collect() };
        let want = request.clone().read(by_row).run().unwrap();
        for set in InstructionSet::here() {
            let got = request.clone().read(read.clone()).instruction_set(set).run().unwrap();
            let at = format!("{queries} queries, {case:?}, {list}, {set:?}");
            for (got, want) in got.readouts.iter().zip(&want.readouts) {
                assert_eq!((got.name, &got.shape), (want.name, &want.shape), "{at}");
                if let (Some(got), Some(want)) = (got.i64(), want.i64()) {
                    assert_eq!(got, want, "{at}");
                }
                for (n, (x, y)) in
                    got.f32().into_iter().flatten().zip(want.f32().into_iter().flatten()).enumerate()
                {
                    let allowed = 2e-6 * f64::from(y.abs()).max(1.0);
                    let same = x == y || x.is_nan() && y.is_nan();
                    assert!(
                        same || f64::from((x - y).abs()) <= allowed,
                        "{} {n}: {x}, not {y}; {at}",
                        got.name
                    );
                }
            }
        }
    }
}

fn all_types(queries: usize, case: Case) {
    compare::<f32>(queries, case);
    compare::<f64>(queries, case);
    compare::<half::bf16>(queries, case);
}

const PLAIN: Case =
    Case { keys: 150, causal: Some(Causal::BottomRight), offset: 0.0, sink: None, poison: false, nan: false };

#[test]
fn equal_scores_are_in_the_order_of_their_keys() {
    for keys in [4, 20, 150, 700] {
        for queries in [3, 16, 75] {
            all_types(queries, Case { keys, causal: None, ..PLAIN });
        }
    }
}

#[test]
fn what_is_hidden_changes_nothing_and_nan_stays_in_its_rows() {
    for queries in [1, 17, 75, 150] {
        all_types(queries, Case { poison: true, ..PLAIN });
        all_types(queries, Case { nan: true, ..PLAIN });
        all_types(queries, Case { poison: true, nan: true, sink: Some(1.0), ..PLAIN });
    }
}

#[test]
fn scores_far_from_zero_keep_their_weights() {
    for offset in [-1e9, -1e12, -1e30, -65504.0, -1000.0, 1e6, 3e38] {
        // One key: what rounding leaves of an offset is not whole.
        for (keys, sink) in [(1, None), (1, Some(offset)), (1, Some(0.0))] {
            all_types(16, Case { keys, causal: None, offset, sink, ..PLAIN });
            all_types(2, Case { keys, causal: None, offset, sink, ..PLAIN });
        }
    }
    for offset in [f32::MIN, -3e38] {
        // No score is left of it: all keys weigh the same, however many.
        for sink in [None, Some(offset), Some(-1e9), Some(0.0)] {
            for poison in [false, true] {
                for queries in [2, 16, 75] {
                    all_types(queries, Case { offset, sink, poison, ..PLAIN });
                }
            }
        }
    }
    for offset in [-65504.0, 1024.0, -4096.0] {
        for sink in [None, Some(offset), Some(offset + 2.0)] {
            for queries in [2, 75] {
                all_types(queries, Case { offset, sink, ..PLAIN });
            }
        }
    }
}

#[test]
fn distances_keep_their_digits() {
    for causal in [None, Some(Causal::BottomRight), Some(Causal::TopLeft), Some(Causal::Offset(85))] {
        for queries in [3, 40, 130] {
            all_types(queries, Case { keys: 1100, causal, ..PLAIN });
        }
    }
}

#[test]
fn distances_to_the_farthest_keys_keep_their_digits() {
    let (queries, keys) = (16, 250);
    for n in 1..20 {
        // All weight is on two keys: the sum that is added for every key after them has many digits.
        let mut k = vec![-200.0f32; keys];
        (k[0], k[1]) = (0.0, -0.1 * n as f32);
        let (q, v) = (vec![1.0f32; queries], vec![1.0f32; keys]);
        let q = TensorView::contiguous(&q, [1, 1, queries, 1]).unwrap();
        let [k, v] = [&k, &v].map(|x| TensorView::contiguous(x, [1, 1, keys, 1]).unwrap());
        let request = Attention::new(q, k, v).scale(1.0).causal(Causal::Offset(keys as i64));
        let second = (-0.1 * f64::from(n)).exp();
        for set in InstructionSet::here() {
            let got = request.clone().instruction_set(set).read(Read::new().distance()).run().unwrap();
            for (query, got) in got.readouts[0].f32().unwrap().iter().enumerate() {
                let to_first = (keys + query) as f64;
                let want = to_first - second / (1.0 + second);
                assert!((f64::from(*got) - want).abs() <= 1e-6 * want, "{n}, {set:?}: {got}, not {want}");
            }
        }
    }
}
