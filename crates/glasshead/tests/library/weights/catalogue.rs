//! Pulling a model: whole or not at all, whatever the sources deliver and whoever pulls beside us.

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use glasshead::weights::catalogue::{CATALOGUE, Entry, File, Hub};
use glasshead::weights::{Progress, Silent, Source, Staging, Trouble, pull_from, read_small};
use glasshead::{Fault, Result};
use tempfile::TempDir;

/// Two small files; the hashes are those of `hello\n` and of `world`.
const SMALL: Entry = Entry {
    name: "small",
    about: "for tests",
    licence: "CC0-1.0",
    files: &[
        File {
            path: "config.json",
            bytes: 6,
            sha256: "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        },
        File {
            path: "deep/model.safetensors",
            bytes: 5,
            sha256: "486ea46224d1bb4fb680f34f7c9ad96a8f24ec88be73ea8e5a6c65260e9cb8a7",
        },
    ],
    hub: Hub { repo: "nobody/nothing", revision: "main" },
    wheel: None,
};

/// A source that delivers these bytes for the first and the second file.
struct Delivers(&'static [u8], &'static [u8]);

impl Source for Delivers {
    fn label(&self, _entry: &Entry) -> String {
        "the test".to_owned()
    }

    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble> {
        for file in staging.missing(entry) {
            let bytes = if file.path == "config.json" { self.0 } else { self.1 };
            staging.accept(&file, &mut Cursor::new(bytes), progress)?;
        }
        Ok(())
    }
}

const GOOD: Delivers = Delivers(b"hello\n", b"world");

fn pull(cache: &Path, sources: &[&dyn Source]) -> Result<std::path::PathBuf> {
    pull_from(&SMALL, cache, sources, &mut Silent)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("listed");
    entries.map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_catalogue_is_well_formed() {
    for entry in CATALOGUE {
        assert!(!entry.name.is_empty() && !entry.name.contains(['/', '\\', '.', ':']), "{}", entry.name);
        assert_eq!(CATALOGUE.iter().filter(|other| other.name == entry.name).count(), 1);
        for file in entry.files {
            assert!(
                file.bytes > 0 && !file.path.contains("..") && !file.path.starts_with('/'),
                "{}",
                file.path
            );
            let hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
            assert!(file.sha256.len() == 64 && file.sha256.bytes().all(hex), "{}", file.path);
        }
    }
}

#[test]
fn a_good_source_leaves_the_model_and_nothing_else() {
    let cache = TempDir::new().expect("temporary folder");
    let folder = pull(cache.path(), &[&GOOD]).expect("pulled");
    assert_eq!(folder, cache.path().join("models/small"));
    assert_eq!(fs::read(folder.join("deep/model.safetensors")).expect("read"), b"world");
    assert_eq!(names(cache.path()), ["models"]);
}

#[test]
fn a_model_of_one_file_is_that_file() {
    const ONE: Entry = Entry { files: &[SMALL.files[0]], ..SMALL };
    let cache = TempDir::new().expect("temporary folder");
    let file = pull_from(&ONE, cache.path(), &[&GOOD], &mut Silent).expect("pulled");
    assert_eq!(file, cache.path().join("models/small/config.json"));
    assert_eq!(fs::read(file).expect("read"), b"hello\n");
    let folder = Path::new("folder");
    assert_eq!(SMALL.path_in(folder), folder, "several files are their folder");
    let nowhere = pull_from(&ONE, cache.path(), &[], &mut Silent).expect_err("refused");
    assert!(nowhere.hint().contains("--model FILE"), "{}", nowhere.hint());
}

#[test]
fn bytes_that_lie_are_refused_and_leave_nothing() {
    let cases: [(Delivers, &str); 4] = [
        (Delivers(b"HELLO\n", b"world"), "SHA-256"),
        (Delivers(b"hello\n", b"worl"), "has 4 of the 5 bytes"),
        (Delivers(b"hello\n", b"world!"), "more than the pinned 5 bytes"),
        (Delivers(b"", b""), "has 0 of the 6 bytes"),
    ];
    for (source, words) in &cases {
        let cache = TempDir::new().expect("temporary folder");
        let error = pull(cache.path(), &[source]).expect_err("refused");
        assert_eq!(error.fault(), Fault::Environment);
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("the test"), "{error}");
        assert!(names(cache.path()).is_empty());
    }
}

/// A source whose connection breaks, or that never ends.
struct Breaks;

impl Source for Breaks {
    fn label(&self, _entry: &Entry) -> String {
        "the broken one".to_owned()
    }

    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble> {
        struct Line;
        impl Read for Line {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("unplugged"))
            }
        }
        let endless = staging.accept(&entry.files[0], &mut std::io::repeat(b'x'), progress);
        assert!(matches!(endless, Err(Trouble::Source(why)) if why.contains("more than")));
        staging.accept(&entry.files[0], &mut b"hell".chain(Line), progress)
    }
}

