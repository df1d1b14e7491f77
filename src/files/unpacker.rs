//! The process that unpacks what a guest leaves, apart from the one that runs it.

use super::unpack::{Place, Rules, Unpack};
use super::{Destination, Fetched};
use crate::limits::Limits;
use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsRawFd, RawFd};

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
                let status = i32::from(unpack(stream, report_end, places, rules).is_err());
                // SAFETY: _exit(2) ends the process; what its parent registered for its own end
                // is not for this one.
                unsafe { libc::_exit(status) }
            }
        }
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
) -> Result<()> {
    let mut kept = vec![stream.as_raw_fd(), report.as_raw_fd()];
    kept.extend(places.iter().map(|place| place.directory().as_raw_fd()));
    confine(kept)?;
    let fetched = Unpack::new(stream, places, rules).run();
    report.write_all(&postcard::to_stdvec(&fetched)?)?;
    Ok(())
}

/// The least that writing files takes.
fn confine(kept: Vec<RawFd>) -> Result<()> {
    // Ctrl-C is for the run, whose end is ours.
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    close_all_but(kept)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_no_new_privs()?;
    Ok(())
}

/// Beside the standard streams.
fn close_all_but(mut kept: Vec<RawFd>) -> nix::Result<()> {
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO + 1;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: nothing uses these descriptors any more: this process only unpacks, and
            // ends without dropping what it has from its parent.
            let result = unsafe { libc::close_range(first as u32, fd as u32 - 1, 0) };
            nix::errno::Errno::result(result)?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}
