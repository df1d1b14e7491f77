//! An entry of the log.

use crate::job::name;
use crate::limits;
use crate::policy::LimitExceeded;
use crate::process::EXIT_OURS;
use crate::record::{
    Bytes, Event as GuestEvent, Host, KvmMode, Limit, Memory, Path, Record, State, Status, Timings,
    Unusual,
};
use crate::text::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Upper bound on the bytes of code that an entry holds.
pub const KEPT_CODE_MAX: usize = 1 << 20;
/// Upper bounds on the guest kernel's events and on the layers that an entry holds, and on the
/// characters of any text: the process that reports them may have been taken over.
const COUNT_MAX: usize = 100;
const TEXT_MAX: usize = 1024;

/// An event that an entry records.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A session begins. The number of this entry is that of a run.
    Session(Session),
    /// A run or a cell of a session begins. The number of this entry is the number of the run.
    Start(Start),
    /// A run ran into a limit.
    Limit { run: u64, limit: Limit },
    /// A run has ended.
    End(Box<End>),
    /// The machine of a session is to be saved, for others to go on from there.
    Save { run: u64, purpose: String },
    /// A session has ended.
    SessionEnd {
        run: u64,
        process: Usage,
        why: String,
    },
    /// A run was refused.
    Refusal(Refusal),
    /// Requests were turned away before anything was known of a run.
    TurnedAway { why: String, times: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The name of the thing that was over its limit, or wrong.
    pub what: String,
    pub asked: Option<String>,
    pub allowed: String,
    /// The seconds after which it is worth asking again, if it ever is.
    pub retry_after_s: Option<u64>,
}

/// A session, as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Session {
    /// Its name.
    pub session: String,
    /// The session or checkpoint that it goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The names of the variables that were set.
    pub environment: Vec<String>,
    /// The files that were put into the guest.
    pub files: Files,
    /// The limits of each cell.
    pub limits: Limits,
    pub root: bool,
    /// The seconds for which it may be asked nothing, and be there.
    pub idle_s: f64,
    pub age_s: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// The name of the session that it is a cell of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub code: Code,
    pub language: String,
    /// The number of arguments.
    pub arguments: usize,
    /// The names of the variables that were set.
    pub environment: Vec<String>,
    /// The files that are put into the guest.
    pub files: Files,
    pub limits: Limits,
    pub root: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    pub sha256: String,
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_base64: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    pub count: u64,
    pub bytes: u64,
}

/// The limits that hold for the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    pub memory: u64,
    /// The time limit in seconds; null if there is none.
    pub timeout_s: Option<f64>,
    pub output: u64,
    pub pids: u32,
    /// The limit on bytes of standard input; null if there is none.
    pub stdin: Option<u64>,
}

/// The resources that the process that ran the guest used, as its parent measured them. They hold
/// even if that process was taken over; all else in an [`End`] is what that process reported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    pub wall_ms: f64,
    /// Processor time, including that of the guest.
    pub cpu_ms: f64,
    /// Its exit code, or 128 and the signal that ended it.
    pub exit: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct End {
    pub run: u64,
    pub process: Usage,
    pub status: Status,
    /// The state of the session that it is a cell of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    pub exit_code: Option<u8>,
    pub signal: Option<u8>,
    /// The failure of the sandbox, not of the program.
    pub error: Option<String>,
    pub stdout_bytes: Bytes,
    pub stderr_bytes: Bytes,
    /// The files that were fetched.
    pub files: Files,
    pub timings_ms: Timings,
    pub path: Option<Path>,
    pub template: Option<String>,
    pub host: Option<Host>,
    pub kvm_mode: Option<KvmMode>,
    pub confinement: Vec<String>,
    pub memory: Memory,
    pub unusual: Unusual,
    /// The events that the guest's kernel reported, which are advisory.
    pub events: Vec<GuestEvent>,
    /// The number of events that were left out here.
    pub events_omitted: usize,
}

