//! The messages between a worker and whoever started it: each is a line of JSON.

use crate::error::Error;
use crate::outcome::is_signal;
use crate::run::{Inspection, Report, Request};
use crate::worker::notice::Notice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The first message to a worker: the run that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    pub request: Request,
    /// Whether the run is looked at before it begins. It then waits for one more line, with anything in it.
    pub inspect: Option<Inspect>,
}

/// The inspection of a run before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inspect {
    /// The code itself, beside its digest.
    pub code: bool,
    /// Bytes of code that are allowed.
    pub code_max: Option<u64>,
}

/// A message from a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// The run is ready to begin.
    Inspected(Inspection),
    /// The reason why the run takes longer this time.
    Notice(Notice),
    /// The last message.
    Ended(Ended),
}

/// The end of a run.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ended {
    /// The run came to an end.
    Report(Box<Report>),
    /// There was no run, or it could not be brought to its end.
    Failed(Error),
    /// A signal asked the worker to stop before there was a program.
    Interrupted(u8),
}

impl Spec {
    /// Returns how many bytes of each output stream will be in the report.
    pub fn capture(&self) -> u64 {
        match self.request.capture {
            true => self.request.limits.max_output,
            false => 0,
        }
    }
}

impl Ended {
    /// Returns whether a worker of ours can have told it: one that was taken over may tell anything.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Report(report) => report.is_sound(),
            Self::Failed(_) => true,
            Self::Interrupted(signal) => is_signal(*signal),
        }
    }
}

#[cfg(test)]
mod tests;
