//! Ctrl-C: ends the program with a sentence and without a half-written file.

use std::{
    io::{self, Write},
    path::Path,
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use glasshead::{Error, Result, weights::write_atomically};

use crate::printer;

/// What a command is at. Whoever holds the lock decides what a signal does.
static STAGE: Mutex<Stage> = Mutex::new(Stage::Working);
/// Bytes that are written between two looks for a signal.
const AT_ONCE: usize = 8 << 20;
/// A signal came while files were written.
static STOPPED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
enum Stage {
    Working,
    /// Temporary files may lie on the disk.
    Writing,
    /// All files are in their places, and the program is about to end.
    Written,
}

/// From here on Ctrl-C ends the program at once; while files are written, as soon as they are removed.
pub(crate) fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        let stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
        match *stage {
            Stage::Working => {
                // The lock is held until the end, so that no file is begun meanwhile.
                printer::failure(&stopped());
                process::exit(1);
            }
            Stage::Writing => STOPPED.store(true, Ordering::Relaxed),
            Stage::Written => {}
        }
    })
    .map_err(|cause| Error::environment(format!("Ctrl-C cannot be watched for: {cause}"), ""))
}

/// Runs `work`, which writes files through [`Stoppable`].
pub(crate) fn while_writing(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let set = |stage| *STAGE.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    set(Stage::Writing);
    let outcome = work();
    set(if outcome.is_ok() { Stage::Written } else { Stage::Working });
    if outcome.is_err() && STOPPED.load(Ordering::Relaxed) { Err(stopped()) } else { outcome }
}

/// Writes a file whole or not at all, as long as nobody presses Ctrl-C.
pub(crate) fn write(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    while_writing(|| write_atomically(path, |out| write(&mut Stoppable(out))))
}

fn stopped() -> Error {
    Error::environment("interrupted; nothing was written", "run it again; a smaller request takes less time")
}

/// A writer that fails after a signal; whoever owns its temporary file removes it then.
pub(crate) struct Stoppable<'a>(pub(crate) &'a mut (dyn Write + Send));

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if STOPPED.load(Ordering::Relaxed) {
            // Not `Interrupted`: that one is tried again.
            return Err(io::Error::other("interrupted"));
        }
        self.0.write(&bytes[..bytes.len().min(AT_ONCE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
