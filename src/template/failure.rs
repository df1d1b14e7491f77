//! The errors of work on a template that its guest, or whoever waits for it, is the reason for.

use crate::outcome::{Crash, Outcome};
use anyhow::{Error, anyhow};

/// The error for a signal that asked this process to stop before there was a program.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted(pub u8);

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted while building the template")
    }
}

impl std::error::Error for Interrupted {}

/// The error for a guest that failed by its own fault before it could become a template, with how
/// it ended.
#[derive(Debug)]
pub(super) struct Failed(pub String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Returns the error for a template that could not be made because a guest ended like this.
pub(super) fn failure(whose: &str, outcome: Outcome) -> Error {
    match outcome {
        Outcome::Interrupted(signal) => Interrupted(signal).into(),
        Outcome::Crashed(crash @ Crash::MemoryLost) => anyhow!("{whose} crashed: {crash}"),
        Outcome::OutputClosed | Outcome::OutputFailed(_) => anyhow!("{whose} ended: {outcome:?}"),
        Outcome::Crashed(crash) => Failed(format!("{whose} crashed: {crash}")).into(),
        outcome => Failed(format!("{whose} ended: {outcome:?}")).into(),
    }
}
