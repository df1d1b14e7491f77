//! A cell that a client has run in a session.

use crate::audit::Usage;
use crate::error::{Error, Kind};
use crate::files::{Get, Put};
use crate::limits::Limits;
use crate::log::say;
use crate::mcp::run_end::Ended;
use crate::mcp::session_files::{Fetcher, put};
use crate::mcp::sessions::{ANSWER_TIMEOUT, Opened};
use crate::mcp::tool::remedies::in_words;
use crate::mcp::workspace::Workspace;
use crate::process::processor_time;
use crate::record::{Record, State, Status};
use crate::run::record_of::{self, add_files};
use crate::session::protocol::{Message, Request};
use crate::session::{CapturedOutput, Client, Fetch};
use anyhow::Result;
use nix::unistd::write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The cell that a client asks for.
pub struct Asked {
    /// The name of the session, as the client knows it.
    pub session: String,
    pub request: Request,
    pub limits: Limits,
    pub puts: Vec<Put>,
    pub gets: Vec<Get>,
    /// The directory for the files that are fetched.
    pub workspace: Workspace,
}

impl Asked {
    /// Returns whether nothing else may run in the session meanwhile: between the call's files and its cell.
    pub fn is_alone(&self) -> bool {
        !(self.puts.is_empty() && self.gets.is_empty())
    }
}

/// Puts the files into the session, has it run the cell, and fetches files; returns its end. What it prints is
/// written to `output` too, as far as that takes it at once.
pub fn run(
    opened: Opened,
    asked: Asked,
    output: Option<OwnedFd>,
    (directory, fetcher): (&Path, &Fetcher),
) -> Ended {
    let Opened {
        mut client,
        is_new,
        name,
        lock,
        charged,
        ..
    } = opened;
    let began = Instant::now();
    let process = client.process();
    let mut kept = CapturedOutput::default();
    let followed = put(&mut client, &asked.puts, &asked.limits)
        .and_then(|()| follow(&mut client, &asked.request, &mut kept, output));
    let is_told = followed.is_ok();
    let (mut record, mut error) = ended(followed, asked.limits.memory, began.elapsed());
    let mut fetching = Duration::ZERO;
    if is_told {
        record = kept.in_record(record);
        let wanted = Fetch {
            directory: directory.into(),
            session: name,
            gets: asked.gets,
            limits: asked.limits,
        };
        let undelivered = fetched(&wanted, fetcher, &mut record, &mut fetching);
        if undelivered.is_some() {
            // As of a run, whose limits and crashes say more.
            if matches!(record.status, Status::Exited | Status::Signaled) {
                record.status = Status::Error;
                error = undelivered;
            }
            if !is_there(client) {
                record.state = Some(State::Lost);
            }
        }
    } else if is_there(client) {
        // It was only refused.
        record.state = Some(State::Kept);
    }
    let used = uncharged(&charged, processor_time(process)) + fetching;
    record.session = Some(asked.session);
    if is_new && record.state_reason.is_none() {
        record.state_reason = Some("the session was started with this call".into());
    }
    if let Some(lock) = lock {
        lock.tell(&mut record);
    }
    record.error = error.map(in_words);
    let usage = Usage::of_cell(began.elapsed(), used, record.exit_code);
    Ended::of_cell(record, is_told, usage, Some(asked.workspace))
}

/// Fetches what is wanted, and adds it to the record; returns why the cell's own end does not count, if that is so.
fn fetched(
    wanted: &Fetch,
    fetcher: &Fetcher,
    record: &mut Record,
    used: &mut Duration,
) -> Option<Error> {
    if wanted.gets.is_empty() || record.state == Some(State::Lost) {
        return None;
    }
    match fetcher.fetch(wanted) {
        Ok((Ok(fetched), time)) => {
            *used = time;
            let undelivered = fetched.undelivered(record.exit_code == Some(0));
            add_files(record, fetched);
            undelivered
        }
        Ok((Err(error), _)) if matches!(error.kind, Kind::File | Kind::Delivery) => Some(error),
        Ok((Err(error), _)) => Some(not_fetched(&error.into())),
        Err(error) => Some(not_fetched(&error)),
    }
}

/// Tells the server's log why files could not be fetched, and returns what its client is told.
fn not_fetched(error: &anyhow::Error) -> Error {
    say(&format!("{error:#}"));
    Error::new(
        Kind::Delivery,
        "the server failed to fetch the files",
        "call again; the server's log says why",
    )
}

/// Returns how much of a session's processor time no call has answered for yet, which this one does: what earlier
/// ones left running works between calls.
fn uncharged(charged: &Mutex<Duration>, time: Duration) -> Duration {
    let mut charged = charged.lock().unwrap_or_else(PoisonError::into_inner);
    // None is known of one that has ended.
    let used = time.saturating_sub(*charged);
    *charged = time.max(*charged);
    used
}

/// Returns whether a session that did not run a cell is there still.
fn is_there(client: Client) -> bool {
    let client = client.with_timeout(ANSWER_TIMEOUT);
    client.is_ok_and(|mut client| client.ask(&Request::Describe {}).is_ok())
}

/// Has the session run the cell; returns its record and what went wrong.
fn follow(
    client: &mut Client,
    request: &Request,
    kept: &mut CapturedOutput,
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
            other => return Err(client.unexpected(&other)),
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