#[test]
fn the_next_source_is_asked_and_every_reason_is_told() {
    let cache = TempDir::new().expect("temporary folder");
    let error = pull(cache.path(), &[&Breaks, &Delivers(b"hello\n", b"")]).expect_err("refused");
    let said = error.to_string();
    assert!(
        said.contains("the broken one") && said.contains("unplugged") && said.contains("the test"),
        "{said}"
    );
    // The first of these has half of the model, and that half is kept.
    let folder =
        pull(cache.path(), &[&Breaks, &Delivers(b"hello\n", b""), &Delivers(b"", b"world")]).expect("pulled");
    assert_eq!(fs::read(folder.join("config.json")).expect("read"), b"hello\n");
}

#[test]
fn an_incomplete_folder_is_replaced() {
    let cache = TempDir::new().expect("temporary folder");
    let old = cache.path().join("models/small");
    fs::create_dir_all(&old).expect("made");
    fs::write(old.join("config.json"), b"half").expect("written");
    fs::write(old.join("stray"), b"stray").expect("written");
    let folder = pull(cache.path(), &[&GOOD]).expect("pulled");
    assert_eq!(fs::read(folder.join("config.json")).expect("read"), b"hello\n");
    assert!(!folder.join("stray").exists());
    assert_eq!(names(cache.path()), ["models"]);
}

#[test]
fn many_pulls_at_once_do_not_hurt_each_other() {
    let cache = TempDir::new().expect("temporary folder");
    for _ in 0..20 {
        let stale = cache.path().join("models/small");
        let _ = fs::remove_dir_all(&stale);
        fs::create_dir_all(&stale).expect("made");
        fs::write(stale.join("config.json"), b"half").expect("written");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let folder = pull(cache.path(), &[&GOOD]).expect("pulled");
                    assert_eq!(fs::read(folder.join("deep/model.safetensors")).expect("read"), b"world");
                });
            }
        });
        assert_eq!(names(cache.path()), ["models"]);
    }
}

#[test]
fn what_a_killed_download_left_is_swept() {
    let cache = TempDir::new().expect("temporary folder");
    let [dead, young] = [".staging-dead", ".staging-young"].map(|name| cache.path().join(name));
    fs::create_dir(&dead).expect("made");
    fs::write(dead.join("lock"), b"").expect("written");
    fs::create_dir(&young).expect("made");
    let busy = Staging::new(cache.path()).expect("made");
    pull(cache.path(), &[&GOOD]).expect("pulled");
    assert!(!dead.exists(), "its lock was free");
    assert!(young.exists(), "it may be about to lock");
    assert!(busy.scratch().exists(), "it holds its lock");
}

#[test]
fn a_cache_that_is_a_file_is_told() {
    let folder = TempDir::new().expect("temporary folder");
    let cache = folder.path().join("cache");
    fs::write(&cache, b"").expect("written");
    let error = pull(&cache, &[&GOOD]).expect_err("refused");
    assert_eq!(error.fault(), Fault::Environment);
    assert!(error.hint().contains("GLASSHEAD_CACHE"), "{}", error.hint());
    assert!(read_small(&cache, 0).expect("untouched").is_empty());
}
