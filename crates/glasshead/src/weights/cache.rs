//! Our own folder of models: where it is, what is in it, and whether it is what it should be.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::catalogue::{self, CATALOGUE, Entry, File};
use super::files::sha256_of_file;
use super::header::shown;
use super::progress::Progress;
use crate::{Error, Result};

/// The folder for everything that can be fetched again: `$GLASSHEAD_CACHE`, else
/// `$XDG_CACHE_HOME/glasshead`, else `~/.cache/glasshead` (on Windows `%LOCALAPPDATA%\glasshead`).
/// It need not exist.
///
/// # Errors
/// None of these is set and there is no home folder.
pub fn cache_folder() -> Result<PathBuf> {
    if let Some(own) = set("GLASSHEAD_CACHE") {
        return Ok(own);
    }
    let general = if cfg!(windows) {
        set("LOCALAPPDATA")
    } else {
        set("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")))
    };
    general.map(|folder| folder.join("glasshead")).ok_or_else(|| {
        Error::environment(
            "there is no folder for models: neither GLASSHEAD_CACHE nor a home folder is set",
            "set GLASSHEAD_CACHE to a folder that can be written to",
        )
    })
}

/// An environment variable that names a path; an empty one counts as not set.
pub(super) fn set(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The home folder of the person.
pub(super) fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// Where a model of the catalogue lies, or will lie.
///
/// # Errors
/// As [`cache_folder`].
pub fn model_folder(name: &str) -> Result<PathBuf> {
    Ok(folder_in(&cache_folder()?, name))
}

/// The same under a given cache folder.
pub(super) fn folder_in(cache: &Path, name: &str) -> PathBuf {
    cache.join("models").join(name)
}

/// The folder (or the file, if it is one alone) of a catalogue model if all of its files are there in their right sizes. Asks no network
/// and reads no file.
///
/// # Errors
/// A name that is not in the catalogue; as [`cache_folder`].
pub fn locate(name: &str) -> Result<Option<PathBuf>> {
    let entry = known(name)?;
    let folder = model_folder(entry.name)?;
    Ok(complete(entry, &folder).then(|| entry.path_in(&folder)))
}

/// The catalogue's entry of that name, or the sentence that there is none.
pub(super) fn known(name: &str) -> Result<&'static Entry> {
    catalogue::find(name).ok_or_else(|| unknown(name))
}

/// The sentence for a name that is not in the catalogue.
pub(super) fn unknown(name: &str) -> Error {
    Error::request(
        format!("there is no model {} in the catalogue", shown(name)),
        format!(
            "the catalogue has: {}; the path of a model folder or a .gguf file works too",
            catalogue::names()
        ),
    )
}

/// Whether every file is there in its right size.
pub(super) fn complete(entry: &Entry, folder: &Path) -> bool {
    entry.files.iter().all(|file| size(&folder.join(file.path)) == Some(file.bytes))
}

fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

/// Which files [`check`] reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// All of them.
    Whole,
    /// All but those that are hashed anyhow when the model is loaded (see [`confirm`]): a warm start
    /// should not read the weights twice.
    Quick,
}

/// Whether the model is there: every file with its size and hash. `false` if a file is missing.
///
/// # Errors
/// A file that is there but is not the pinned one; it is removed.
pub(super) fn check(entry: &Entry, folder: &Path, depth: Depth, progress: &mut dyn Progress) -> Result<bool> {
    let here = |file: &File| size(&folder.join(file.path)).is_some();
    if !entry.files.iter().all(here) {
        return Ok(false);
    }
    let hashed_later = |file: &File| file.path.ends_with(".safetensors") || file.path.ends_with(".gguf");
    let deep = |file: &&File| depth == Depth::Whole || !hashed_later(file);
    let total = entry.files.iter().filter(deep).map(|file| file.bytes).sum();
    progress.start(&format!("checking {}", entry.name), total);
    let outcome = entry.files.iter().try_for_each(|file| {
        let path = folder.join(file.path);
        if size(&path) != Some(file.bytes) {
            let found = size(&path).unwrap_or(0);
            return Err(wrong(&path, &format!("has {found} bytes instead of {}", file.bytes)));
        }
        if deep(&file) {
            judge(&path, file, &sha256_of_file(&path, |bytes| progress.advance(bytes))?)?;
        }
        Ok(())
    });
    progress.finish();
    outcome.map(|()| true)
}

/// Compares the hash of a file that has just been read with the catalogue's, if the file is one of ours.
///
/// # Errors
/// It is ours and not the pinned one; it is removed.
pub(super) fn confirm(path: &Path, sha256: &str) -> Result<()> {
    let Ok(cache) = cache_folder() else { return Ok(()) };
    for entry in CATALOGUE {
        let folder = folder_in(&cache, entry.name);
        if let Some(file) = entry.files.iter().find(|file| folder.join(file.path) == path) {
            return judge(path, file, sha256);
        }
    }
    Ok(())
}

fn judge(path: &Path, file: &File, sha256: &str) -> Result<()> {
    if sha256 == file.sha256 {
        return Ok(());
    }
    Err(wrong(path, &format!("has the SHA-256 {sha256} instead of {}", file.sha256)))
}

/// Removes a file of ours that is not what it should be, and says so.
fn wrong(path: &Path, what: &str) -> Error {
    let what = format!("{} {what}", path.display());
    match fs::remove_file(path) {
        Ok(()) => Error::environment(
            format!("{what}; it was removed"),
            "run the same command again to fetch it anew",
        ),
        Err(cause) => Error::environment(
            format!("{what}, and it could not be removed: {cause}"),
            "remove it by hand, or set GLASSHEAD_CACHE to another folder",
        ),
    }
}
