//! Models that cannot be fetched, and caches that cannot be used.

use std::fs;

use crate::common::desk::{BANK, Desk, REQUEST, SURROUNDINGS};

#[test]
fn no_network() {
    let desk = Desk::new();
    for args in [&["models", "pull", "minilm"][..], &["explain", BANK]] {
        desk.refused(SURROUNDINGS, args, "could not be fetched", "models pull minilm");
        desk.refused(SURROUNDINGS, args, "there is no python3", "--model FOLDER");
        desk.refused(SURROUNDINGS, args, "HF_HUB_OFFLINE", "");
    }
    // A hub that is not there: nobody listens on the discard port of this machine.
    let mut offline = desk.glasshead(&["models", "pull", "minilm"]);
    offline.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", "http://127.0.0.1:9");
    desk.refuses(offline, SURROUNDINGS, "http://127.0.0.1:9", "models pull minilm");
}

#[cfg(unix)]
#[test]
fn no_network_and_a_pip_that_fails() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    fs::create_dir(desk.path().join("bin")).unwrap();
    desk.write("bin/python3", "#!/bin/sh\necho 'ERROR: no route to the index' >&2\nexit 1\n");
    fs::set_permissions(desk.path().join("bin/python3"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = desk.glasshead(&["models", "pull", "minilm"]);
    command.env("PATH", desk.path().join("bin"));
    desk.refuses(command, SURROUNDINGS, "no route to the index", "--model FOLDER");
}

#[test]
fn cache_folder_that_cannot_be_made() {
    let desk = Desk::new();
    desk.write("file", "");
    // Below a regular file: not even root can write there.
    for cache in ["file", "file/cache"] {
        for args in [&["models", "pull", "minilm"][..], &["explain", BANK]] {
            let mut command = desk.glasshead(args);
            command.env("GLASSHEAD_CACHE", desk.path().join(cache));
            desk.refuses(command, SURROUNDINGS, cache, "GLASSHEAD_CACHE");
        }
    }
}

#[cfg(unix)]
#[test]
fn cache_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let cache = desk.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(cache.join("probe"), "").is_ok() {
        eprintln!("skipped: this user (root?) may write to a read-only folder");
        return;
    }
    let args = &["models", "pull", "minilm"];
    desk.refused(SURROUNDINGS, args, "cannot be written to: Permission denied", "GLASSHEAD_CACHE");
}

#[test]
fn models_that_are_not_there() {
    let desk = Desk::new();
    desk.refused(
        SURROUNDINGS,
        &["models", "path", "minilm"],
        "minilm is not on this disk",
        "models pull minilm",
    );
    desk.refused(REQUEST, &["models", "path", "nope"], "`nope`", "minilm");
    desk.refused(REQUEST, &["models", "pull", "nope"], "`nope`", "minilm");
}

#[test]
fn cached_model_with_other_bytes() {
    let desk = Desk::new();
    let folder = desk.path().join("cache/models/minilm");
    fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::write(folder.join(file), "{}").unwrap();
    }
    let done = desk.glasshead(&["explain", BANK]).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(SURROUNDINGS), "{said}");
    assert!(said.contains("config.json has 2 bytes instead of 612; it was removed\nhint: "), "{said}");
    assert!(!folder.join("config.json").exists());
}
