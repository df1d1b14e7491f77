//! The messages between a session and whoever asks it: each is a line of JSON.

use crate::audit::Files;
use crate::error::Error;
use crate::limits::Limits;
use crate::record::{Encoding, Record};
use crate::run;
use anyhow::{Context, Result};
use guest::WindowSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

/// A request to a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run a cell, after those that wait already.
    Run {
        code: String,
        /// The context in which it runs, which is made if there is none; absent: the session's own.
        #[serde(default)]
        context: Option<String>,
        /// The language of the context, by its name in the image; absent: the session's own, or what the
        /// context has. Without a name, a context of another language is called as that is: `bash`.
        #[serde(default)]
        language: Option<String>,
        /// The cell's standard input, in base64; absent: nothing.
        #[serde(default)]
        stdin: Option<String>,
        /// The time limit in seconds, instead of the session's own.
        #[serde(default)]
        #[schemars(range(min = 0.001))]
        timeout_s: Option<f64>,
    },
    /// Run a command of the guest's, beside cells and other commands.
    Exec {
        /// Its name, and its arguments.
        #[schemars(length(min = 1))]
        argv: Vec<String>,
        /// Variables of its environment beside the session's.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Its working directory; absent: the session's.
        #[serde(default)]
        workdir: Option<String>,
        /// The name or number of its user; absent: the session's.
        #[serde(default)]
        user: Option<String>,
        /// Whether its standard input comes with `input` requests; else there is none.
        #[serde(default)]
        input: bool,
        /// A terminal for its standard streams, with what is typed there as input.
        #[serde(default)]
        terminal: Option<Terminal>,
        /// The time limit in seconds, as for `run`; a command with a terminal has none of itself.
        #[serde(default)]
        #[schemars(range(min = 0.001))]
        timeout_s: Option<f64>,
    },
    /// Make files in the guest, which come with `input` requests, in place of those that are there.
    Put {
        #[serde(default)]
        format: Format,
        /// The user, as for `exec`.
        #[serde(default)]
        user: Option<String>,
        /// The time limit in seconds, as for `run`.
        #[serde(default)]
        #[schemars(range(min = 0.001))]
        timeout_s: Option<f64>,
    },
    /// Send files of the guest's, as output.
    Get {
        #[serde(default)]
        format: Format,
        /// Absolute paths of files and directories; none for an archive, which has the working directory.
        #[serde(default)]
        paths: Vec<String>,
        /// The user, as for `exec`.
        #[serde(default)]
        user: Option<String>,
        /// The time limit in seconds, as for `run`.
        #[serde(default)]
        #[schemars(range(min = 0.001))]
        timeout_s: Option<f64>,
    },
    /// Give standard input to the command of this connection.
    Input {
        data: String,
        #[serde(default)]
        encoding: Encoding,
    },
    /// End the standard input of the command of this connection.
    InputEnd {},
    /// Set the size of the terminal of this connection's command.
    Resize(Size),
    /// Interrupt the cell or command with this number; without one, the cell that runs.
    Interrupt {
        #[serde(default)]
        cell: Option<u64>,
    },
    /// End the interpreter of a context, and have another in its place.
    Restart {
        /// Absent: the session's own.
        #[serde(default)]
        context: Option<String>,
    },
    /// Save the machine to the file whose descriptor comes with the request (SCM_RIGHTS), and go on.
    Save {
        #[serde(default)]
        purpose: Purpose,
    },
    /// Tell about the session.
    Describe {},
    /// End the session.
    Stop {},
}

/// A message from a session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Message {
    /// The cell or command runs now.
    Began {
        /// Its number in the session.
        cell: u64,
    },
    /// Output of the cell or command, as it comes.
    Output(Piece),
    /// Output that came before the cell began, of what earlier ones left running.
    Background(Piece),
    /// The command has taken so many bytes of its input. No more than 1048576 should be under way, so that
    /// other requests get through.
    Taken {
        bytes: usize,
    },
    /// The cell or command is over.
    Ended {
        cell: u64,
        /// The record, without the output.
        record: Box<Record>,
        /// The failure, with what to do about it.
        #[schemars(with = "Option<Failure>")]
        error: Option<Error>,
    },
    /// The request was not carried out.
    Refused {
        #[schemars(with = "Failure")]
        error: Error,
    },
    Interrupted {
        /// The cell or command that was interrupted, if one was.
        cell: Option<u64>,
    },
    Restarted {},
    /// The machine is in the file, for another session to go on from.
    Saved {
        /// The length of what is there beside the memory.
        bytes: u64,
        /// How long the machine stood still for it.
        paused_ms: f64,
    },
    Described(Description),
    /// The session is over, for this reason.
    Over {
        why: String,
    },
}

/// The purpose for which a machine is saved: a policy may allow one and not the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// A file that stays.
    #[default]
    Checkpoint,
    /// Sessions that go on from there at once.
    Fork,
}

/// The form in which files go over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Records of our own (docs/session-protocol.md).
    #[default]
    Records,
    /// An archive of the guest's tar, of all that is in the working directory.
    Tar,
}

/// The size of a terminal's window, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// The terminal of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    pub rows: u16,
    pub columns: u16,
    /// The variable TERM, which tells what it understands.
    #[serde(default)]
    pub term: Option<String>,
}

