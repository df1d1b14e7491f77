//! The relay of standard input and signals from the host to the program until it ends, and of what is
//! typed and shown at its terminal. Other output of the program goes to the host without the agent.

use crate::host::send;
use crate::program::Program;
use crate::pty::Pty;
use anyhow::{Context, Result, bail};
use guest::{Decoder, Exit, Frame, MAX_PAYLOAD, STDIN_WINDOW, Signal};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{Pid, write};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// Relays until the program has ended; returns the decoder. `memory_kills` counts the kills before
/// it began.
pub fn relay(
    program: Program,
    host: &mut File,
    decoder: Decoder,
    children: &SignalFd,
    memory_kills: u64,
) -> Result<Decoder> {
    let pid = program.pid;
    let mut streams = Streams::new(program, decoder)?;
    // Standard input may have come with the job.
    streams.accept(host)?;
    loop {
        let ready = streams.wait(host, children)?;
        if ready.terminal {
            streams.pty.show()?;
        }
        if ready.input {
            streams.flush(host)?;
        }
        if ready.host {
            streams.receive(host)?;
        }
        if ready.children
            && let Some(status) = reap(pid, children)?
        {
            let exit = exit_of(status, memory_kills)?;
            streams.pty.show()?;
            send(host, &Frame::Exit(exit))?;
            return Ok(streams.decoder);
        }
    }
}

struct Ready {
    host: bool,
    children: bool,
    /// The terminal shows something.
    terminal: bool,
    /// The pipe or the terminal takes input.
    input: bool,
}

/// The program's standard input and its terminal.
struct Streams {
    program: Pid,
    /// The pipe to the program, or `None` once either end closed it.
    pipe: Option<OwnedFd>,
    pty: Pty,
    /// Kept open as long as the program writes.
    _outputs: [OwnedFd; 2],
    /// The bytes that have arrived and are not in the pipe yet, and those that are not typed yet:
    /// together at most [`STDIN_WINDOW`].
    pending: VecDeque<u8>,
    typed: VecDeque<u8>,
    ended: bool,
    decoder: Decoder,
}

impl Streams {
    fn new(program: Program, decoder: Decoder) -> Result<Self> {
        set_nonblocking(&program.stdin)?;
        Ok(Self {
            program: program.pid,
            pipe: Some(program.stdin),
            pty: program.pty,
            _outputs: program.outputs,
            pending: VecDeque::new(),
            typed: VecDeque::new(),
            ended: false,
            decoder,
        })
    }

    fn wait(&self, host: &File, children: &SignalFd) -> Result<Ready> {
        let mut terminal = PollFlags::POLLIN;
        terminal.set(PollFlags::POLLOUT, !self.typed.is_empty());
        let mut fds = vec![
            PollFd::new(host.as_fd(), PollFlags::POLLIN),
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.pty.as_fd(), terminal),
        ];
        if let Some(pipe) = &self.pipe
            && !self.pending.is_empty()
        {
            fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for the program"),
        }
        let events = |index: usize| {
            let events = fds.get(index).and_then(PollFd::revents);
            events.unwrap_or(PollFlags::empty())
        };
        Ok(Ready {
            host: !events(0).is_empty(),
            children: !events(1).is_empty(),
            terminal: events(2).contains(PollFlags::POLLIN),
            input: events(2).contains(PollFlags::POLLOUT) || !events(3).is_empty(),
        })
    }

    fn receive(&mut self, host: &mut File) -> Result<()> {
        let mut bytes = vec![0; MAX_PAYLOAD];
        let count = host.read(&mut bytes).context("reading from the host")?;
        if count == 0 {
            bail!("the host closed the connection");
        }
        self.decoder.push(&bytes[..count]);
        self.accept(host)
    }

    /// Takes the frames that have arrived.
    fn accept(&mut self, host: &mut File) -> Result<()> {
        while let Some(frame) = self.decoder.next_frame()? {
            match frame {
                Frame::Stdin(bytes) => self.pending.extend(bytes),
                Frame::StdinEnd => self.ended = true,
                Frame::Typed(bytes) => self.typed.extend(bytes),
                Frame::Resize(size) => self.pty.resize(size)?,
                Frame::Signal(signal) => pass_on(signal, self.program)?,
                other => bail!("unexpected {other:?}"),
            }
        }
        if self.held() > STDIN_WINDOW {
            bail!("more standard input than the window holds");
        }
        self.flush(host)
    }

    fn held(&self) -> usize {
        self.pending.len() + self.typed.len()
    }

    /// Moves as many bytes as the pipe and the terminal take, and tells the host how many.
    fn flush(&mut self, host: &mut File) -> Result<()> {
        let before = self.held();
        if let Some(pipe) = &self.pipe
            && !drain(&mut self.pending, |bytes| write(pipe, bytes))?
        {
            self.pipe = None;
        }
        if self.pipe.is_none() {
            // Nobody will read it; the host need not hold it back.
            self.pending.clear();
        }
        if self.ended && self.pending.is_empty() {
            self.pipe = None;
        }
        drain(&mut self.typed, |bytes| self.pty.type_in(bytes))?;
        match before - self.held() {
            0 => Ok(()),
            taken => send(host, &Frame::StdinTaken(taken as u32)),
        }
    }
}

