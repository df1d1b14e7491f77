//! The relay of standard input and signals from the host to the program until it ends, and of what is
//! typed and shown at its terminal. Other output of the program goes to the host without the agent.

use crate::commands::{Commands, Source};
use crate::host::send;
use crate::input::Input;
use crate::pipes::drain;
use crate::process::{exit_of, pass_on, reap};
use crate::program::Program;
use crate::pty::Pty;
use anyhow::{Context, Result, bail};
use guest::{Decoder, Exit, Frame, MAX_PAYLOAD, STDIN_WINDOW};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

/// The surroundings of a relay, beside the program.
pub struct Relay<'a> {
    pub host: &'a mut File,
    pub beside: &'a mut Commands,
    pub children: &'a SignalFd,
    /// The processes that were killed for want of memory before the program began.
    pub memory_kills: u64,
}

impl Relay<'_> {
    /// Relays until the program has ended; returns the decoder.
    pub fn run(&mut self, program: Program, decoder: Decoder) -> Result<Decoder> {
        let pid = program.pid;
        let mut streams = Streams::new(program, decoder)?;
        // Standard input may have come with the job.
        streams.accept(self)?;
        loop {
            let ready = streams.wait(self)?;
            if ready.terminal {
                streams.pty.show()?;
            }
            if ready.input {
                streams.flush(self.host)?;
            }
            if ready.host {
                streams.receive(self)?;
            }
            self.beside
                .serve(&ready.beside, self.host, &mut streams.pty)?;
            if ready.children
                && let Some(exit) = self.reap(pid)?
            {
                streams.pty.show()?;
                send(self.host, &Frame::Exit(exit))?;
                return Ok(streams.decoder);
            }
        }
    }

    /// Reaps every child that has ended; returns how the program did, if it did.
    fn reap(&mut self, program: Pid) -> Result<Option<Exit>> {
        while self
            .children
            .read_signal()
            .context("reading the signalfd")?
            .is_some()
        {}
        let mut exit = None;
        for (pid, status) in reap()? {
            match pid == program {
                true => exit = Some(exit_of(status, self.memory_kills)?),
                false => self.beside.end((pid, status), self.host)?,
            }
        }
        Ok(exit)
    }
}

struct Ready {
    host: bool,
    children: bool,
    /// The terminal shows something.
    terminal: bool,
    /// The pipe or the terminal takes input.
    input: bool,
    /// The sources that are ready of the commands beside the program.
    beside: Vec<Source>,
}

/// The program's standard input and its terminal.
struct Streams {
    program: Pid,
    input: Input,
    pty: Pty,
    /// Kept open as long as the program writes.
    _outputs: [OwnedFd; 2],
    /// The bytes that are not typed yet, at most [`STDIN_WINDOW`].
    typed: VecDeque<u8>,
    decoder: Decoder,
}

impl Streams {
    fn new(program: Program, decoder: Decoder) -> Result<Self> {
        Ok(Self {
            program: program.pid,
            input: Input::new(program.stdin)?,
            pty: program.pty,
            _outputs: program.outputs,
            typed: VecDeque::new(),
            decoder,
        })
    }

    fn wait(&self, relay: &Relay) -> Result<Ready> {
        let mut terminal = PollFlags::POLLIN;
        terminal.set(PollFlags::POLLOUT, !self.typed.is_empty());
        let mut fds = vec![
            PollFd::new(relay.host.as_fd(), PollFlags::POLLIN),
            PollFd::new(relay.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.pty.as_fd(), terminal),
        ];
        let (sources, others): (Vec<_>, Vec<_>) = relay.beside.sources().unzip();
        fds.extend(others);
        if let Some(pipe) = self.input.waits_for() {
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
            input: events(2).contains(PollFlags::POLLOUT) || !events(3 + sources.len()).is_empty(),
            beside: (3..)
                .zip(&sources)
                .filter(|(index, _)| !events(*index).is_empty())
                .map(|(_, &source)| source)
                .collect(),
        })
    }

    fn receive(&mut self, relay: &mut Relay) -> Result<()> {
        let mut bytes = vec![0; MAX_PAYLOAD];
        let count = relay
            .host
            .read(&mut bytes)
            .context("reading from the host")?;
        if count == 0 {
            bail!("the host closed the connection");
        }
        self.decoder.push(&bytes[..count]);
        self.accept(relay)
    }

    /// Takes the frames that have arrived.
    fn accept(&mut self, relay: &mut Relay) -> Result<()> {
        while let Some(frame) = self.decoder.next_frame()? {
            match frame {
                Frame::Stdin => self.input.there_is_some(),
                Frame::StdinEnd => self.input.is_last(),
                Frame::Typed(bytes) => self.typed.extend(bytes),
                Frame::Resize(size) => self.pty.resize(size)?,
                Frame::Signal(signal) => pass_on(signal, self.program)?,
                frame @ (Frame::Open(..) | Frame::Channel(..)) => {
                    relay.beside.accept(frame, relay.host)?;
                }
                other => bail!("unexpected {other:?}"),
            }
        }
        if self.typed.len() > STDIN_WINDOW {
            bail!("more is typed than the window holds");
        }
        self.flush(relay.host)
    }

    /// Moves as many bytes as the pipe and the terminal take, and tells the host how many were typed.
    fn flush(&mut self, host: &mut File) -> Result<()> {
        self.input.pass_on()?;
        let before = self.typed.len();
        drain(&mut self.typed, |bytes| self.pty.type_in(bytes))?;
        match before - self.typed.len() {
            0 => Ok(()),
            taken => send(host, &Frame::TypedTaken(taken as u32)),
        }
    }
}
