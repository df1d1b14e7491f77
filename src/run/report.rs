//! How a run went.

use crate::agent::{GuestReport, Milestones, Totals};
use crate::confine::Layer;
use crate::error::{Error, Kind, Remedy};
use crate::files::{Fetched, Gathered};
use crate::limits::Limits;
use crate::outcome::{Outcome, is_signal};
use crate::run::Path;
use crate::template::Key;
use crate::vm::Counters;
use crate::vm::bus::Unknown;
use crate::vm::mode::Mode;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// The report of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub path: Path,
    /// The template that the machine was restored from.
    pub template: Option<Key>,
    pub outcome: Outcome,
    /// The limits that applied.
    pub limits: Limits,
    /// The byte counts of standard output and standard error.
    pub output: [Totals; 2],
    /// The bytes of both streams, if they were kept.
    #[serde(with = "crate::wire")]
    pub kept: Vec<Option<Vec<u8>>>,
    /// The guest's own report, beside its output.
    pub told: GuestReport,
    pub gathered: Gathered,
    /// The requested files: which were written, and which were not.
    pub fetched: Fetched,
    pub timings: Timings,
    pub counters: Counters,
    pub unknown: Unknown,
    /// The bytes of guest memory that were ever used, if a record was wanted.
    pub peak: Option<u64>,
    pub mode: Mode,
    /// The layers of confinement that this process took on before the guest ran.
    pub confinement: Vec<Layer>,
    /// The last lines on the guest's console, with control characters escaped.
    pub last_words: Vec<String>,
    /// The module that was to be run, or what has it, if the interpreter says that there is none.
    pub missing_module: Option<String>,
}

impl Report {
    /// Returns whether its parts agree: one from another process may have any value.
    pub fn is_sound(&self) -> bool {
        let has_signal = match self.outcome {
            Outcome::Signaled { signal, .. } | Outcome::Interrupted(signal) => is_signal(signal),
            _ => true,
        };
        let mut kept = self.kept.iter();
        let output_agrees = self.output.iter().all(|totals| {
            let kept = kept.next().and_then(Option::as_ref);
            totals.delivered <= totals.total
                && kept.is_none_or(|kept| kept.len() as u64 == totals.delivered)
        });
        let lists = [&self.fetched.missing, &self.fetched.left_out];
        let lists_agree = lists.iter().all(|list| list.first.len() <= list.count);
        let files = &self.fetched.files;
        has_signal && output_agrees && lists_agree && files.first.len() <= files.count
    }

    /// Returns why the program's own end does not count, if that is so.
    pub fn undelivered(&self) -> Option<Error> {
        match self.outcome {
            Outcome::Exited(code) => self.fetched.undelivered(code == 0),
            Outcome::Signaled { .. } => self.fetched.undelivered(false),
            _ => None,
        }
    }

    /// Returns what to tell the user beyond what the program itself wrote.
    pub fn explanation(&self) -> Option<Error> {
        let mut error = self.outcome.explanation(&self.limits)?;
        if let (Outcome::NoFiles(_), Some(workdir)) = (&self.outcome, &self.gathered.fixed_workdir)
        {
            let message =
                format!("there is no directory {workdir} in the guest, and none can be made");
            return Some(Error::new(Kind::File, message, Remedy::ChooseWorkdir));
        }
        let had_program = self.timings.program.is_some();
        if error.kind == Kind::Guest && self.mode == Mode::Native && !had_program {
            error.remedy = Remedy::EmulateOrShowConsole;
        }
        Some(error)
    }

    /// Returns how the program ended, in words.
    pub fn ended(&self) -> String {
        match (&self.outcome, self.explanation()) {
            (Outcome::Exited(status), _) => format!("the program exited with {status}"),
            (_, Some(error)) => error.message,
            (Outcome::Signaled { signal, .. }, None) => {
                format!("signal {signal} ended the program")
            }
            (Outcome::Interrupted(signal), None) => format!("signal {signal} stopped the run"),
            (_, None) => "nobody read the output any more".into(),
        }
    }
}

/// The phases of a run; each lasts from the end of the one before.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Timings {
    pub total: Duration,
    /// The time until the guest's first instruction.
    pub setup: Duration,
    /// The time until PID 1 ran, if it ever did.
    pub kernel: Option<Duration>,
    /// The time until the machine was ready and the agent had the job.
    pub agent: Option<Duration>,
    /// The time from then until the program's first output, if there was any.
    pub first_output: Option<Duration>,
    /// The time from then until the end of the program.
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

/// Returns the last lines on a console, with control characters escaped. They show a person what
/// went wrong in a guest that crashed.
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
