//! Reading with a limit, hashing, and writing that leaves either the whole file or none.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Reads a whole regular file of at most `limit` bytes.
///
/// # Errors
/// A file that is missing, not a regular file, too large or unreadable.
pub fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata().map_err(|cause| unreadable(path, &cause))?.len();
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that grows meanwhile is noticed.
    if length <= limit {
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|cause| unreadable(path, &cause))?;
    }
    if length > limit || bytes.len() as u64 > limit {
        return Err(Error::request(
            format!("{} has more than {limit} bytes, too many for a file of its kind", path.display()),
            "check that it is the file you mean",
        ));
    }
    Ok(bytes)
}

/// Opens a file for reading; a folder is refused with a sentence of its own.
pub(crate) fn open(path: &Path) -> Result<File> {
    let file = File::open(path).map_err(|cause| unreadable(path, &cause))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::request(
            format!("{} is a folder, not a file", path.display()),
            "give the path of a file",
        ));
    }
    Ok(file)
}

/// The sentence for a file that cannot be opened or read.
pub(crate) fn unreadable(path: &Path, cause: &io::Error) -> Error {
    let path = path.display();
    match cause.kind() {
        io::ErrorKind::NotFound => {
            Error::request(format!("there is no file {path}"), "check the path and its spelling")
        }
        io::ErrorKind::PermissionDenied => Error::request(
            format!("{path} may not be read: permission denied"),
            "check the file's permissions",
        ),
        _ => Error::environment(format!("{path} cannot be read: {cause}"), "check the disk and the path"),
    }
}

/// The SHA-256 of a file, in lower-case hexadecimal digits. `seen` is told of every chunk's size.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_of_file(path: &Path, mut seen: impl FnMut(u64)) -> Result<String> {
    let mut file = open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(hash)),
            Ok(read) => {
                hash.update(&chunk[..read]);
                seen(read as u64);
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(unreadable(path, &cause)),
        }
    }
}

/// The digits of a finished hash.
pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that are copied and hashed at a time: small enough to stay in the second-level cache between the two.
pub(crate) const CHUNK: usize = 256 << 10;

/// Writes a file so that at `path` there is either the whole of it or what was there before: a temporary
/// file in the same folder is renamed into place. What is no regular file (a pipe, a terminal,
/// `/dev/stdout`) is written to straight; a reader that has gone away there is no error.
///
/// # Errors
/// A folder that is missing or read-only, a full disk, an error of `write` itself.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<()> {
    stage(path, write)?.place()
}

/// What writes the bytes of a file.
pub type Writer<'a> = Box<dyn FnOnce(&mut (dyn Write + Send)) -> io::Result<()> + 'a>;

/// The same for several files: none is renamed into place before all are written.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_all_atomically(files: Vec<(PathBuf, Writer<'_>)>) -> Result<()> {
    let staged: Vec<Staged> =
        files.into_iter().map(|(path, write)| stage(&path, write)).collect::<Result<_>>()?;
    staged.into_iter().try_for_each(Staged::place)
}

/// A file that is written, but not yet in its place; removed when it is dropped.
enum Staged {
    /// A temporary file, and where it belongs.
    File(tempfile::NamedTempFile, PathBuf),
    /// Written straight.
    There,
}

