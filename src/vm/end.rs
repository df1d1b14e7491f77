//! How the run of a guest ends, and why it cannot go on.

use crate::devices::Violation;
use crate::outcome::Crash;
use anyhow::Error;

/// The end of a guest's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Nothing more was wanted of it.
    Done,
    Crashed(Crash),
}

/// The reason why a guest cannot go on.
pub enum RunError {
    /// The guest's own doing, or the loss of its memory.
    Crashed(Crash),
    /// This host could not do what a guest may expect of it.
    Failed(Error),
}

impl From<Error> for RunError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Crash> for RunError {
    fn from(crash: Crash) -> Self {
        Self::Crashed(crash)
    }
}

impl From<Violation> for RunError {
    fn from(Violation(what): Violation) -> Self {
        Self::Crashed(Crash::Violation(what))
    }
}
