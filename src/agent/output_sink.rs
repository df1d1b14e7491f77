//! The destination of an output stream, up to its limit.

use crate::agent::output_event::events;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The most bytes that are kept of the end of a stream.
const END_MAX: usize = 1 << 10;

/// A descriptor or a piece of memory, and how much of the program's output went there.
pub struct Sink {
    target: Target,
    limit: u64,
    totals: Totals,
    /// A descriptor that gets a copy of what is delivered.
    copy: Option<OwnedFd>,
    /// The end of what was delivered, if it is wanted.
    end: Option<Vec<u8>>,
}

enum Target {
    Descriptor(OwnedFd),
    Memory(Vec<u8>),
    /// A descriptor that gets events; the name of the stream is in them.
    Events(OwnedFd, &'static str),
}

/// The byte counts of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub delivered: u64,
    /// All bytes that the guest sent, including those that were dropped.
    pub total: u64,
}

impl Sink {
    /// Makes a sink that delivers at most `limit` bytes to the stream. It has a descriptor of its
    /// own, which can be closed without closing that of the process.
    pub fn new(stream: impl AsFd, limit: u64) -> Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned();
        let fd = fd.context("duplicating a standard stream")?;
        Ok(Self::of(Target::Descriptor(fd), limit))
    }

    /// Makes a sink that tells at most `limit` bytes in events, to `target`.
    pub fn events(target: impl AsFd, stream: &'static str, limit: u64) -> Result<Self> {
        let fd = target.as_fd().try_clone_to_owned();
        let fd = fd.context("duplicating a standard stream")?;
        Ok(Self::of(Target::Events(fd, stream), limit))
    }

    /// Makes a sink that keeps at most `limit` bytes in memory.
    pub fn memory(limit: u64) -> Self {
        Self::of(Target::Memory(Vec::new()), limit)
    }

    fn of(target: Target, limit: u64) -> Self {
        Self {
            target,
            limit,
            totals: Totals::default(),
            copy: None,
            end: None,
        }
    }

    /// Writes what is delivered to this stream too. What it does not take at once is not waited for, so
    /// it is to be non-blocking.
    pub fn copied_to(mut self, stream: impl AsFd) -> Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned();
        self.copy = Some(fd.context("duplicating a standard stream")?);
        Ok(self)
    }

    /// Keeps the end of what is delivered too.
    pub fn keep_end(&mut self) {
        self.end = Some(Vec::new());
    }

    /// Returns the last bytes that were delivered, at most [`END_MAX`], if they were to be kept.
    pub fn end(&self) -> &[u8] {
        self.end.as_deref().unwrap_or_default()
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the descriptor, unless the target is memory.
    pub fn descriptor(&self) -> Option<RawFd> {
        match &self.target {
            Target::Descriptor(fd) | Target::Events(fd, _) => Some(fd.as_raw_fd()),
            Target::Memory(_) => None,
        }
    }

    /// Takes the bytes that were kept, if the target is memory.
    pub fn take_kept(&mut self) -> Option<Vec<u8>> {
        match &mut self.target {
            Target::Descriptor(_) | Target::Events(..) => None,
            Target::Memory(kept) => Some(std::mem::take(kept)),
        }
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes as many bytes as the limit allows; drops and counts the rest. Blocks while the reader
    /// is slow, until `stopped` is true; after that, writes only what the reader takes at once. An
    /// error means that no more bytes can be delivered.
    pub fn deliver(&mut self, bytes: &[u8], stopped: impl Fn() -> bool) -> Result<(), Errno> {
        self.totals.total += bytes.len() as u64;
        let allowed = self.limit - self.totals.delivered;
        let piece = &bytes[..bytes.len().min(allowed.try_into().unwrap_or(usize::MAX))];
        if let Some(copy) = &self.copy {
            // Nothing depends on whether it arrives.
            write(copy, piece).unwrap_or_default();
        }
        if let Some(end) = &mut self.end {
            end.extend(&piece[piece.len().saturating_sub(END_MAX)..]);
            end.drain(..end.len().saturating_sub(END_MAX));
        }
        let Target::Events(_, stream) = self.target else {
            self.totals.delivered += self.write(piece, stopped)? as u64;
            return Ok(());
        };
        let lines = events(stream, piece);
        if self.write(&lines, stopped)? == lines.len() {
            self.totals.delivered += piece.len() as u64;
        }
        Ok(())
    }

    /// Writes bytes to the target; returns how many.
    fn write(&mut self, bytes: &[u8], stopped: impl Fn() -> bool) -> Result<usize, Errno> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let is_late = stopped();
            if is_late && !self.target.is_ready() {
                break;
            }
            let count = self.target.take(rest)?;
            if is_late && count == 0 {
                break;
            }
            rest = &rest[count..];
        }
        Ok(bytes.len() - rest.len())
    }
}

