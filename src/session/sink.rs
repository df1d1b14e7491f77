//! Where an output stream goes, up to its limit.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor, and how much of the program's output went there.
pub struct Sink {
    fd: OwnedFd,
    limit: u64,
    totals: Totals,
}

/// Bytes of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub delivered: u64,
    /// What the guest sent, dropped or not.
    pub total: u64,
}

impl Sink {
    /// Delivers at most `limit` bytes to the stream, through a descriptor of its own: it can be
    /// closed without closing the process's.
    pub fn new(stream: impl AsFd, limit: u64) -> Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned();
        Ok(Self {
            fd: fd.context("duplicating a standard stream")?,
            limit,
            totals: Totals::default(),
        })
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes what the limit allows, drops and counts the rest. Blocks while the reader is slow,
    /// until `stopped`. The error: nobody can read this any more.
    pub fn deliver(&mut self, bytes: &[u8], stopped: impl Fn() -> bool) -> Result<(), Errno> {
        self.totals.total += bytes.len() as u64;
        let allowed = self.limit - self.totals.delivered;
        let mut rest = &bytes[..bytes.len().min(allowed.try_into().unwrap_or(usize::MAX))];
        while !rest.is_empty() && !stopped() {
            match write(&self.fd, rest) {
                Ok(count) => {
                    self.totals.delivered += count as u64;
                    rest = &rest[count..];
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait()?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// The descriptor may be non-blocking: whoever gave it to us shares that flag.
    fn wait(&self) -> Result<(), Errno> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn through_a_sink(limit: u64, pieces: &[&[u8]]) -> (Vec<u8>, Totals) {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut sink = Sink::new(&writer, limit).unwrap();
        drop(writer);
        for piece in pieces {
            sink.deliver(piece, || false).unwrap();
        }
        let totals = sink.totals();
        drop(sink);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        (bytes, totals)
    }

    #[test]
    fn output_is_cut_at_exactly_the_limit_and_all_of_it_counted() {
        let (bytes, totals) = through_a_sink(5, &[b"abc", b"def", b"ghi"]);
        assert_eq!(bytes, b"abcde");
        let expected = Totals {
            delivered: 5,
            total: 9,
        };
        assert_eq!(totals, expected);
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_not_a_signal() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut sink = Sink::new(&writer, 5).unwrap();
        assert_eq!(sink.deliver(b"abc", || false), Err(Errno::EPIPE));
    }
}
