//! A process of the agent's own program that moves files for a user: it is forked, since that is much quicker than
//! to start a program.

use crate::collect::collect;
use crate::unpack::unpack;
use anyhow::{Context, Result, bail};
use guest::channel::files;
use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork};
use std::io::{self, BufReader, Write, stderr};
use std::os::fd::{AsFd, OwnedFd};

/// The bytes that are read at once: the headers of files. Their contents go from the pipe to the file without a
/// buffer, since the first touch of each of its pages is dear on a software KVM.
const BUFFER: usize = 4 << 10;

/// The first descriptor that is no standard stream.
const OTHERS: libc::c_uint = 3;

/// Starts a process that does as the words say, once it has taken these steps.
pub fn start(
    words: &[Vec<u8>],
    streams: [OwnedFd; 3],
    steps: impl FnMut() -> io::Result<()>,
) -> Result<Pid> {
    // SAFETY: there is no other thread that could hold a lock.
    match unsafe { fork() }.context("starting a process")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let moved = enter(streams, steps).and_then(|()| act(words));
            if let Err(error) = &moved {
                // If nobody hears of it, the status tells.
                writeln!(stderr(), "{error:#}").unwrap_or_default();
            }
            // SAFETY: _exit(2) ends the process, without what its parent registered for its own end.
            unsafe { libc::_exit(moved.is_err().into()) }
        }
    }
}

/// Gives the calling process its standard streams and nothing else of the agent's.
fn enter(
    [stdin, stdout, stderr]: [OwnedFd; 3],
    mut steps: impl FnMut() -> io::Result<()>,
) -> Result<()> {
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    // SAFETY: close_range(2) takes numbers only; what it closes is not used again, as the process ends with
    // _exit(2).
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, OTHERS, libc::c_uint::MAX, 0) })?;
    steps().context("becoming a user's process")
}

/// Makes the files that come on standard input, or sends those that are named on standard output.
fn act(words: &[Vec<u8>]) -> Result<()> {
    let stream = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().map(std::fs::File::from);
    match words.split_first() {
        Some((word, [])) if word == files::PUT => {
            let stdin = stream(&io::stdin())?;
            unpack(BufReader::with_capacity(BUFFER, stdin))
        }
        Some((word, paths)) if word == files::GET => collect(paths, stream(&io::stdout())?),
        _ => bail!("this moves no files"),
    }
}