impl Target {
    /// Returns whether the target takes anything at once. A write may then still block on the rest,
    /// until a kick.
    fn is_ready(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Descriptor(fd) | Self::Events(fd, _) => {
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
            }
        }
    }

    /// Writes some of the bytes, or none, and returns how many.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Memory(kept) => {
                // A limit may be larger than the memory of this host.
                kept.try_reserve(bytes.len()).map_err(|_| Errno::ENOMEM)?;
                kept.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Self::Descriptor(fd) | Self::Events(fd, _) => match write(&*fd, bytes) {
                Err(Errno::EINTR) => Ok(0),
                Err(Errno::EAGAIN) => wait(fd.as_fd()).map(|()| 0),
                result => result,
            },
        }
    }
}

/// Waits until the descriptor takes bytes. It may be non-blocking, since the process that gave it to
/// us shares that flag.
fn wait(fd: BorrowedFd) -> Result<(), Errno> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

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
    fn memory_keeps_as_much_as_a_descriptor_would_get() {
        let mut sink = Sink::memory(5);
        for piece in [b"abc", b"def", b"ghi"] {
            sink.deliver(piece, || false).unwrap();
        }
        let expected = Totals {
            delivered: 5,
            total: 9,
        };
        assert_eq!(sink.totals(), expected);
        assert_eq!(sink.take_kept(), Some(b"abcde".to_vec()));
    }

    #[test]
    fn a_copy_is_written_to_a_reader_that_nobody_waits_for() {
        let (mut reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK)
            .map(|(reader, writer)| (std::fs::File::from(reader), writer))
            .unwrap();
        let mut sink = Sink::memory(1 << 20).copied_to(&writer).unwrap();
        sink.deliver(b"abc", || false).unwrap();
        let mut bytes = [0; 9];
        assert_eq!(reader.read(&mut bytes).unwrap(), 3);
        let flood = vec![b'x'; 1 << 20];
        sink.deliver(&flood, || false).unwrap();
        drop(reader);
        sink.deliver(b"abc", || false).unwrap();
        assert_eq!(sink.take_kept().unwrap().len(), 1 << 20);
    }

    #[test]
    fn what_comes_after_the_stop_is_written_if_the_reader_takes_it_at_once() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let mut sink = Sink::new(&writer, u64::MAX).unwrap();
        sink.deliver(b"late", || true).unwrap();
        assert_eq!(sink.totals().delivered, 4);
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"late");

        let full = vec![0; 64 << 10];
        writer.write_all(&full).unwrap();
        sink.deliver(b"too late", || true).unwrap();
        let expected = Totals {
            delivered: 4,
            total: 12,
        };
        assert_eq!(sink.totals(), expected);

        let mut sink = Sink::memory(5);
        sink.deliver(b"late", || true).unwrap();
        assert_eq!(sink.take_kept(), Some(b"late".to_vec()));
    }

    #[test]
    fn a_reader_that_is_gone_is_an_error_not_a_signal() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut sink = Sink::new(&writer, 5).unwrap();
        assert_eq!(sink.deliver(b"abc", || false), Err(Errno::EPIPE));
    }
}
