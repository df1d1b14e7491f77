//! The end of a guest's run, and the reasons why it cannot go on.

use crate::devices::Violation;
use crate::outcome::Crash;
use anyhow::Error;

/// The end of a guest's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The host needs nothing more from the guest.
    Done,
    Crashed(Crash),
}

/// The reason why a guest cannot go on.
pub enum RunError {
    /// The guest caused it, or its memory was lost.
    Crashed(Crash),
    /// This host could not do something that a guest may expect.
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
