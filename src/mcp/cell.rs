//! A cell that a client has run in a session.

use crate::audit::Usage;
use crate::error::Error;
use crate::log::say;
use crate::mcp::ended::{Ended, in_words};
use crate::mcp::session_files::{fetch, put};
use crate::mcp::sessions::Opened;
use crate::mcp::tool::arguments::File;
use crate::mcp::workspace::Workspace;
use crate::process::processor_time;
use crate::record::{Record, State};
use crate::run::record_of::{self, add_files};
use crate::session::protocol::{Message, Request};
use crate::session::{Client, Kept, Place};
use anyhow::{Result, bail};
use nix::unistd::write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What a client asks for.
pub struct Asked {
    /// The name of the session, as the client knows it.
    pub session: String,
    pub request: Request,
    /// Bytes of memory that the session has.
    pub memory: u64,
    pub files: Vec<File>,
    /// For the files that are fetched.
    pub workspace: Workspace,
}

/// Puts the files into the session, has it run the cell, and fetches files; returns its end. What it prints is
/// written to `output` too, as far as that takes it at once.
pub fn run(place: &Place, opened: Opened, asked: Asked, output: Option<OwnedFd>) -> Ended {
    let Opened {
        mut client,
        is_new,
        name,
    } = opened;
    let began = Instant::now();
    let before = processor_time(client.process());
    let mut kept = Kept::default();
    let followed = put(&mut client, &asked.files, asked.memory)
        .and_then(|()| follow(&mut client, &asked.request, &mut kept, output));
    let used = processor_time(client.process()).saturating_sub(before);
    let is_told = followed.is_ok();
    let (mut record, error) = ended(followed, asked.memory, began.elapsed());
    if is_told {
        record = kept.in_record(record);
        let fetched = fetch(place, &name, &asked.files, asked.workspace.path());
        match fetched {
            Ok(fetched) => add_files(&mut record, fetched),
            Err(error) => say(&format!("{error:#}")),
        }
    } else if client.ask(&Request::Describe {}).is_ok() {
        // It was only refused.
        record.state = Some(State::Kept);
    }
    record.session = Some(asked.session);
    if is_new && record.state_reason.is_none() {
        record.state_reason = Some("the session was started with this call".into());
    }
    let exit = record.exit_code.map_or(125, i32::from);
    record.error = error.map(in_words);
    let usage = usage(began, used, exit);
    Ended::of_cell(record, is_told, usage, Some(asked.workspace))
}

/// Has the session run the cell; returns its record and what went wrong.
fn follow(
    client: &mut Client,
    request: &Request,
    kept: &mut Kept,
    output: Option<OwnedFd>,
) -> Result<(Record, Option<Error>)> {
    client.send(request)?;
    loop {
        match client.receive()? {
            Message::Output(piece) | Message::Background(piece) => {
                let bytes = kept.add(piece)?;
                if let Some(output) = &output {
                    // Nothing depends on whether it arrives.
                    write(output, bytes).unwrap_or_default();
                }
            }
            Message::Ended { record, error, .. } => return Ok((*record, error)),
            Message::Refused { error } => return Err(error.into()),
            Message::Began { .. } => {}
            other => bail!("the session answered {other:?}"),
        }
    }
}

fn ended(
    followed: Result<(Record, Option<Error>)>,
    memory: u64,
    elapsed: Duration,
) -> (Record, Option<Error>) {
    followed.unwrap_or_else(|error| {
        let (mut record, error) = record_of::failure(&error, memory, elapsed);
        record.state = Some(State::Lost);
        (record, error)
    })
}

fn usage(began: Instant, used: Duration, exit: i32) -> Usage {
    Usage {
        wall_ms: began.elapsed().as_micros() as f64 / 1000.0,
        cpu_ms: used.as_micros() as f64 / 1000.0,
        exit,
    }
}
