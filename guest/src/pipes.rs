//! Pipes: how they are made, and filled without waiting.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

/// Makes a pipe that a process of this user may also open by name (`/dev/stdout`). The read end comes first.
pub fn pipe(user: u32) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    fchown(&reader, Some(user), Some(group)).context("giving a pipe to a user")?;
    Ok((reader, writer))
}

/// Writes as many of the bytes as are taken at once. Returns whether there still is a reader.
pub fn drain(
    bytes: &mut VecDeque<u8>,
    write: impl Fn(&[u8]) -> nix::Result<usize>,
) -> Result<bool> {
    while !bytes.is_empty() {
        match write(bytes.make_contiguous()) {
            Ok(count) => drop(bytes.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => break,
            // A terminal that nobody has any more gives EIO.
            Err(Errno::EPIPE | Errno::EIO) => return Ok(false),
            Err(errno) => return Err(errno).context("writing the program's input"),
        }
    }
    Ok(true)
}

/// Has nobody wait for an end of a pipe.
pub fn set_nonblocking(fd: &impl AsFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("making a pipe non-blocking")?;
    Ok(())
}
