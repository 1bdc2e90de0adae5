//! Where a download lives until it is whole: a folder of its own inside the cache folder, gone again
//! when the download breaks, renamed into place when it does not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::cache::complete;
use super::catalogue::{self, Entry};
use super::files::{CHUNK, hex, new_file_in};
use super::progress::Progress;
use crate::{Error, Result};

/// Why a source did not deliver.
#[derive(Debug)]
pub enum Trouble {
    /// The source is at fault: the next one is tried. The second half of a sentence.
    Source(String),
    /// This machine is at fault (a full disk): no other source can help.
    Here(Error),
}

/// The folder of one download.
#[derive(Debug)]
pub struct Staging {
    // Declared before the folder, so that it is let go before the folder is removed (Windows insists).
    _lock: File,
    folder: TempDir,
    cache: PathBuf,
}

const PREFIX: &str = ".staging-";

impl Staging {
    /// Makes the folder, and removes what downloads that were killed have left.
    ///
    /// # Errors
    /// A cache folder that cannot be written to.
    pub fn new(cache: &Path) -> Result<Self> {
        let refused = |cause: std::io::Error| cannot_write(cache, &cause);
        fs::create_dir_all(cache).map_err(refused)?;
        sweep(cache);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(cache).map_err(refused)?;
        // Locked first and named afterwards: whoever sees the name finds it locked, as long as we live.
        let unnamed = folder.path().join("lock.new");
        let lock = File::create(&unnamed).map_err(refused)?;
        let _ = lock.try_lock(); // Where a file system has no locks, folders are swept by their age.
        fs::rename(unnamed, folder.path().join("lock")).map_err(refused)?;
        fs::create_dir(folder.path().join("ready")).map_err(refused)?;
        fs::create_dir(folder.path().join("scratch")).map_err(refused)?;
        Ok(Self { _lock: lock, folder, cache: cache.to_owned() })
    }

    /// A folder for a source's own use; it goes with the staging.
    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// The files of `entry` that no source has delivered yet.
    pub fn missing(&self, entry: &Entry) -> Vec<catalogue::File> {
        entry.files.iter().filter(|file| !self.ready(file).exists()).copied().collect()
    }

    fn ready(&self, file: &catalogue::File) -> PathBuf {
        self.folder.path().join("ready").join(file.path)
    }

    /// Takes one file from a source: never more bytes than pinned, and only with the pinned hash.
    ///
    /// # Errors
    /// [`Trouble::Source`] if the bytes are others, [`Trouble::Here`] if they cannot be written.
    pub fn accept(
        &self,
        file: &catalogue::File,
        from: &mut dyn Read,
        progress: &mut dyn Progress,
    ) -> Result<(), Trouble> {
        let here = |cause: std::io::Error| Trouble::Here(cannot_write(&self.cache, &cause));
        let scratch = new_file_in(&self.scratch()).map_err(here)?;
        let mut out = scratch.as_file();
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut left = file.bytes;
        loop {
            let read = match from.read(&mut chunk) {
                Ok(read) => read,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(Trouble::Source(format!("broke off in {}: {cause}", file.path))),
            };
            if read == 0 {
                break;
            }
            left = left.checked_sub(read as u64).ok_or_else(|| {
                Trouble::Source(format!("has a {} of more than the pinned {} bytes", file.path, file.bytes))
            })?;
            hash.update(&chunk[..read]);
            out.write_all(&chunk[..read]).map_err(here)?;
            progress.advance(read as u64);
        }
        if left > 0 {
            let found = file.bytes - left;
            return Err(Trouble::Source(format!("has {found} of the {} bytes of {}", file.bytes, file.path)));
        }
        let found = hex(hash);
        if found != file.sha256 {
            return Err(Trouble::Source(format!(
                "has a {} with the SHA-256 {found} instead of the pinned {}",
                file.path, file.sha256
            )));
        }
        let ready = self.ready(file);
        if let Some(folder) = ready.parent() {
            fs::create_dir_all(folder).map_err(here)?;
        }
        scratch.persist(ready).map_err(|error| here(error.error))?;
        Ok(())
    }

    /// Renames what is ready to `target`. If another process was faster, its model is as good as ours.
    ///
    /// # Errors
    /// A cache folder that cannot be written to.
    pub fn place(self, entry: &Entry, target: &Path) -> Result<()> {
        let refused = |cause: std::io::Error| cannot_write(&self.cache, &cause);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(refused)?;
        }
        let ready = self.folder.path().join("ready");
        let mut tries = 0;
        loop {
            let Err(cause) = fs::rename(&ready, target) else { return Ok(()) };
            if complete(entry, target) {
                return Ok(());
            }
            tries += 1;
            if tries > 8 {
                return Err(refused(cause));
            }
            // Something incomplete is in the way. It is moved in here and goes when we go; if that fails,
            // another process has just moved it, and the next round sees what is there then.
            let _ = fs::rename(target, self.folder.path().join(format!("old-{tries}")));
        }
    }
}

/// Removes the folders of downloads whose process is gone: their lock is free.
fn sweep(cache: &Path) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let orphaned = match File::open(entry.path().join("lock")) {
            Ok(lock) => match lock.try_lock() {
                Ok(()) => true,
                Err(fs::TryLockError::WouldBlock) => false,
                Err(fs::TryLockError::Error(_)) => old(&entry),
            },
            // Just being made, unless it is old.
            Err(_) => old(&entry),
        };
        if orphaned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn old(entry: &fs::DirEntry) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|then| SystemTime::now().duration_since(then).is_ok_and(|age| age > DAY))
}

fn cannot_write(cache: &Path, cause: &std::io::Error) -> Error {
    Error::environment(
        format!("the model folder {} cannot be written to: {cause}", cache.display()),
        "set GLASSHEAD_CACHE to a folder that can be written to and has room",
    )
}
