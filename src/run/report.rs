//! How a run went.

use crate::agent::{GuestReport, Milestones, Totals};
use crate::confine::Layer;
use crate::error::{Error, Kind, Remedy};
use crate::files::Fetched;
use crate::limits::Limits;
use crate::outcome::Outcome;
use crate::run::Path;
use crate::template::Key;
use crate::vm::Counters;
use crate::vm::bus::Unknown;
use crate::vm::mode::Mode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How it went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub path: Path,
    /// What it was restored from.
    pub template: Option<Key>,
    pub outcome: Outcome,
    /// That held.
    pub limits: Limits,
    /// Standard output and standard error.
    pub output: [Totals; 2],
    /// The same, where it was kept.
    #[serde(with = "crate::wire")]
    pub kept: Vec<Option<Vec<u8>>>,
    /// What the guest told beside that.
    pub told: GuestReport,
    /// What became of the files that were wanted.
    pub fetched: Fetched,
    pub timings: Timings,
    pub counters: Counters,
    pub unknown: Unknown,
    /// Bytes of guest memory that were ever used, if a record was wanted.
    pub peak: Option<u64>,
    pub mode: Mode,
    /// What this process gave up before the guest ran.
    pub confinement: Vec<Layer>,
    /// The last lines on the guest's console, with control characters escaped.
    pub last_words: Vec<String>,
}

impl Report {
    /// Returns why the program's own end does not count, if that is so.
    pub fn undelivered(&self) -> Option<Error> {
        let Fetched {
            missing, failure, ..
        } = &self.fetched;
        match (&self.outcome, failure) {
            (Outcome::Exited(_) | Outcome::Signaled { .. }, Some(failure)) => Some(failure.clone()),
            (Outcome::Exited(0), None) if missing.count > 0 => Some(Error::new(
                Kind::Delivery,
                format!("files that were wanted are missing: {}", missing.count),
                "see that the program makes them, and may read them",
            )),
            _ => None,
        }
    }

    /// Returns what to tell the user beyond what the program itself wrote.
    pub fn explanation(&self) -> Option<Error> {
        let mut error = self.outcome.explanation(&self.limits)?;
        let had_program = self.timings.program.is_some();
        if error.kind == Kind::Guest && self.mode == Mode::Native && !had_program {
            error.remedy = Remedy::EmulateOrShowConsole;
        }
        Some(error)
    }
}

/// Where the time went: each from the end of the one before.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Timings {
    pub total: Duration,
    /// Until the first instruction of the guest.
    pub setup: Duration,
    /// Until PID 1 ran; nothing if it never did.
    pub kernel: Option<Duration>,
    /// Until the machine was ready and the agent had the job.
    pub agent: Option<Duration>,
    /// From there until the program's first output, if there was any.
    pub first_output: Option<Duration>,
    /// From there until the end of the program.
    pub program: Option<Duration>,
    pub teardown: Duration,
}

impl Timings {
    pub(crate) fn between(
        began: Instant,
        entered: Instant,
        milestones: &Milestones,
        ended: Instant,
    ) -> Self {
        let between = |from: Option<Instant>, to: Option<Instant>| Some(to? - from?);
        let now = Instant::now();
        Self {
            total: now - began,
            setup: entered - began,
            kernel: between(Some(entered), milestones.connected),
            agent: between(milestones.connected, milestones.started),
            first_output: between(milestones.started, milestones.first_output),
            program: between(milestones.started, Some(ended)),
            teardown: now - ended,
        }
    }
}

/// The last lines on a console, with control characters escaped: to show a person what went wrong
/// in a guest that crashed.
pub fn last_words(console: &[u8]) -> Vec<String> {
    const LINES: usize = 3;
    const LENGTH: usize = 200;
    let text = String::from_utf8_lossy(console);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..]
        .iter()
        .map(|line| line.trim().escape_debug().take(LENGTH).collect())
        .collect()
}
