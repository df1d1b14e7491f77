//! A cell or command on its way: what comes of it, and what it is given.

use crate::cli::exit_code::{self, EXIT_SIGNALED};
use crate::cli::session_input::Input;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::record::Record;
use crate::session::protocol::{Message, Piece, Request};
use crate::session::{CapturedOutput, Client, bytes_of};
use crate::signals::{Received, Signals};
use crate::terminal::{Modes, window_size};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::os::fd::AsFd;

/// A cell or command on its way.
pub struct Cell {
    pub client: Client,
    signals: Signals,
    /// Its number, once it runs.
    number: Option<u64>,
    is_interrupted: bool,
    /// Whether standard output is in the middle of a line.
    pub is_in_line: bool,
    /// The output, if it is kept.
    pub kept: Option<CapturedOutput>,
    /// The standard input of a command.
    input: Option<Input>,
    /// The modes of this process's terminal, if it has that.
    modes: Option<Modes>,
}

/// How following it ended.
pub enum Followed {
    Ended(Box<Record>, Option<Error>),
    /// This process is to exit with this code.
    Left(u8),
}

impl Cell {
    pub fn new(client: Client, input: Option<Input>) -> Result<Self> {
        Ok(Self {
            client,
            signals: Signals::watch()?,
            number: None,
            is_interrupted: false,
            is_in_line: false,
            kept: None,
            input,
            modes: None,
        })
    }

    /// Shows it on the terminal of this process, which has these modes.
    pub fn shown_on(mut self, modes: Modes) -> Self {
        self.modes = Some(modes);
        self
    }

    /// Passes on the output until it has ended.
    pub fn follow(&mut self) -> Result<Followed> {
        loop {
            if let Some(code) = self.wait()? {
                return Ok(Followed::Left(code));
            }
            match self.client.receive()? {
                Message::Began { cell } => {
                    self.number = Some(cell);
                    if self.is_interrupted {
                        self.client.send(&Request::Interrupt { cell: Some(cell) })?;
                    }
                }
                Message::Output(piece) | Message::Background(piece) => {
                    if !self.pass_on(piece)? {
                        return Ok(Followed::Left(exit_code::of_outcome(
                            &Outcome::OutputClosed,
                        )));
                    }
                }
                Message::Ended { record, error, .. } => return Ok(Followed::Ended(record, error)),
                Message::Refused { error } => return Err(error.into()),
                Message::Taken { bytes } => {
                    if let Some(input) = &mut self.input {
                        input.taken(bytes);
                    }
                }
                // The answer to an interrupt of ours.
                Message::Interrupted { .. } => {}
                other => return Err(self.client.unexpected(&other)),
            }
        }
    }

    /// Waits for a message. A signal interrupts the cell; another one, or one that is not from a terminal's
    /// Ctrl-C, ends this process, whose exit code is returned.
    fn wait(&mut self) -> Result<Option<u8>> {
        while !self.client.has_more() {
            let mut fds = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.client.as_fd(), PollFlags::POLLIN),
            ];
            let input = self.input.as_ref().filter(|input| input.has_room());
            fds.extend(input.map(|input| PollFd::new(input.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for a session")?,
            };
            let is_ready = |at: usize| {
                let events = fds.get(at).and_then(PollFd::revents);
                events.is_some_and(|events| !events.is_empty())
            };
            let (speaks, has_input) = (is_ready(1), is_ready(2));
            if has_input
                && let Some(input) = &mut self.input
                && let Some(request) = input.next()?
            {
                self.client.send(&request)?;
            }
            if let Some(received) = self.signals.take()?
                && let Some(code) = self.obey(received)?
            {
                return Ok(Some(code));
            }
            if speaks {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Passes a signal on. Returns the exit code if this process is to end.
    fn obey(&mut self, received: Received) -> Result<Option<u8>> {
        if received.signal == Signal::SIGWINCH
            && self.modes.is_some()
            && let Ok(size) = window_size()
        {
            self.client.send(&Request::Resize(size.into()))?;
        }
        if !received.asks_to_stop() {
            return Ok(None);
        }
        // What is typed at a terminal that it has is no signal to this process.
        if received.signal != Signal::SIGINT || self.is_interrupted || self.modes.is_some() {
            return Ok(Some(EXIT_SIGNALED + received.signal as u8));
        }
        self.is_interrupted = true;
        if let Some(cell) = self.number {
            self.client.send(&Request::Interrupt { cell: Some(cell) })?;
        }
        Ok(None)
    }

    /// Writes output, or keeps it. Returns whether there still is a reader.
    fn pass_on(&mut self, piece: Piece) -> Result<bool> {
        if let Some(kept) = &mut self.kept {
            kept.add(piece)?;
            return Ok(true);
        }
        let is_stdout = piece.stream == "stdout";
        let bytes = bytes_of(piece.data, piece.encoding)?;
        let written = if is_stdout {
            self.is_in_line = bytes.last() != Some(&b'\n');
            if let Some(modes) = &mut self.modes {
                modes.read(&bytes);
            }
            stdout().write_all(&bytes).and_then(|()| stdout().flush())
        } else {
            stderr().write_all(&bytes)
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            result => result.map(|()| true).context("passing on output"),
        }
    }
}