impl Code {
    /// Describes code by its hash and size. With `keep`, the code itself goes into the log too,
    /// unless it is over 1 MiB.
    pub fn new(code: &[u8], keep: bool) -> Self {
        let kept = keep && code.len() <= KEPT_CODE_MAX;
        let text = str::from_utf8(code).ok();
        Self {
            sha256: hex(&Sha256::digest(code)),
            bytes: code.len() as u64,
            content: text.filter(|_| kept).map(str::to_string),
            content_base64: (kept && text.is_none()).then(|| STANDARD.encode(code)),
        }
    }
}

impl From<&limits::Limits> for Limits {
    fn from(limits: &limits::Limits) -> Self {
        Self {
            memory: limits.memory,
            timeout_s: limits.timeout.map(|timeout| timeout.as_secs_f64()),
            output: limits.max_output,
            pids: limits.pids,
            stdin: (limits.input < u64::MAX).then_some(limits.input),
        }
    }
}

impl Usage {
    /// Returns what was used of which there was no process, or none that was measured, for so long.
    pub fn unknown(wall: Duration) -> Self {
        Self {
            wall_ms: wall.as_micros() as f64 / 1000.0,
            cpu_ms: 0.0,
            exit: EXIT_OURS.into(),
        }
    }

    /// Returns what a cell used, which has no process of its own but may have an exit code.
    pub fn of_cell(wall: Duration, processor_time: Duration, exit_code: Option<u8>) -> Self {
        let unknown = Self::unknown(wall);
        Self {
            cpu_ms: processor_time.as_micros() as f64 / 1000.0,
            exit: exit_code.map_or(unknown.exit, i32::from),
            ..unknown
        }
    }
}

impl From<&LimitExceeded> for Refusal {
    fn from(excess: &LimitExceeded) -> Self {
        Self {
            what: excess.what.into(),
            asked: Some(shortened(&excess.asked)),
            allowed: excess.allowed.clone(),
            retry_after_s: None,
        }
    }
}

impl End {
    pub fn new(run: u64, record: &Record, process: Usage) -> Self {
        let events = record.events.iter().take(COUNT_MAX);
        Self {
            run,
            process,
            status: record.status,
            state: record.state,
            exit_code: record.exit_code,
            signal: record.signal,
            error: record.error.as_ref().map(|error| shortened(&error.message)),
            stdout_bytes: record.stdout_bytes,
            stderr_bytes: record.stderr_bytes,
            files: Files {
                count: record.files_count,
                bytes: record
                    .files
                    .iter()
                    .fold(0, |sum, file| sum.saturating_add(file.size)),
            },
            timings_ms: record.timings_ms,
            path: record.path,
            template: record.template.as_deref().map(shortened),
            host: record.host,
            kvm_mode: record.kvm_mode,
            confinement: record
                .confinement
                .iter()
                .take(COUNT_MAX)
                .map(|layer| shortened(layer))
                .collect(),
            memory: record.memory,
            unusual: record.unusual,
            events: events
                .map(|event| GuestEvent {
                    what: shortened(&event.what),
                    ..event.clone()
                })
                .collect(),
            events_omitted: record.events.len().saturating_sub(COUNT_MAX),
        }
    }
}

/// Returns the names of variables, which are `NAME=VALUE`.
pub fn names<'a>(variables: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    /// Upper bound on the bytes of a name.
    const LENGTH: usize = 100;
    let names = variables.into_iter().take(COUNT_MAX).map(name);
    names
        .map(|name| String::from_utf8_lossy(&name[..name.len().min(LENGTH)]).into_owned())
        .collect()
}

pub fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_kept_only_if_that_is_wanted() {
        let print = Code::new(b"print()", true);
        assert_eq!(print.content.as_deref(), Some("print()"));
        assert_eq!(print.bytes, 7);
        assert_eq!(
            Code::new(b"\xff", true).content_base64.as_deref(),
            Some("/w==")
        );
        for code in [
            Code::new(b"print()", false),
            Code::new(&vec![b' '; KEPT_CODE_MAX + 1], true),
        ] {
            assert_eq!((code.content, code.content_base64), (None, None));
        }
    }
}