/// Writes as many of the bytes as are taken at once. Returns whether there still is a reader.
fn drain(bytes: &mut VecDeque<u8>, write: impl Fn(&[u8]) -> nix::Result<usize>) -> Result<bool> {
    while !bytes.is_empty() {
        match write(bytes.make_contiguous()) {
            Ok(count) => drop(bytes.drain(..count)),
            Err(Errno::EAGAIN | Errno::EINTR) => break,
            Err(Errno::EPIPE) => return Ok(false),
            Err(errno) => return Err(errno).context("writing the program's input"),
        }
    }
    Ok(true)
}

/// Sends a signal to the program, or to its process group, which it leads. It is not reaped yet, so its
/// number is still its own.
fn pass_on(signal: Signal, program: Pid) -> Result<()> {
    let target = match signal.is_for_group {
        true => -program.as_raw(),
        false => program.as_raw(),
    };
    // nix's kill knows no real-time signals.
    // SAFETY: kill(2) takes numbers only.
    match Errno::result(unsafe { libc::kill(target, signal.number.into()) }) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("sending a signal to the program"),
    }
}

/// Reaps every child that ended; returns the status if the program did.
fn reap(program: Pid, children: &SignalFd) -> Result<Option<i32>> {
    while children
        .read_signal()
        .context("reading the signalfd")?
        .is_some()
    {}
    let mut ended = None;
    loop {
        let mut status = 0;
        // nix's waitpid knows no real-time signals.
        // SAFETY: waitpid(2) writes one integer, which outlives the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        match Errno::result(pid) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(pid) if pid == program.as_raw() => ended = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for a child"),
        }
    }
}

/// Returns the exit of a program that has ended with this wait(2) status.
fn exit_of(status: i32, memory_kills_before: u64) -> Result<Exit> {
    if libc::WIFEXITED(status) {
        return Ok(Exit::Exited(libc::WEXITSTATUS(status) as u8));
    }
    let signal = libc::WTERMSIG(status);
    Ok(Exit::Signaled {
        signal: signal as u8,
        out_of_memory: signal == libc::SIGKILL && memory_kills()? > memory_kills_before,
    })
}

/// Returns how many processes the kernel has killed because memory ran out.
pub fn memory_kills() -> Result<u64> {
    let counters = fs::read_to_string("/proc/vmstat").context("reading /proc/vmstat")?;
    let mut lines = counters.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
    let count = count.context("/proc/vmstat has no oom_kill")?;
    count.parse().context("reading the count of oom_kill")
}

fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("making a pipe non-blocking")?;
    Ok(())
}
