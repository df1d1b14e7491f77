//! The process that extracts the files that a guest leaves, apart from the one that runs the guest.

use crate::confine::confine_writer;
use crate::error::{Destination as Fault, Remedy};
use crate::files::extract::{Place, Rules, Unpack};
use crate::files::{COUNT_MAX, Destination, Fetched};
use crate::limits::ConfineLevel;
use crate::limits::Limits;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time that the process has from the end of the stream, when it has no more to write than what
/// is in a pipe.
const TIME: Duration = Duration::from_secs(10);
/// Upper bound on the bytes of the process's report: three lists that are bounded in themselves, and
/// the reason why there are no more files.
const REPORT_MAX: usize = 2 << 20;

/// A process that waits for a stream of files, and ends with it: when we end, however that
/// happens, it finds the stream cut, removes the file that it was writing, and ends too.
pub struct Unpacker {
    process: Pid,
    report: PipeReader,
}

impl Unpacker {
    /// Starts the process; returns it with the pipe for the stream. No other thread may have started
    /// yet, since only one would be in the new process.
    pub fn start(
        destinations: &[Destination],
        limits: &Limits,
        force: bool,
        level: ConfineLevel,
    ) -> Result<(Self, PipeWriter)> {
        let (stream, stream_end) = pipe().context("making a pipe")?;
        let (report, report_end) = pipe().context("making a pipe")?;
        let places = destinations.iter().cloned().map(Place::open);
        let places: Vec<_> = places
            .collect::<Result<_, _>>()
            .context("opening the directories for the program's files")?;
        let rules = Rules {
            // A guest cannot hold more than its memory.
            size_max: limits.memory.min(limits.fetch_size),
            count_max: usize::try_from(limits.fetch_count)
                .map_or(COUNT_MAX, |most| most.min(COUNT_MAX)),
            force,
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
                // Otherwise, it would never see the end of the stream.
                drop((stream_end, report));
                let status = i32::from(unpack(stream, report_end, places, rules, level).is_err());
                // SAFETY: _exit(2) ends the process, without the handlers that its parent
                // registered for its own end.
                unsafe { libc::_exit(status) }
            }
        }
    }

    pub fn descriptor(&self) -> RawFd {
        self.report.as_raw_fd()
    }

    /// Waits for the process to end, but not for ever, and returns what it did. The other end of the
    /// stream must have been closed before.
    pub fn finish(mut self) -> Result<Fetched> {
        let deadline = Instant::now() + TIME;
        let report = self.report(deadline);
        let report = report.context("reading from the process that writes files")?;
        if !self.ended(deadline)? {
            // The process goes on alone and ends by itself; nobody reads what it reports.
            return Ok(Fetched::failed(
                "the program's files could not be written in time: some may be missing, or still be written",
                Remedy::ChooseDestination(Fault::Slow),
            ));
        }
        Ok(match postcard::from_bytes::<Fetched>(&report) {
            Ok(fetched) => fetched.distrusted(),
            Err(_) => Fetched::failed(
                "the process that writes the program's files was ended: some may be missing",
                "see that there is memory and disk for it, and that no limit is too low: ulimit -a",
            ),
        })
    }

    /// Reads all that the process reports until it closes its end.
    fn report(&mut self, deadline: Instant) -> nix::Result<Vec<u8>> {
        // The report is bounded, since a guest that has taken the process over may report anything.
        let mut report = vec![0; REPORT_MAX];
        let mut length = 0;
        while length < report.len() && self.speaks(deadline)? {
            match nix::unistd::read(&self.report, &mut report[length..]) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        report.truncate(length);
        Ok(report)
    }

    /// Waits until there is something to read, or an end. Returns `false` at the deadline.
    fn speaks(&self, deadline: Instant) -> nix::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut wanted = [PollFd::new(self.report.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wanted, timeout) {
                Err(Errno::EINTR) => {}
                result => return result.map(|count| count > 0),
            }
        }
    }

    fn ended(&self, deadline: Instant) -> Result<bool> {
        loop {
            let status = waitpid(self.process, Some(WaitPidFlag::WNOHANG));
            match status.context("waiting for the process that writes files")? {
                WaitStatus::StillAlive if Instant::now() >= deadline => return Ok(false),
                WaitStatus::StillAlive => sleep(Duration::from_micros(200)),
                _ => return Ok(true),
            }
        }
    }
}

/// Extracts the files, in the new process.
fn unpack(
    stream: PipeReader,
    mut report: PipeWriter,
    places: Vec<Place>,
    rules: Rules,
    level: ConfineLevel,
) -> Result<()> {
    leave_the_terminal()?;
    // A file that grows too large is then an error like others.
    // SAFETY: no handler is set.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    let kept = [stream.as_raw_fd(), report.as_raw_fd()];
    let unpack = Unpack::new(stream, places, rules);
    confine_writer(level, &unpack.directories(), &kept)?;
    let fetched = unpack.run();
    report.write_all(&postcard::to_stdvec(&fetched)?)?;
    Ok(())
}

/// Detaches this process from the terminal; it ends when the run does.
fn leave_the_terminal() -> Result<()> {
    // Ctrl-C is meant for the run alone.
    setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
