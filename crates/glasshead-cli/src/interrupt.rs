//! Ctrl-C: ends the program with a sentence and without a half-written file.

use std::{
    io::{self, Write},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use glasshead::{Error, Result};

use crate::printer;

/// True while temporary files may lie on the disk. Whoever holds the lock decides what a signal does.
static WRITING: Mutex<bool> = Mutex::new(false);
/// A signal came while files were written.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C ends the program at once; while files are written, as soon as they are removed.
pub(crate) fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        let writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        if *writing {
            STOPPED.store(true, Ordering::Relaxed);
        } else {
            // The lock is held until the end, so that no file is begun meanwhile.
            printer::failure(&stopped());
            process::exit(1);
        }
    })
    .map_err(|cause| Error::environment(format!("Ctrl-C cannot be watched for: {cause}"), ""))
}

/// Runs `work`, which writes files through [`Stoppable`].
pub(crate) fn while_writing(work: impl FnOnce() -> Result<()>) -> Result<()> {
    let set = |writing| *WRITING.lock().unwrap_or_else(PoisonError::into_inner) = writing;
    set(true);
    let outcome = work();
    set(false);
    if outcome.is_err() && STOPPED.load(Ordering::Relaxed) { Err(stopped()) } else { outcome }
}

fn stopped() -> Error {
    Error::environment("interrupted; nothing was written", "run it again; --layers keeps fewer layers")
}

/// A writer that fails after a signal; whoever owns its temporary file removes it then.
pub(crate) struct Stoppable<'a>(pub(crate) &'a mut (dyn Write + Send));

impl Write for Stoppable<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if STOPPED.load(Ordering::Relaxed) {
            // Not `Interrupted`: that one is tried again.
            return Err(io::Error::other("interrupted"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
