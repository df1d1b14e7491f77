//! Files into a session of a client's before a cell, and out of it afterwards.

use crate::error::Error;
use crate::files::{Excluded, Put, list, read};
use crate::limits::Limits;
use crate::process::{self, OURS};
use crate::session::protocol::{Format, Request};
use crate::session::{Client, FETCH_VERB, Fetch, FetchResult, Transfer};
use anyhow::{Context, Result, bail};
use guest::{FileStream, WORKDIR};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of what the process that fetches files tells.
const TOLD_MAX: u64 = 16 << 20;

/// Puts files into a session.
pub fn put(client: &mut Client, puts: &[Put], limits: &Limits) -> Result<()> {
    if puts.is_empty() {
        return Ok(());
    }
    let listed = list(puts, &Excluded::of(&[])?, WORKDIR.as_bytes())?;
    let files = read(listed, limits.memory).map_err(Error::in_session)?;
    let mut stream = FileStream::new(files);
    client.send(&Request::Put {
        format: Format::Records,
        user: None,
        timeout_s: limits.timeout.map(|timeout| timeout.as_secs_f64()),
    })?;
    Transfer::new(client).send(|room| Ok(stream.take(room)))
}

/// The process that fetches files for a call, which another thread may end.
#[derive(Clone, Default)]
pub struct Fetcher(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Idle,
    Fetches(Child),
    /// Nobody waits for files any more.
    Over,
}

impl Fetcher {
    /// Ends the process, and lets none start.
    pub fn end(&self) {
        match &mut *self.state() {
            // This has no effect on a child that has ended. Whoever waits for it reaps it.
            State::Fetches(child) => child.kill().unwrap_or_default(),
            state => *state = State::Over,
        }
    }

    /// Fetches files; returns what came of it, and the processor time that it took.
    pub fn fetch(&self, asked: &Fetch) -> Result<(FetchResult, Duration)> {
        let (mut stdin, stdout, pid) = self.start()?;
        // It reads all, unless it is ended.
        let sent = serde_json::to_writer(&mut stdin, asked).map_err(Into::into);
        let sent: Result<()> = sent.and_then(|()| stdin.flush().map_err(Into::into));
        drop(stdin);
        let mut told = Vec::new();
        let heard = stdout.take(TOLD_MAX).read_to_end(&mut told);
        let exit = process::ended(pid)?;
        if let State::Fetches(child) = &mut *self.state() {
            child.wait().context("waiting for a process")?;
        }
        sent.context("asking for files")?;
        heard.context("receiving files")?;
        let told = serde_json::from_slice(&told).context("reading what was fetched")?;
        Ok((told, exit.processor_time))
    }

    fn start(&self) -> Result<(ChildStdin, ChildStdout, Pid)> {
        let mut state = self.state();
        if matches!(*state, State::Over) {
            bail!("nobody waits for the files");
        }
        let mut child = process::command(Path::new(OURS))
            .arg(FETCH_VERB)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the process that fetches files")?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let pid = Pid::from_raw(child.id() as i32);
        *state = State::Fetches(child);
        let (stdin, stdout) = streams.context("taking the streams of a process")?;
        Ok((stdin, stdout, pid))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