impl From<Size> for WindowSize {
    fn from(Size { rows, columns }: Size) -> Self {
        Self { rows, columns }
    }
}

impl From<WindowSize> for Size {
    fn from(WindowSize { rows, columns }: WindowSize) -> Self {
        Self { rows, columns }
    }
}

/// A piece of output.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Piece {
    /// `stdout` or `stderr`.
    pub stream: String,
    pub data: String,
    pub encoding: Encoding,
}

/// A failure, as messages tell it.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it is the schema of the error type")]
struct Failure {
    kind: String,
    message: String,
    /// A word for what to do, with details for some: `{"Do": "in these words"}`.
    remedy: serde_json::Value,
}

/// The description of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Description {
    pub name: String,
    pub pid: u32,
    /// Whether a log is kept of it.
    pub is_logged: bool,
    /// The cell that runs.
    pub cell: Option<u64>,
    /// The number of cells that wait.
    pub waiting: usize,
    /// The contexts beside the session's own.
    pub contexts: Vec<ContextDescription>,
    /// The number of commands that run.
    pub commands: usize,
    /// The number of cells and commands that were run.
    pub cells: u64,
    /// The working directory.
    pub workdir: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds since it began, and since a cell last ended.
    pub age_s: f64,
    pub idle_s: f64,
    /// Seconds until it ends, if nothing is asked for.
    pub left_s: f64,
}

/// The description of a context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextDescription {
    pub name: String,
    /// The name of its language.
    pub language: String,
    /// The cell that runs, and the number of cells that wait.
    pub cell: Option<u64>,
    pub waiting: usize,
}

/// The specification of a session's process, which is the first line on its socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The directory of its socket.
    pub directory: PathBuf,
    pub name: String,
    pub request: run::Request,
    pub bounds: Bounds,
    /// Whether it ends when whoever started it closes the socket over which it was started, without having
    /// let it go.
    pub is_owned: bool,
    /// The process with whose end it ends, if it is to end with one.
    pub parent: Option<i32>,
    /// The log that is to be kept of it, by a process of its own.
    pub log: Option<KeptLog>,
    /// Whether whoever started it writes a log of it, over that socket.
    pub is_logged: bool,
    /// The length of the point that it goes on from, whose file the process was started with.
    pub point: Option<u64>,
}

/// A log, as it is opened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptLog {
    pub path: PathBuf,
    /// The size at which a new file is begun.
    pub rotate: u64,
    /// Whether each entry is waited for until it is on the disk.
    pub sync: bool,
    /// Whether it has the code itself.
    pub code: bool,
    /// The files that go into the guest, for the session's own entry.
    pub files: Files,
    /// The session or checkpoint that the session goes on from, for that entry too.
    pub from: Option<String>,
}

impl Spec {
    /// Waits for what is to be started.
    pub fn hear(socket: &File) -> Result<Self> {
        let mut line = String::new();
        let read = BufReader::new(socket).read_line(&mut line);
        read.context("reading what to start")?;
        serde_json::from_str(&line).context("reading what to start")
    }
}

/// The bounds of a session, beside those of each cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// How long it may be asked nothing.
    pub idle: Duration,
    /// How long it may be there.
    pub age: Duration,
    /// The longest time limit that a cell may ask for, if a policy sets one.
    pub timeout_max: Option<Duration>,
    /// Bytes of a cell's code that a policy allows.
    pub code_max: Option<u64>,
    /// Why a policy allows no commands, if it does not.
    pub no_commands: Option<Error>,
    /// Why it allows them no variables of their own, if it does not.
    pub no_variables: Option<Error>,
    /// Why it allows no files in or out while it runs, if it does not.
    pub no_files: Option<Error>,
    /// Why it allows no sessions that go on from it, if it does not.
    pub no_forks: Option<Error>,
    /// Why it does not allow its machine to be saved, if it does not.
    pub no_checkpoints: Option<Error>,
}

impl Bounds {
    /// Encodes limits and bounds, for a point.
    pub fn encode(&self, limits: &Limits) -> Result<Vec<u8>> {
        serde_json::to_vec(&(limits, self)).context("encoding limits")
    }

    /// Decodes what a point has.
    pub fn decode(bytes: &[u8]) -> Result<(Limits, Self)> {
        serde_json::from_slice(bytes).context("decoding the limits of a session")
    }
}

impl Default for Bounds {
    /// Returns the bounds of a session for which none are given.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(15 * 60),
            age: Duration::from_secs(24 * 3600),
            timeout_max: None,
            code_max: None,
            no_commands: None,
            no_variables: None,
            no_files: None,
            no_forks: None,
            no_checkpoints: None,
        }
    }
}

/// Returns the schema of messages in both directions (JSON Schema 2020-12).
#[cfg(feature = "internals")]
pub fn schema() -> schemars::Schema {
    use crate::record::without_format;
    use schemars::generate::SchemaSettings;
    use schemars::transform::RecursiveTransform;

    #[derive(JsonSchema)]
    #[schemars(untagged)]
    #[allow(dead_code, reason = "it has only a schema")]
    enum Line {
        Request(Request),
        Message(Message),
    }
    let settings = SchemaSettings::draft2020_12();
    let generator = settings.with_transform(RecursiveTransform(without_format));
    generator.into_generator().into_root_schema_for::<Line>()
}
