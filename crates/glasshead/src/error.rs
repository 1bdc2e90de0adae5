//! What went wrong, said to a person: one sentence, and what to do about it.

use std::fmt;

/// Who has to act: decides the exit code of the command (2 for a wrong request, 1 for the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request or its input is wrong: a bad flag, a bad file, an impossible shape.
    Request,
    /// The request was fine, but it could not be done here: no network, a read-only folder, a full disk.
    Environment,
}

/// An error with the sentence that names the culprit and a hint that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    fault: Fault,
    what: String,
    hint: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The input is at fault. `what` names the file, tensor or flag; `hint` says what to do.
    pub fn request(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Request, what: what.into(), hint: hint.into() }
    }

    /// The surroundings are at fault: network, disk, permissions.
    pub fn environment(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Environment, what: what.into(), hint: hint.into() }
    }

    /// Who has to act.
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// What to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}
