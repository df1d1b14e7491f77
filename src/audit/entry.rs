//! An entry, and the line that it is.
//!
//! The last member of the object is its hash: the SHA-256 of all of the line that comes before
//! `,"hash"`. Nothing has to be brought into a canonical form to check it.

use crate::policy::LimitExceeded;
use crate::record::{
    Bytes, Event as GuestEvent, Host, KvmMode, Limit, Memory, Path, Record, Status, Timings,
    Unusual,
};
use crate::text::hex;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Bytes of a line at most, with room for the code that it may hold, each byte of it escaped.
pub const LINE_MAX: u64 = 8 << 20;
/// Bytes of code that an entry holds at most.
const CODE_MAX: usize = 1 << 20;
/// Events of the guest's kernel, and layers, that an entry holds at most, and characters of any
/// text: the process that tells them may have been taken over.
const COUNT_MAX: usize = 100;
const TEXT_MAX: usize = 1024;

/// Before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run begins. Its number is that of this entry.
    Start(Start),
    /// A run ran into a limit.
    Limit { run: u64, limit: Limit },
    /// A run has ended.
    End(Box<End>),
    /// A run was refused.
    Refusal(Refusal),
    /// Requests were turned away before anything was known of a run.
    TurnedAway { why: String, times: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What was over its limit, or wrong.
    pub what: String,
    pub asked: Option<String>,
    pub allowed: String,
    /// When it is worth to ask again, if ever.
    pub retry_after_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    pub code: Code,
    pub language: String,
    /// How many.
    pub arguments: usize,
    /// Names of the variables that were set.
    pub environment: Vec<String>,
    /// Of files that are put into the guest.
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

/// That hold for the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    pub memory: u64,
    /// Seconds; null: none.
    pub timeout_s: Option<f64>,
    pub output: u64,
    pub pids: u32,
    /// Bytes of standard input; null: none.
    pub stdin: Option<u64>,
}

/// What the process that ran the guest used, as its parent saw it: also where that process was
/// taken over, and all else in an [`End`] is what it says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Usage {
    pub wall_ms: f64,
    /// Processor time, the guest's included.
    pub cpu_ms: f64,
    /// Its exit code, or 128 and the signal that ended it.
    pub exit: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct End {
    pub run: u64,
    pub process: Usage,
    pub status: Status,
    pub exit_code: Option<u8>,
    pub signal: Option<u8>,
    /// Ours, not the program's.
    pub error: Option<String>,
    pub stdout_bytes: Bytes,
    pub stderr_bytes: Bytes,
    /// Of files that were fetched.
    pub files: Files,
    pub timings_ms: Timings,
    pub path: Option<Path>,
    pub template: Option<String>,
    pub host: Option<Host>,
    pub kvm_mode: Option<KvmMode>,
    pub confinement: Vec<String>,
    pub memory: Memory,
    pub unusual: Unusual,
    /// Advice: the guest's kernel tells them.
    pub events: Vec<GuestEvent>,
    /// More of them than are here.
    pub events_omitted: usize,
}

impl Code {
    /// `keep`: the code itself goes into the log too, unless it is over 1 MiB.
    pub fn new(code: &[u8], keep: bool) -> Self {
        let kept = keep && code.len() <= CODE_MAX;
        let text = str::from_utf8(code).ok();
        Self {
            sha256: hex(&Sha256::digest(code)),
            bytes: code.len() as u64,
            content: text.filter(|_| kept).map(str::to_string),
            content_base64: (kept && text.is_none()).then(|| STANDARD.encode(code)),
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

pub fn shortened(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Bytes between two entries that are none: what a writer left that was killed, with the newline
/// that whoever came next put after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    pub bytes: u64,
    pub sha256: String,
}

impl Torn {
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        }
    }
}

/// What makes an entry a link of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub sequence: u64,
    /// Of the file that it was written to, from 1.
    pub file: u64,
    /// Hash of the entry before, in whatever file that is.
    pub previous: String,
    /// What came before it and is no entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    link: &'a Link,
    time: String,
    client: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}";
