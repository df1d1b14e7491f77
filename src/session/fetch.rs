//! Files out of a session, and a process that fetches them for one that has threads: what takes apart the guest's
//! stream is forked, which only a process without threads may do.

use crate::error::Error;
use crate::files::{Destination, Fetched, Get, Unpacker, destinations};
use crate::limits::{ConfineLevel, Limits};
use crate::run::record_of::explained;
use crate::session::client::Client;
use crate::session::protocol::{Format, Request};
use crate::session::socket_directory::Place;
use crate::session::transfer::Transfer;
use anyhow::{Context, Result};
use guest::WORKDIR;
use serde::{Deserialize, Serialize};
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;

/// The subcommand that makes this program the process that fetches files.
pub const FETCH_VERB: &str = "fetch-files";

/// The request to that process, on its standard input.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fetch {
    /// The directory of the session's socket.
    pub directory: PathBuf,
    pub session: String,
    pub gets: Vec<Get>,
    pub limits: Limits,
}

/// The answer of that process, on its standard output.
pub type FetchResult = Result<Fetched, Error>;

/// Fetches what is asked for on standard input, and tells on standard output what came of it.
pub fn serve_fetch() -> Result<()> {
    let asked: Fetch = serde_json::from_reader(stdin()).context("reading what is to be fetched")?;
    let told: FetchResult = match asked.carry_out() {
        Ok(fetched) => Ok(fetched),
        Err(error) => Err(explained(&error).map_err(|_| error)?),
    };
    let told = serde_json::to_vec(&told).context("encoding what was fetched")?;
    stdout()
        .write_all(&told)
        .context("telling what was fetched")
}

impl Fetch {
    fn carry_out(&self) -> Result<Fetched> {
        let mut client = Client::connect(&Place::at(self.directory.clone()), &self.session)?;
        let found = destinations(&self.gets, WORKDIR.as_bytes(), false)?;
        let (fetched, received) = fetch(&mut client, &found, &self.limits, (None, false))?;
        match fetched.failure {
            Some(_) => Ok(fetched),
            None => received.map(|()| fetched),
        }
    }
}

/// Fetches files from a session, as this user; `force` replaces what is there. Returns what was fetched, and what
/// was wrong with the session's part in it. It extracts in a process of its own, since a guest may send anything.
pub fn fetch(
    client: &mut Client,
    found: &[Destination],
    limits: &Limits,
    (user, force): (Option<String>, bool),
) -> Result<(Fetched, Result<()>)> {
    let (unpacker, mut stream) = Unpacker::start(found, limits, force, ConfineLevel::Auto)?;
    let paths = found.iter().map(Destination::guest_text);
    client.send(&Request::Get {
        format: Format::Records,
        paths: paths.collect::<Result<_, _>>()?,
        user,
        timeout_s: limits.timeout.map(|timeout| timeout.as_secs_f64()),
    })?;
    let received = Transfer::new(client).receive(&mut stream);
    drop(stream);
    Ok((unpacker.finish()?, received))
}
