//! Writes the record of a run where it was asked for.

use crate::cli::exit_code;
use crate::cli::remedies::words;
use crate::error::{Error, Kind};
use crate::json::write_line;
use crate::outcome::Outcome;
use crate::record::{Failure, Record};
use crate::run::advice::advice;
use crate::signals::Signals;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use std::io::{self, BufWriter, Write, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The destination of a record.
pub struct Writer(OwnedFd);

impl Writer {
    /// Opens a writer to the descriptor with this number, or else to standard output with `json`.
    /// Returns `None` if no record is wanted.
    pub fn open(json: bool, descriptor: Option<RawFd>) -> Result<Option<Self>> {
        match descriptor {
            Some(number) => Self::new(writable(number)?).map(Some),
            None if json => Self::new(stdout()).map(Some),
            None => Ok(None),
        }
    }

    /// Makes a writer to this stream.
    pub fn new(stream: impl AsFd) -> Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned();
        Ok(Self(fd.context("duplicating a descriptor")?))
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Writes the record in one line. Returns the exit code if nobody reads it. `signals` are those
    /// that ask us to stop, if they are watched.
    pub fn write(self, record: &Record, signals: Option<&Signals>) -> Result<Option<u8>> {
        let pieces = Pieces {
            fd: self.0.as_fd(),
            signals,
        };
        // The record is never one string, since it may hold a lot of output.
        let mut writer = BufWriter::new(pieces);
        let written = write_line(&mut writer, record)
            .map_err(io::Error::from)
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| writer.flush());
        // If it were dropped, it would try once more to write the rest.
        drop(writer.into_parts());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Some(exit_code::of_outcome(&Outcome::OutputClosed)))
            }
            Err(error) => Err(Error::new(
                Kind::Delivery,
                format!("the record cannot be written: {error}"),
                "free space there, or send it elsewhere",
            ))?,
            Ok(()) => Ok(None),
        }
    }
}

struct Pieces<'a> {
    fd: BorrowedFd<'a>,
    signals: Option<&'a Signals>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// A pipe that takes anything takes this many bytes at once: pipe(7).
        const PIECE: usize = libc::PIPE_BUF;
        if let Some(signals) = self.signals {
            signals.until_writable(self.fd).map_err(io::Error::other)?;
        }
        match write(self.fd, &bytes[..bytes.len().min(PIECE)]) {
            Err(Errno::EAGAIN) => {
                poll(
                    &mut [PollFd::new(self.fd, PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                )?;
                Err(Errno::EINTR)?
            }
            result => Ok(result?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the descriptor with this number, if the process that started us opened it for writing.
fn writable(number: RawFd) -> Result<BorrowedFd<'static>, Error> {
    let unusable = |what: &str| {
        Error::new(
            Kind::Request,
            format!("descriptor {number}, where the record is to go, is not open{what}"),
            format!(
                "open it for this command: sandbox run --json-status-fd {number} … {number}>FILE"
            ),
        )
    };
    if number < 0 {
        return Err(unusable(""));
    }
    // SAFETY: nothing has been opened or closed since this process began, so it stays as it is
    // until it is duplicated.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|_: Errno| unusable(""))?;
    match OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Err(unusable(" for writing")),
        _ => Ok(fd),
    }
}

/// Puts the error and the advice into the record, in the words of the command line.
pub fn in_words((mut record, error): (Record, Option<Error>)) -> Record {
    record.error = error.map(|error| Failure {
        remedy: words(&error.remedy),
        message: error.message,
    });
    record.advice = advice(&record).iter().map(words).collect();
    record
}
