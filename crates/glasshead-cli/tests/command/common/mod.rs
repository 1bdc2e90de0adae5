//! What several test files need: the program, and where a real model lies.

pub(crate) mod desk;

use std::{path::PathBuf, process::Command};

/// The program, with nothing of the caller's environment that would change what it prints.
pub(crate) fn glasshead() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glasshead"));
    command.env_remove("GLASSHEAD_ISA").env_remove("RUST_BACKTRACE");
    command
}

/// Runs it; it must succeed. Returns standard output.
pub(crate) fn succeeds(command: &mut Command) -> Vec<u8> {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// The folder of minilm: below `GLASSHEAD_TEST_MODELS`, or in the cache. Tests fetch nothing.
pub(crate) fn minilm() -> Option<PathBuf> {
    let given = std::env::var_os("GLASSHEAD_TEST_MODELS").map(PathBuf::from);
    let below = given.into_iter().flat_map(|folder| [folder.join("minilm"), folder]);
    let has_model = |folder: &PathBuf| {
        folder.join("model.safetensors").is_file() && folder.join("tokenizer.json").is_file()
    };
    below.into_iter().find(has_model).or_else(|| glasshead::weights::locate("minilm").ok().flatten())
}
