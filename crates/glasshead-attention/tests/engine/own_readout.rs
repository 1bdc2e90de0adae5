//! The readout that ARCHITECTURE.md shows, word for word, at work.

// ---- from here on as in ARCHITECTURE.md ----
use glasshead_attention::{Array, Head, Read, Readout, Shape, Values, reference::Row};

/// `far`: the weight of every query on keys more than `0` tokens away.
#[derive(Debug)]
struct Far(u64);

impl Readout for Far {
    fn arrays(&self, shape: &Shape) -> Vec<Array> {
        vec![Array::of_f32("far", [shape.queries])]
    }
    fn start(&self, _: &Shape) -> Box<dyn Head> {
        Box::new(FarHead { beyond: self.0, weights: Vec::new() })
    }
}

struct FarHead {
    beyond: u64,
    weights: Vec<f32>,
}

impl Head for FarHead {
    fn see(&mut self, row: &Row) {
        let far = |key: usize| row.position.abs_diff(key as i64) > self.beyond;
        let seen = row.keys.iter().zip(&row.weights).filter(|(key, _)| far(**key));
        self.weights.push(seen.map(|(_, weight)| weight).sum::<f64>() as f32);
    }
    fn finish(self: Box<Self>) -> Vec<Values> {
        vec![Values::F32(self.weights)]
    }
}
// ---- until here ----

#[test]
fn it_reads_what_it_says() {
    use glasshead_attention::{Attention, Causal, TensorView};
    // Equal scores: every visible key has the same weight.
    let (zeros, ones) = ([0f32; 20], [1f32; 20]);
    let view = |data| TensorView::contiguous(data, [1, 1, 20, 1]).unwrap();
    let request = Attention::new(view(&zeros), view(&ones), view(&ones)).causal(Causal::TopLeft);
    let seen = request.read(Read::new().entropy().with(Far(4))).run().unwrap();
    for (query, far) in seen.readout("far").unwrap().f32().unwrap().iter().enumerate() {
        let expected = query.saturating_sub(4) as f32 / (query + 1) as f32;
        assert!((far - expected).abs() < 1e-6, "{query}: {far}, not {expected}");
    }
}

/// In the repository, where ARCHITECTURE.md is.
#[test]
fn it_is_the_one_that_architecture_shows() {
    let Ok(shown) = std::fs::read_to_string("../../ARCHITECTURE.md") else {
        println!("NOT TESTED: ARCHITECTURE.md is not here");
        return;
    };
    let own = include_str!("own_readout.rs");
    let (from, to) = ("as in ARCHITECTURE.md ----\n", "// ---- until here ----");
    let start = own.find(from).expect("a start") + from.len();
    let end = own.rfind(to).expect("an end");
    assert!(shown.contains(own[start..end].trim()), "ARCHITECTURE.md shows another readout");
}
