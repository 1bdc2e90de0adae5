//! A folder for one test, in which the program runs with nobody's caches, no network and no other program.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use glasshead::weights::{ArrayData, NewArray, read_safetensors, write_safetensors};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder of its own for one test, in which the program runs.
pub(crate) struct Desk(TempDir);

/// A request that was wrong, and one that could not be done.
pub(crate) const REQUEST: i32 = 2;
pub(crate) const SURROUNDINGS: i32 = 1;

/// A text that the tiny model reads.
pub(crate) const BANK: &str = "the banker the far bank";

impl Desk {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path().join(name), contents).unwrap();
        self
    }

    /// A folder with the tiny BERT (2 layers of 4 heads, 40 positions) and a tokenizer.
    pub(crate) fn tiny(&self, config: Value) -> &Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../glasshead/tests/data/tiny-bert");
        fs::create_dir(self.path().join("tiny")).unwrap();
        let mut keys: Value = serde_json::from_slice(&fs::read(data.join("config.json")).unwrap()).unwrap();
        for (key, value) in config.as_object().unwrap() {
            keys[key] = value.clone();
        }
        // `null` takes a key away: that is how a config says "not set".
        fs::copy(data.join("model.safetensors"), self.path().join("tiny/model.safetensors")).unwrap();
        self.write("tiny/config.json", keys.to_string()).write("tiny/tokenizer.json", tokenizer())
    }

    /// The same model in the folder `long`, its table of positions repeated up to this many.
    pub(crate) fn tiny_with_positions(&self, positions: usize) -> &Self {
        const NAME: &str = "embeddings.position_embeddings.weight";
        fs::create_dir(self.path().join("long")).unwrap();
        fs::copy(self.path().join("tiny/tokenizer.json"), self.path().join("long/tokenizer.json")).unwrap();
        let config = fs::read(self.path().join("tiny/config.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        config["max_position_embeddings"] = positions.into();
        self.write("long/config.json", config.to_string());
        let arrays = read_safetensors(&self.path().join("tiny/model.safetensors")).unwrap();
        let array = |name: &str| {
            let (data, shape) = arrays.get(name).unwrap();
            let (ArrayData::F32(table), [_, hidden], NAME) = (&data, shape, name) else {
                return NewArray::new(name.to_owned(), shape, &data);
            };
            let table = table.iter().copied().cycle().take(positions * hidden).collect();
            NewArray::new(name.to_owned(), &[positions, *hidden], &ArrayData::F32(table))
        };
        let all: Vec<_> = arrays.list().map(|(name, _)| array(name)).collect();
        assert!(all.iter().any(|array| array.shape[0] == positions), "no table of positions");
        write_safetensors(&self.path().join("long/model.safetensors"), &all, &Default::default()).unwrap();
        self
    }

    /// The program in this folder: offline, without anybody's caches, and with a `python3` that fails.
    pub(crate) fn glasshead(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glasshead"));
        command.args(args).current_dir(self.path()).env_clear().stdin(Stdio::null());
        command.env("GLASSHEAD_CACHE", self.path().join("cache")).env("HF_HUB_OFFLINE", "1");
        command.env("HF_HOME", self.path().join("hf")).env("HOME", self.path());
        command.env("PATH", self.path().join("no programs")).env("RUST_BACKTRACE", "1");
        command
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                names.push(path.display().to_string());
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        names.sort();
        names
    }

    /// Refused with this exit code, and with these words in the error and in the hint.
    pub(crate) fn refused(&self, code: i32, args: &[&str], error: &str, hint: &str) {
        self.refuses(self.glasshead(args), code, error, hint);
    }

    pub(crate) fn refuses(&self, mut command: Command, code: i32, error: &str, hint: &str) {
        let before = self.files();
        let done = command.output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{command:?}: {said}");
        assert!(done.stdout.is_empty(), "{command:?}: {}", String::from_utf8_lossy(&done.stdout));
        let find = |start: &str| {
            let mut lines = said.lines().filter_map(|line| line.strip_prefix(start));
            let line = lines.next().unwrap_or_else(|| panic!("{command:?} has no {start}line: {said}"));
            assert!(lines.next().is_none(), "{command:?} has more than one {start}line: {said}");
            line
        };
        let (told, tip) = (find("error: "), find("hint: "));
        assert!(told.contains(error), "{command:?}: {error:?} is not in {told:?}");
        assert!(tip.contains(hint), "{command:?}: {hint:?} is not in {tip:?}");
        assert!(said.ends_with(&format!("error: {told}\nhint: {tip}\n")), "{command:?}: {said}");
        for word in ["panicked", "backtrace", "RUST_BACKTRACE", "unwrap", "src/", "os error 0", "\u{1b}"] {
            assert!(!said.contains(word), "{command:?}: {said}");
        }
        assert!(told.len() < 600 && tip.len() < 600, "{command:?} says too much: {said}");
        let mut after = self.files();
        // A cache folder that was made for a download is empty again.
        let cache = self.path().join("cache").display().to_string();
        after.retain(|name| *name != cache || before.contains(name));
        assert_eq!(before, after, "{command:?} left something");
    }

    pub(crate) fn done(&self, args: &[&str]) -> Output {
        let done = self.glasshead(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        done
    }
}

/// A WordPiece tokenizer for the first few of the 96 ids.
pub(crate) fn tokenizer() -> String {
    let special = |id: u32, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": [special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "the": 4, "bank": 5, "##er": 6, "far": 7}}
    })
    .to_string()
}

pub(crate) fn safetensors(path: &Path, arrays: &[(&str, &[usize], ArrayData)]) {
    let arrays: Vec<_> = arrays.iter().map(|(name, shape, data)| NewArray::new(*name, shape, data)).collect();
    write_safetensors(path, &arrays, &BTreeMap::new()).unwrap();
}

/// The bytes of a safetensors file with this header, and so many of data.
pub(crate) fn raw_safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}
