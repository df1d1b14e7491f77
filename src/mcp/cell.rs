//! A cell that a client has run in a session.

use crate::audit::Usage;
use crate::error::Error;
use crate::mcp::ended::{Ended, in_words};
use crate::mcp::sessions::Opened;
use crate::process::processor_time;
use crate::record::{Record, State};
use crate::run::record_of;
use crate::session::Kept;
use crate::session::protocol::{Message, Request};
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
}

/// Has the session run the cell; returns its end. What it prints is written to `output` too, as far as that
/// takes it at once.
pub fn run(opened: Opened, asked: &Asked, output: Option<OwnedFd>) -> Ended {
    let Opened { mut client, is_new } = opened;
    let began = Instant::now();
    let before = processor_time(client.process());
    let mut kept = Kept::default();
    let followed = client.send(&asked.request).and_then(|()| {
        loop {
            match client.receive()? {
                Message::Output(piece) | Message::Background(piece) => {
                    let bytes = kept.add(piece)?;
                    if let Some(output) = &output {
                        // Nothing depends on whether it arrives.
                        write(output, bytes).unwrap_or_default();
                    }
                }
                Message::Ended { record, error, .. } => break Ok((*record, error)),
                Message::Refused { error } => return Err(error.into()),
                Message::Began { .. } => {}
                other => bail!("the session answered {other:?}"),
            }
        }
    });
    let used = processor_time(client.process()).saturating_sub(before);
    let is_told = followed.is_ok();
    let (mut record, error) = ended(followed, asked.memory, began.elapsed());
    if is_told {
        record = kept.in_record(record);
    }
    record.session = Some(asked.session.clone());
    if is_new && record.state_reason.is_none() {
        record.state_reason = Some("the session was started with this call".into());
    }
    let exit = record.exit_code.map_or(125, i32::from);
    record.error = error.map(in_words);
    Ended::of_cell(record, is_told, usage(began, used, exit))
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
