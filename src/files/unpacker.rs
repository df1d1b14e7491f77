//! The process that unpacks what a guest leaves, apart from the one that runs it.

use super::unpack::{Place, Rules, Unpack};
use super::{Destination, Fetched};
use crate::confine::{Level, confine_writer};
use crate::limits::Limits;
use anyhow::{Context, Result, ensure};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// A process that waits for a stream of files, and ends with it: when we end, however that
/// happens, it finds the stream cut, removes the file that it was writing, and is gone too.
pub struct Unpacker {
    process: Pid,
    report: PipeReader,
}

impl Unpacker {
    /// Before any other thread starts: of several, only one would be in the new process. Gives
    /// what to write the stream to.
    pub fn start(
        destinations: &[Destination],
        limits: &Limits,
        force: bool,
        level: Level,
    ) -> Result<(Self, PipeWriter)> {
        let (stream, stream_end) = pipe().context("making a pipe")?;
        let (report, report_end) = pipe().context("making a pipe")?;
        let places = destinations.iter().cloned().map(Place::open);
        let places: Vec<_> = places
            .collect::<Result<_, _>>()
            .context("opening the directories for the program's files")?;
        let rules = Rules {
            size_max: limits.memory,
            force,
            umask: current_umask(),
        };
        // SAFETY: there is no other thread that could hold a lock.
        match unsafe { fork() }.context("starting a process")? {
            ForkResult::Parent { child } => Ok((
                Self {
                    process: child,
                    report,
                },
                stream_end,
            )),
            ForkResult::Child => {
                let status = i32::from(unpack(stream, report_end, places, rules, level).is_err());
                // SAFETY: _exit(2) ends the process; what its parent registered for its own end
                // is not for this one.
                unsafe { libc::_exit(status) }
            }
        }
    }

    pub fn descriptor(&self) -> RawFd {
        self.report.as_raw_fd()
    }

    /// After the other end of the stream was closed: waits for its end, and says what it did.
    pub fn finish(mut self) -> Result<Fetched> {
        let mut bytes = Vec::new();
        let read = self.report.read_to_end(&mut bytes);
        waitpid(self.process, None).context("waiting for the process that writes files")?;
        read.context("hearing from the process that writes files")?;
        ensure!(!bytes.is_empty(), "the process that writes files was ended");
        postcard::from_bytes(&bytes).context("hearing from the process that writes files")
    }
}

fn current_umask() -> Mode {
    let mode = umask(Mode::empty());
    umask(mode);
    mode
}

/// In the new process.
fn unpack(
    stream: PipeReader,
    mut report: PipeWriter,
    places: Vec<Place>,
    rules: Rules,
    level: Level,
) -> Result<()> {
    leave_the_terminal()?;
    let directories: Vec<BorrowedFd> = places.iter().map(|place| place.directory()).collect();
    confine_writer(
        level,
        &directories,
        &[stream.as_raw_fd(), report.as_raw_fd()],
    )?;
    let fetched = Unpack::new(stream, places, rules).run();
    report.write_all(&postcard::to_stdvec(&fetched)?)?;
    Ok(())
}

/// Apart from the run, whose end is this process's too.
fn leave_the_terminal() -> Result<()> {
    // Ctrl-C is for the run.
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