/// Refuses before any work what [`write_atomically`] would refuse after it: a folder, a file in no folder, and what the
/// work reads itself.
///
/// # Errors
/// Which of them it is.
pub fn check_target(path: &Path, inputs: &[&Path]) -> Result<()> {
    let refused = |what: &str, hint: &str| Err(Error::request(format!("{} {what}", path.display()), hint));
    if path.is_dir() {
        return refused("is a folder", "give the path of a file to write");
    }
    let folder = folder_of(path);
    if !folder.exists() {
        return refused("cannot be written: its folder does not exist", "make the folder first");
    }
    if !folder.is_dir() {
        let what = format!("{} cannot be written: {} is no folder", path.display(), folder.display());
        return Err(Error::environment(what, "give a path in a folder"));
    }
    // What is no regular file, a pipe or a terminal, can be read and written.
    let same = |input: &Path| Some(fs::canonicalize(input).ok()? == fs::canonicalize(path).ok()?);
    if path.is_file() && inputs.iter().any(|input| same(input) == Some(true)) {
        return refused("is what is read: writing it would lose it", "give another path to write");
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn stage(path: &Path, write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>) -> Result<Staged> {
    check_target(path, &[])?;
    let old = fs::metadata(path).ok();
    // `/dev/stdout` may be a regular file of the shell's: renaming over it would cut the shell off from it.
    let device = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|root| path.starts_with(root));
    if device || old.as_ref().is_some_and(|old| !old.is_file()) {
        return match write_straight(path, write) {
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(Staged::There),
            Ok(()) => Ok(Staged::There),
            Err(cause) => Err(unwritable(path, &cause)),
        };
    }
    // Behind a symbolic link it is the file that is replaced, not the link.
    let target = if old.is_some() { fs::canonicalize(path) } else { Ok(path.to_owned()) };
    let target = target.map_err(|cause| unwritable(path, &cause))?;
    let file = temporary(&target, old.map(|old| old.permissions()), write)
        .map_err(|cause| unwritable(path, &cause))?;
    Ok(Staged::File(file, target))
}

impl Staged {
    fn place(self) -> Result<()> {
        match self {
            Self::There => Ok(()),
            Self::File(file, target) => {
                file.persist(&target).map_err(|error| unwritable(&target, &error.error))?;
                Ok(())
            }
        }
    }
}

fn write_straight(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(File::options().write(true).open(path)?);
    write(&mut out)?;
    out.flush()
}

fn temporary(
    target: &Path,
    permissions: Option<fs::Permissions>,
    write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> io::Result<tempfile::NamedTempFile> {
    // Dropped on every early return, and removed with that.
    let file = new_file_in(folder_of(target))?;
    let mut out = BufWriter::with_capacity(CHUNK, file.as_file());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    if let Some(permissions) = permissions {
        // Where the file system has no permissions this fails; the contents matter more.
        let _ = fs::set_permissions(file.path(), permissions);
    }
    Ok(file)
}

/// A temporary file, removed unless it is persisted, with the mode that any new file has: the one of
/// `tempfile` alone would be its owner's only.
pub(crate) fn new_file_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".glasshead-").suffix(".part");
    #[cfg(unix)]
    let everyone = {
        use std::os::unix::fs::PermissionsExt;
        fs::Permissions::from_mode(0o666) // less what the umask takes away
    };
    #[cfg(unix)]
    builder.permissions(everyone);
    builder.tempfile_in(folder)
}

fn unwritable(path: &Path, cause: &io::Error) -> Error {
    let what = |why: &str| format!("{} cannot be written: {why}", path.display());
    match cause.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::request(what(&cause.to_string()), "check the path and what is to be written")
        }
        _ => Error::environment(
            what(&cause.to_string()),
            "choose a folder that can be written to, with room in it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("out");
        write_atomically(&path, |out| out.write_all(b"first")).expect("written");
        let error = write_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(error.expect_err("fails").to_string().contains("no more"));
        assert_eq!(fs::read(&path).expect("still there"), b"first");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "no temporary file is left");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("temporary folder");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").expect("written");
        let path = folder.path().join("out");
        write_atomically(&path, |out| out.write_all(b"x")).expect("written");
        assert_eq!(mode(&path), mode(&plain));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        write_atomically(&link, |out| out.write_all(b"y")).expect("written");
        assert_eq!((fs::read(&path).expect("there"), mode(&path)), (b"y".to_vec(), 0o600));
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    }

    #[test]
    fn folders_and_missing_folders_are_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |path: &Path| write_atomically(path, |out| out.write_all(b"x")).expect_err("refused");
        assert!(write(folder.path()).to_string().contains("is a folder"));
        assert!(write(&folder.path().join("no/out")).to_string().contains("does not exist"));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_straight() {
        write_atomically(Path::new("/dev/null"), |out| out.write_all(b"x")).expect("written");
    }

    #[test]
    fn reading_stops_at_the_limit() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("in");
        fs::write(&path, b"12345").expect("written");
        assert_eq!(read_small(&path, 5).expect("read"), b"12345");
        assert!(read_small(&path, 4).is_err());
        assert!(read_small(folder.path(), 4).is_err());
    }
}
