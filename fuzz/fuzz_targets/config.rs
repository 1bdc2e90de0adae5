//! `config.json`: any bytes beside the weights of a tiny BERT.
//!
//! Checked: `Keys` never panics and refuses in one line; a model that does load has sizes that fit together
//! and runs over two tokens.
#![no_main]

use std::{fs, ops::ControlFlow, path::Path, sync::LazyLock};

use glasshead::attention::Read;
use glasshead::models::{Keys, LayerView, Watch, load};
use libfuzzer_sys::fuzz_target;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/glasshead/tests/data/tiny-bert");

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(format!("{TINY}/model.safetensors"), folder.path().join("model.safetensors")).expect("copied");
    folder
});

struct Nobody;

impl Watch for Nobody {
    fn layer(&mut self, view: &LayerView<'_>) -> ControlFlow<(), Read> {
        assert_eq!(view.attention.q().shape()[2], 2);
        ControlFlow::Continue(Read::new())
    }
}

fuzz_target!(|json: &[u8]| {
    let one_line = |error: &glasshead::Error| {
        assert!(!error.to_string().contains('\n') && !error.hint().is_empty(), "{error}");
    };
    let Ok(keys) = Keys::parse(json, Path::new("config.json")).inspect_err(one_line) else { return };
    let mut each = keys.clone();
    let _ = each.text("model_type").inspect_err(one_line);
    let _ = each.size("hidden_size").inspect_err(one_line);
    let _ = each.count_or("pad_token_id", 0).inspect_err(one_line);
    let _ = each.flag("is_decoder").inspect_err(one_line);
    let _ = each.epsilon_or("layer_norm_eps", 0.0).inspect_err(one_line);
    let _ = each.one_of("hidden_act", &[("gelu", ())]).inspect_err(one_line);
    let _ = each.only("pruned_heads", 0).inspect_err(one_line);
    let _ = each.finish("fuzzed").inspect_err(one_line);

    fs::write(FOLDER.path().join("config.json"), json).expect("written");
    let Ok(loaded) = load(FOLDER.path()).inspect_err(one_line) else { return };
    let info = loaded.model.info();
    assert_eq!(info.heads * info.head_dim, info.hidden);
    assert!(info.heads % info.kv_heads == 0 && info.layers > 0 && info.max_tokens > 0);
    match loaded.model.forward(&[1, 2], &mut Nobody) {
        Ok(()) => assert!(info.max_tokens >= 2),
        Err(error) => one_line(&error),
    }
});
