//! Standard input on its way from the host to the program's pipe.

use crate::pipes::set_nonblocking;
use anyhow::{Context, Result};
use guest::MAX_PAYLOAD;
use guest::hypercall::prctl;
use nix::errno::Errno;
use nix::unistd::write;
use std::ops::Range;
use std::os::fd::OwnedFd;

/// The program's standard input. It is taken from the host only as the pipe has room.
pub struct Input {
    /// The pipe to the program, or `None` once either end closed it.
    pipe: Option<OwnedFd>,
    /// Whether the host may have more.
    is_there: bool,
    /// Whether no more will come than the host has.
    is_last: bool,
    /// A piece, and which of its bytes are not in the pipe yet.
    piece: Vec<u8>,
    left: Range<usize>,
}

impl Input {
    pub fn new(pipe: OwnedFd) -> Result<Self> {
        set_nonblocking(&pipe)?;
        Ok(Self {
            pipe: Some(pipe),
            is_there: false,
            is_last: false,
            // Written to, so that it is in memory before the machine is saved: a clone would fault on each page.
            piece: vec![u8::MAX; MAX_PAYLOAD],
            left: 0..0,
        })
    }

    /// Notes that the host has some.
    pub fn there_is_some(&mut self) {
        self.is_there = true;
    }

    /// Notes that no more will come than the host has.
    pub fn is_last(&mut self) {
        self.is_last = true;
    }

    /// Returns the pipe if there is something for it.
    pub fn waits_for(&self) -> Option<&OwnedFd> {
        let has_some = self.is_there || !self.left.is_empty();
        self.pipe.as_ref().filter(|_| has_some)
    }

    /// Moves a piece into the pipe, or as much of it as there is room for.
    pub fn pass_on(&mut self) -> Result<()> {
        let Some(pipe) = &self.pipe else {
            return Ok(());
        };
        if self.left.is_empty() && self.is_there {
            let count = take(&mut self.piece).context("taking standard input from the host")?;
            self.left = 0..count;
            self.is_there = count > 0;
        }
        let written = match self.left.is_empty() {
            true => Ok(0),
            false => write(pipe, &self.piece[self.left.clone()]),
        };
        match written {
            Ok(count) => self.left.start += count,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // What nobody will read stays with the host.
            Err(Errno::EPIPE) => self.pipe = None,
            Err(errno) => return Err(errno).context("writing the program's input"),
        }
        if self.is_last && !self.is_there && self.left.is_empty() {
            self.pipe = None;
        }
        Ok(())
    }
}

/// Takes what there is of standard input, as far as the buffer goes; returns the number of its bytes.
fn take(buffer: &mut [u8]) -> nix::Result<usize> {
    let (address, size) = (buffer.as_mut_ptr(), buffer.len() as libc::c_ulong);
    // SAFETY: our kernel writes at most `size` bytes, to memory that is ours to change.
    let count = unsafe { libc::prctl(prctl::INPUT, address, size, 0, 0) };
    Errno::result(count).map(|count| count as usize)
}
