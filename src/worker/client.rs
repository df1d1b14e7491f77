//! The client's end of a worker: it hands over the run and receives its events.

use crate::audit::Usage;
use crate::error::{Error, Kind};
use crate::limits::BOOT_LIMIT;
use crate::process::require_proc;
use crate::process::{self, Exit};
use crate::worker::{Ended, Event, Spec};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;
use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The most bytes that a worker may send beside the output that it keeps.
const TOLD_MAX: u64 = 64 << 20;
/// How long a worker may take to end once it has told how its run went.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes that one byte of output takes in JSON.
const ESCAPED: u64 = 6;
/// The subcommand that makes this program a worker; its argument is the number of the socket.
pub const VERB: &str = "worker";

/// A process that does a run. It dies with the thread that starts it.
pub struct Worker {
    pub child: Child,
    pub channel: Channel,
    pub began: Instant,
}

/// The socket to a worker.
pub struct Channel {
    socket: UnixStream,
    /// Bytes received.
    heard: Vec<u8>,
    /// Where the first line begins of which no message was made.
    start: usize,
    /// How far the ends of lines were looked for.
    seen: usize,
    /// The number of bytes received so far, and the most that may be.
    total: u64,
    most: u64,
}

/// The result of reading from a worker's socket.
pub enum Heard {
    Event(Event),
    /// There is no whole message for now.
    Nothing,
    /// No more messages will come.
    End,
    /// The worker sent more than any of ours sends.
    TooMuch,
}

impl Worker {
    /// Starts a process of this binary with these streams, which waits for what it is to run. `capture`:
    /// bytes of each output stream that will be in its report.
    pub fn start(binary: &Path, streams: [Stdio; 3], capture: u64) -> Result<Self> {
        let began = Instant::now();
        let (socket, its) = UnixStream::pair().context("making a socket")?;
        let mut command = process::command(binary);
        let [stdin, stdout, stderr] = streams;
        let number = its.as_raw_fd();
        command
            .args([VERB, &number.to_string()])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        let hand_on = move || {
            // SAFETY: the socket is open until the process has started.
            let its = unsafe { BorrowedFd::borrow_raw(number) };
            fcntl(its, FcntlArg::F_SETFD(FdFlag::empty()))?;
            // Signals that this process watches are blocked here, and would be there.
            SigSet::empty().thread_set_mask()?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes system calls.
        unsafe { command.pre_exec(hand_on) };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                require_proc()?;
                return Err(error).context("starting a process");
            }
        };
        let most = TOLD_MAX.saturating_add(capture.saturating_mul(2 * ESCAPED));
        Ok(Self {
            child,
            channel: Channel::new(socket, most),
            began,
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Channel {
    pub(crate) fn new(socket: UnixStream, most: u64) -> Self {
        Self {
            socket,
            heard: Vec::new(),
            start: 0,
            seen: 0,
            total: 0,
            most,
        }
    }

    /// Hands over what is to run. A process that has ended takes nothing: that is learned as its end.
    pub fn send(&mut self, spec: &Spec) -> Result<()> {
        let mut line = serde_json::to_vec(spec).context("encoding what is to run")?;
        line.push(b'\n');
        self.write(&line).context("handing over what is to run")
    }

    /// Lets an inspected run begin.
    pub fn admit(&mut self) -> Result<()> {
        self.write(b"\n").context("letting a run begin")
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.socket.write_all(bytes) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(()),
            result => result,
        }
    }

    /// Takes a message that has already come, or waits for more to come.
    pub fn hear(&mut self) -> Result<Heard> {
        if let Some(heard) = self.take() {
            return Ok(heard);
        }
        self.heard.drain(..self.start);
        self.seen -= self.start;
        self.start = 0;
        let mut piece = [0; 64 << 10];
        let count = match self.socket.read(&mut piece) {
            Ok(0) => return Ok(Heard::End),
            // It ended before it had read all that it was sent.
            Err(error) if error.kind() == ConnectionReset => return Ok(Heard::End),
            result => result.context("receiving from a run")?,
        };
        self.total += count as u64;
        if self.total > self.most {
            return Ok(Heard::TooMuch);
        }
        self.heard.extend_from_slice(&piece[..count]);
        Ok(self.take().unwrap_or(Heard::Nothing))
    }

    /// Takes a message if a whole one has come.
    pub fn take(&mut self) -> Option<Heard> {
        let unseen = &self.heard[self.seen..];
        let Some(length) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.seen = self.heard.len();
            return None;
        };
        let end = self.seen + length;
        let event = serde_json::from_slice(&self.heard[self.start..end]);
        (self.start, self.seen) = (end + 1, end + 1);
        // No worker of ours sends an invalid message: it was taken over, and tells nothing with it.
        Some(match event {
            Ok(Event::Ended(ended)) if !ended.is_sound() => Heard::Nothing,
            Ok(event) => Heard::Event(event),
            Err(_) => Heard::Nothing,
        })
    }

    /// Returns the number of bytes received.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Receives everything until the worker ends, or until this time. Returns the end that it told, and
    /// whether nothing was wrong with what it sent; else it may go on.
    pub fn follow(&mut self, deadline: Option<Instant>) -> (Option<Ended>, bool) {
        let mut told = None;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // No time at all would be no limit.
            if left == Some(Duration::ZERO) || self.socket.set_read_timeout(left).is_err() {
                return (told, false);
            }
            match self.hear() {
                // A run that nobody inspects waits for nothing, and takes as long as it takes.
                Ok(Heard::Nothing | Heard::Event(Event::Notice(_) | Event::Inspected(_))) => {}
                Ok(Heard::Event(Event::Ended(ended))) => told = Some(ended),
                Ok(Heard::End) => return (told, true),
                Ok(Heard::TooMuch) | Err(_) => return (told, false),
            }
        }
    }
}

/// Does a run in a process of its own, of which nobody is told before its end. The end may not be put off
/// for ever.
pub fn follow(binary: &Path, spec: &Spec) -> Result<Ended> {
    let streams = [Stdio::null(), Stdio::null(), Stdio::inherit()];
    let mut worker = Worker::start(binary, streams, spec.capture())?;
    worker.channel.send(spec)?;
    let timeout = spec.request.limits.timeout;
    // Beside its program, it may wait for another that builds the template, and build it itself.
    let deadline = timeout.map(|timeout| worker.began + timeout + 2 * BOOT_LIMIT);
    let (told, is_well) = worker.channel.follow(deadline);
    if !is_well || !process::ends_within(worker.pid(), END_TIMEOUT)? {
        worker.child.kill()?;
    }
    let exit = process::ended(worker.pid())?;
    worker.child.wait()?;
    Ok(ended(told, &exit))
}

/// Returns how a run ended, by the last message of its process and by how that process ended.
pub fn ended(told: Option<Ended>, exit: &Exit) -> Ended {
    match (told, exit.status) {
        (Some(ended), Ok(_)) => ended,
        (_, status) => {
            let how = match status {
                Ok(_) => "did not tell how it went".into(),
                Err(signal) => format!("was ended by {}", process::described(signal)),
            };
            Ended::Failed(Error::new(
                Kind::Internal,
                format!("the process that ran the guest {how}"),
                "run it again; if that happens again, please report it",
            ))
        }
    }
}

/// Returns what a process used that began at this time and ended in this way.
pub fn usage(began: Instant, exit: &Exit) -> Usage {
    Usage {
        wall_ms: began.elapsed().as_micros() as f64 / 1000.0,
        cpu_ms: exit.processor_time.as_micros() as f64 / 1000.0,
        exit: exit.code(),
    }
}
