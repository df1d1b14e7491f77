//! What a command in a session gets on its standard input.

use crate::error::{Error, Kind};
use crate::record::Encoding;
use crate::session::protocol::Request;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::CHANNEL_WINDOW;
use nix::errno::Errno;
use nix::unistd::read;
use std::fs::File;
use std::io::{self, ErrorKind, stdin};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The most bytes of one request.
const PIECE: usize = 64 << 10;

/// A file on its way to a command. No more of it is under way than a session takes at once, so that an
/// interrupt gets through.
pub struct Input {
    file: OwnedFd,
    under_way: usize,
    has_ended: bool,
}

impl Input {
    /// Opens a file, or standard input (`-`).
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            let own = stdin().as_fd().try_clone_to_owned();
            return Ok(Self::of(own.context("duplicating standard input")?));
        }
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Self::of(file.into()))
    }

    pub fn of(file: OwnedFd) -> Self {
        Self {
            file,
            under_way: 0,
            has_ended: false,
        }
    }

    /// Returns whether more of it can be sent.
    pub fn has_room(&self) -> bool {
        !self.has_ended && self.under_way < CHANNEL_WINDOW
    }

    /// Reads a piece; returns the request that sends it, or tells that it was the last.
    pub fn next(&mut self) -> Result<Option<Request>> {
        let mut bytes = vec![0; PIECE.min(CHANNEL_WINDOW - self.under_way)];
        let count = match read(&self.file, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            // A terminal that has hung up.
            Err(Errno::EIO) => 0,
            result => result.context("reading the input")?,
        };
        if count == 0 {
            self.has_ended = true;
            return Ok(Some(Request::InputEnd {}));
        }
        self.under_way += count;
        Ok(Some(Request::Input {
            data: STANDARD.encode(&bytes[..count]),
            encoding: Encoding::Base64,
        }))
    }

    /// Notes that the command has taken so many bytes.
    pub fn taken(&mut self, bytes: usize) {
        self.under_way = self.under_way.saturating_sub(bytes);
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Says why a file that was named cannot be read.
pub fn unreadable(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            Kind::NoProgram,
            format!("there is no file {}", path.display()),
            "check the path",
        ),
        _ => Error::new(
            Kind::BadProgram,
            format!("{} cannot be read: {error}", path.display()),
            "check its permissions",
        ),
    }
}