const HASH: usize = 64;

/// The line, with its newline, and its hash.
pub fn line(link: &Link, client: &str, event: &Event, now: SystemTime) -> (Vec<u8>, String) {
    let entry = Entry {
        link,
        time: humantime::format_rfc3339_millis(now).to_string(),
        client,
        event,
    };
    let mut line = serde_json::to_vec(&entry).expect("no map in it has keys but text");
    line.pop();
    let hash = hex(&Sha256::digest(&line));
    for piece in [BEFORE_HASH, hash.as_bytes(), AFTER_HASH, b"\n"] {
        line.extend_from_slice(piece);
    }
    (line, hash)
}

/// Of a line without its newline: its place in the chain and its hash. The error: why it is no
/// entry.
pub fn parse(line: &[u8]) -> Result<(Link, String), &'static str> {
    let (hashed, hash) = split(line).ok_or("it is no entry")?;
    if hex(&Sha256::digest(hashed)).as_bytes() != hash {
        return Err("it was changed: its hash does not fit");
    }
    let link = serde_json::from_slice(line).map_err(|_| "it is no entry")?;
    Ok((link, String::from_utf8_lossy(hash).into_owned()))
}

/// What is hashed, and the hash.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(AFTER_HASH)?;
    let (line, hash) = line.split_at_checked(line.len().checked_sub(HASH)?)?;
    Some((line.strip_suffix(BEFORE_HASH)?, hash))
}

/// Whether a line that is no entry is not what a killed writer leaves either: it was once whole.
/// A quote within JSON text is escaped, so the member is there once at most.
pub fn was_whole(line: &[u8]) -> bool {
    let mut places = line.windows(BEFORE_HASH.len());
    places
        .rposition(|window| window == BEFORE_HASH)
        .is_some_and(|start| line.len() - start >= BEFORE_HASH.len() + HASH + AFTER_HASH.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            sequence: 7,
            file: 2,
            previous: GENESIS.into(),
            torn: None,
        }
    }

    fn example() -> Vec<u8> {
        let event = Event::Limit {
            run: 3,
            limit: Limit::Timeout,
        };
        let (mut line, _) = line(&link(), "somebody", &event, SystemTime::UNIX_EPOCH);
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn an_entry_is_one_line_that_says_what_where_and_when() {
        let text = String::from_utf8(example()).unwrap();
        let expected = format!(
            "{{\"sequence\":7,\"file\":2,\"previous\":\"{GENESIS}\",\"time\":\"1970-01-01T00:00:00.000Z\",\
             \"client\":\"somebody\",\"event\":\"limit\",\"run\":3,\"limit\":\"timeout\",\"hash\":\""
        );
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(parse(text.as_bytes()).unwrap().0, link());
    }

    #[test]
    fn no_byte_of_an_entry_can_change() {
        let line = example();
        for position in 0..line.len() {
            for change in [1, 0x20, 0x80, line[position]] {
                let mut changed = line.clone();
                changed[position] ^= change;
                assert!(parse(&changed).is_err(), "{position} {change}");
            }
        }
    }

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
            Code::new(&vec![b' '; CODE_MAX + 1], true),
        ] {
            assert_eq!((code.content, code.content_base64), (None, None));
        }
    }

    #[test]
    fn the_longest_entry_is_under_the_limit() {
        // Each byte of such code becomes six.
        let start = Start {
            code: Code::new(&vec![1; CODE_MAX], true),
            language: "python".into(),
            arguments: 0,
            environment: Vec::new(),
            files: Files::default(),
            limits: Limits {
                memory: 0,
                timeout_s: None,
                output: 0,
                pids: 1,
                stdin: None,
            },
            root: false,
        };
        let (line, _) = line(&link(), "", &Event::Start(start), SystemTime::UNIX_EPOCH);
        assert!((line.len() as u64) < LINE_MAX);
    }
}
