//! The relay of standard input from the host to the program until it ends. The program's output
//! goes to the host without the agent.

use crate::host::send;
use crate::program::Program;
use anyhow::{Context, Result, bail};
use guest::{Decoder, Exit, Frame, MAX_PAYLOAD, STDIN_WINDOW};
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
    let mut input = Input::new(program.stdin, decoder)?;
    // Standard input may have come with the job.
    input.accept(host)?;
    loop {
        let ready = wait(host, children, &input)?;
        if ready.input {
            input.flush(host)?;
        }
        if ready.host {
            input.receive(host)?;
        }
        if ready.children
            && let Some(status) = reap(program.pid, children)?
        {
            let exit = exit_of(status, memory_kills)?;
            send(host, &Frame::Exit(exit))?;
            return Ok(input.decoder);
        }
    }
}

struct Ready {
    host: bool,
    children: bool,
    input: bool,
}

fn wait(host: &File, children: &SignalFd, input: &Input) -> Result<Ready> {
    let mut fds = vec![
        PollFd::new(host.as_fd(), PollFlags::POLLIN),
        PollFd::new(children.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(pipe) = &input.pipe
        && !input.pending.is_empty()
    {
        fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno).context("waiting for the program"),
    }
    let ready = |index: usize| {
        fds.get(index)
            .and_then(PollFd::revents)
            .is_some_and(|events| !events.is_empty())
    };
    Ok(Ready {
        host: ready(0),
        children: ready(1),
        input: ready(2),
    })
}

/// The program's standard input.
struct Input {
    /// The pipe to the program, or `None` once either end closed it.
    pipe: Option<OwnedFd>,
    /// The bytes that have arrived and are not in the pipe yet; at most [`STDIN_WINDOW`].
    pending: VecDeque<u8>,
    ended: bool,
    decoder: Decoder,
}

impl Input {
    fn new(pipe: OwnedFd, decoder: Decoder) -> Result<Self> {
        set_nonblocking(&pipe)?;
        Ok(Self {
            pipe: Some(pipe),
            pending: VecDeque::new(),
            ended: false,
            decoder,
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
                other => bail!("unexpected {other:?}"),
            }
        }
        if self.pending.len() > STDIN_WINDOW {
            bail!("more standard input than the window holds");
        }
        self.flush(host)
    }

    /// Moves as many bytes as the pipe takes, and tells the host how many.
    fn flush(&mut self, host: &mut File) -> Result<()> {
        let before = self.pending.len();
        while let Some(pipe) = &self.pipe
            && !self.pending.is_empty()
        {
            match write(pipe, self.pending.make_contiguous()) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(Errno::EPIPE) => self.pipe = None,
                Err(errno) => return Err(errno).context("writing the program's input"),
            }
        }
        if self.pipe.is_none() {
            // Nobody will read it; the host need not hold it back.
            self.pending.clear();
        }
        if self.ended && self.pending.is_empty() {
            self.pipe = None;
        }
        match before - self.pending.len() {
            0 => Ok(()),
            taken => send(host, &Frame::StdinTaken(taken as u32)),
        }
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
