//! The log of a session, as its process sees it: another process writes it, and says what it has written.

use crate::audit::{Event, Files, Session, names};
use crate::error::{Error, Kind};
use crate::json::to_line;
use crate::record::{Anchor, Record};
use crate::session::protocol::{Purpose, Spec};
use anyhow::{Context, Result};
use guest::Cell;
use guest::channel::Command;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long an entry may take to be written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A message from a session to whoever writes its log.
#[derive(Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A cell is to begin, once that is written.
    Begins { cell: u64, asked: Asked },
    /// A cell has ended.
    Ended { cell: u64, record: Box<Record> },
    /// The machine is to be saved, once that is written.
    Saves { purpose: Purpose },
    /// The session is over. This is the last entry, and has no answer.
    Over { why: String },
}

/// A cell, as the log has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    pub language: String,
    /// The code of a cell, or the words of a command.
    pub code: String,
    /// The number of a command's arguments, and its variables.
    pub arguments: usize,
    pub environment: Vec<String>,
    pub timeout_s: Option<f64>,
}

impl Asked {
    pub fn of_cell(language: &str, cell: &Cell, timeout: Option<Duration>) -> Self {
        Self {
            language: language.into(),
            code: String::from_utf8_lossy(&cell.code).into_owned(),
            arguments: 0,
            environment: Vec::new(),
            timeout_s: timeout.map(|timeout| timeout.as_secs_f64()),
        }
    }

    /// Returns what the log has of a command, beside the variables that all of the session's have.
    pub fn of_command(command: &Command, of_all: &[Vec<u8>], timeout: Option<Duration>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let own = command.env.iter().filter(|it| !of_all.contains(it));
        Self {
            language: "command".into(),
            code: text(&command.argv.join(&b' ')),
            arguments: command.argv.len().saturating_sub(1),
            environment: own.map(|variable| text(variable)).collect(),
            timeout_s: timeout.map(|timeout| timeout.as_secs_f64()),
        }
    }
}

/// The answer to an entry.
pub type Answer = Result<Anchor, Error>;

/// The way from a session to its log: a socket, but read and written as a file, with the system calls that a
/// session keeps.
pub struct Journal(File);

impl Journal {
    pub fn new(socket: OwnedFd) -> Result<Self> {
        let doing = "preparing the way to the log";
        let socket = UnixStream::from(socket);
        let timeout = Some(WRITE_TIMEOUT);
        socket.set_read_timeout(timeout).context(doing)?;
        socket.set_write_timeout(timeout).context(doing)?;
        Ok(Self(OwnedFd::from(socket).into()))
    }

    /// Has an entry written; returns its position when it is there.
    pub fn write(&self, entry: &Entry) -> Answer {
        let mut answer = String::new();
        let asked = self.send(entry).and_then(|()| {
            // There is one answer to each, so nothing is read that comes after it.
            let read = BufReader::new(&self.0).read_line(&mut answer);
            read.context("reading the answer of whoever writes the log")
        });
        match asked.map(|_| serde_json::from_str(&answer)) {
            Ok(Ok(answer)) => answer,
            _ => Err(unwritten("whoever writes it does not answer")),
        }
    }

    /// Tells that the session is over.
    pub fn end(&self, why: &str) {
        // Without it, the end is written without a reason.
        self.send(&Entry::Over { why: why.into() })
            .unwrap_or_default();
    }

    fn send(&self, entry: &Entry) -> Result<()> {
        let mut line = to_line(entry).context("encoding an entry")?;
        line.push(b'\n');
        let sent = (&self.0).write_all(&line);
        sent.context("telling what is to be written")
    }
}

/// Returns the entry of a session that begins, into which these files go, by the name that its owner has for
/// it. `from`: what it goes on from, if that is another.
pub fn first_entry(spec: &Spec, name: &str, files: Files, from: Option<String>) -> Event {
    let request = &spec.request;
    Event::Session(Session {
        session: name.into(),
        from,
        environment: names(request.env.iter().map(Vec::as_slice)),
        files,
        limits: (&request.limits).into(),
        root: request.root,
        idle_s: spec.bounds.idle.as_secs_f64(),
        age_s: spec.bounds.age.as_secs_f64(),
    })
}

/// Answers a session's entry.
pub fn answer(mut socket: &UnixStream, answer: &Answer) -> Result<()> {
    let mut line = to_line(answer).context("encoding an answer")?;
    line.push(b'\n');
    // If it has ended meanwhile, that is noticed as its end.
    socket.write_all(&line).unwrap_or_default();
    Ok(())
}

/// Says that an entry could not be written.
pub fn unwritten(why: &str) -> Error {
    Error::new(
        Kind::AuditLog,
        format!("the log of runs cannot be written: {why}"),
        "mend that and start another session: what is not written down does not run",
    )
}
