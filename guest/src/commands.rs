//! Commands beside the program, each on a channel: their input and output go through the agent.

use crate::command::{Started, start};
use crate::host::send;
use crate::pipes::drain;
use crate::process::{Ended, exit_of, pass_on};
use crate::pty::{Pty, resize};
use anyhow::{Result, bail};
use guest::channel::{Command, Message};
use guest::{CHANNEL_PIECE, CHANNEL_WINDOW, Exit, Frame, Signal, stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::{Pid, read, write};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most bytes that are taken of a stream once its command has ended: as much as a pipe holds.
const REST_MAX: usize = 1 << 20;
/// The outputs of a command, as messages have them.
const STREAMS: [u8; 3] = [stream::STDOUT, stream::STDERR, stream::REPORTS];
/// The most streams of commands that have ended, but left processes that may write.
const LEFT_MAX: usize = 64;

/// The commands that run, by the numbers of their channels.
#[derive(Default)]
pub struct Commands {
    open: BTreeMap<u32, Running>,
    /// Streams that processes may still write to whose command has ended.
    left: Vec<OwnedFd>,
    is_used: bool,
}

/// A command that runs, or whose last output is on its way.
struct Running {
    pid: Pid,
    /// The processes that were killed for want of memory before it began.
    memory_kills: u64,
    /// Where its input goes, until either end has closed that.
    stdin: Option<OwnedFd>,
    pending: VecDeque<u8>,
    has_input_ended: bool,
    /// Where its outputs come from, until they end ([`STREAMS`]).
    outputs: [Option<OwnedFd>; 3],
    /// The bytes of output that the host still takes.
    room: usize,
    terminal: bool,
    /// How it has ended, and how much may still be taken of its output.
    ended: Option<(Exit, [usize; 3])>,
}

/// A descriptor that is waited for.
#[derive(Clone, Copy)]
pub enum Source {
    Input(u32),
    /// The channel, and which of its outputs.
    Output(u32, usize),
    Left(usize),
}

impl Commands {
    /// Returns whether there ever was a command.
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// Returns what is waited for, and how.
    pub fn sources(&self) -> impl Iterator<Item = (Source, PollFd<'_>)> {
        let channels = self.open.iter().flat_map(|(&number, running)| {
            let input = running.awaited_input();
            let input = input.map(|fd| (Source::Input(number), fd, PollFlags::POLLOUT));
            let outputs = running.awaited_outputs();
            let outputs = outputs
                .map(move |(index, fd)| (Source::Output(number, index), fd, PollFlags::POLLIN));
            input.into_iter().chain(outputs)
        });
        let left = self.left.iter().enumerate();
        let left = left.map(|(index, fd)| (Source::Left(index), fd.as_fd(), PollFlags::POLLIN));
        let all = channels.chain(left);
        all.map(|(source, fd, flags)| (source, PollFd::new(fd, flags)))
    }

    /// Moves what can be moved at once. What processes write whose command has ended is shown as the
    /// program's output.
    pub fn serve(&mut self, ready: &[Source], host: &mut File, shown: &mut Pty) -> Result<()> {
        let mut is_over = Vec::new();
        for &source in ready {
            match source {
                Source::Input(number) => {
                    if let Some(running) = self.open.get_mut(&number) {
                        running.flush(number, host)?;
                    }
                }
                Source::Output(number, index) => {
                    if let Some(running) = self.open.get_mut(&number) {
                        running.serve_output(number, index, host)?;
                    }
                }
                Source::Left(index) => {
                    let Some(stream) = self.left.get(index) else {
                        continue;
                    };
                    match receive(stream, CHANNEL_PIECE)? {
                        Received::Bytes(bytes) => shown.show_other(&bytes)?,
                        Received::Nothing => {}
                        Received::End => is_over.push(index),
                    }
                }
            }
        }
        for index in is_over.into_iter().rev() {
            self.left.remove(index);
        }
        Ok(())
    }

    /// Takes a frame from the host.
    pub fn accept(&mut self, frame: Frame, host: &mut File) -> Result<()> {
        match frame {
            Frame::Open(number, command) => self.start(number, &command, host),
            Frame::Channel(number, message) => match self.open.get_mut(&number) {
                Some(running) => {
                    running.accept(number, message, host)?;
                    self.finish(number, host)
                }
                // It was on its way when the command ended.
                None => Ok(()),
            },
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Notes that a child has ended, which may be a command.
    pub fn end(&mut self, (pid, status): Ended, host: &mut File) -> Result<()> {
        let mut open = self.open.iter_mut();
        let Some((&number, running)) = open.find(|(_, running)| running.pid == pid) else {
            return Ok(());
        };
        let exit = exit_of(status, running.memory_kills)?;
        running.ended = Some((exit, [REST_MAX; 3]));
        self.finish(number, host)
    }

    fn start(&mut self, number: u32, command: &Command, host: &mut File) -> Result<()> {
        self.is_used = true;
        match start(command)? {
            Ok(started) => drop(self.open.insert(number, Running::new(started)?)),
            Err((why, status)) => {
                let bytes = format!("{why}\n").into_bytes();
                let stream = stream::STDERR;
                send(
                    host,
                    &Frame::Channel(number, Message::Output { stream, bytes }),
                )?;
                let ended = Message::Ended(Exit::Exited(status));
                send(host, &Frame::Channel(number, ended))?;
            }
        }
        Ok(())
    }

    /// Passes on the last output of a command that has ended, as far as the host takes it, and then tells it
    /// so.
    fn finish(&mut self, number: u32, host: &mut File) -> Result<()> {
        let Some(running) = self.open.get_mut(&number) else {
            return Ok(());
        };
        let Some((exit, _)) = running.ended else {
            return Ok(());
        };
        for index in 0..STREAMS.len() {
            if !running.pass_on_rest(number, index, host)? {
                return Ok(());
            }
        }
        send(host, &Frame::Channel(number, Message::Ended(exit)))?;
        if let Some(running) = self.open.remove(&number) {
            // Reports are for nobody from now on.
            let [stdout, stderr, _] = running.outputs;
            self.left.extend(stdout.into_iter().chain(stderr));
            let too_many = self.left.len().saturating_sub(LEFT_MAX);
            self.left.drain(..too_many);
        }
        Ok(())
    }
}

impl Running {
    fn new(started: Started) -> Result<Self> {
        Ok(Self {
            pid: started.pid,
            memory_kills: started.memory_kills,
            stdin: Some(started.stdin),
            pending: VecDeque::new(),
            has_input_ended: false,
            outputs: started.outputs,
            room: CHANNEL_WINDOW,
            terminal: started.terminal,
            ended: None,
        })
    }

    fn awaited_input(&self) -> Option<BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref().filter(|_| !self.pending.is_empty());
        stdin.map(AsFd::as_fd)
    }

    /// Returns the outputs of which something can be passed on, while the command runs.
    fn awaited_outputs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let is_awaited = self.room > 0 && self.ended.is_none();
        let outputs = self.outputs.iter().enumerate().filter(move |_| is_awaited);
        outputs.filter_map(|(index, fd)| Some((index, fd.as_ref()?.as_fd())))
    }

    fn accept(&mut self, number: u32, message: Message, host: &mut File) -> Result<()> {
        match message {
            Message::Input(bytes) => {
                self.pending.extend(bytes);
                if self.pending.len() > CHANNEL_WINDOW {
                    bail!("more input on a channel than its window holds");
                }
                self.flush(number, host)
            }
            Message::InputEnd => {
                self.has_input_ended = true;
                self.flush(number, host)
            }
            Message::OutputTaken(count) => {
                self.room += count as usize;
                Ok(())
            }
            // One that has ended is reaped, and its number may be another's.
            Message::Signal(_) if self.ended.is_some() => Ok(()),
            Message::Signal(number) => {
                let signal = Signal {
                    number,
                    is_for_group: true,
                };
                pass_on(signal, self.pid)
            }
            Message::Resize(size) => match &self.outputs[0] {
                Some(terminal) if self.terminal => resize(terminal, size),
                _ => Ok(()),
            },
            other => bail!("unexpected {other:?} on a channel"),
        }
    }

    /// Moves as much input as is taken at once, and tells the host how much.
    fn flush(&mut self, number: u32, host: &mut File) -> Result<()> {
        let before = self.pending.len();
        if let Some(stdin) = &self.stdin
            && !drain(&mut self.pending, |bytes| write(stdin, bytes))?
        {
            self.stdin = None;
        }
        if self.stdin.is_none() {
            // Nobody will read it; the host need not hold it back.
            self.pending.clear();
        }
        if self.has_input_ended && self.pending.is_empty() {
            self.stdin = None;
        }
        match before - self.pending.len() {
            0 => Ok(()),
            taken => {
                let taken = Message::InputTaken(taken as u32);
                send(host, &Frame::Channel(number, taken))
            }
        }
    }

    /// Passes on output. Before reports comes all that was written before them, unless there is no room for it.
    fn serve_output(&mut self, number: u32, index: usize, host: &mut File) -> Result<()> {
        if STREAMS[index] == stream::REPORTS {
            for other in 0..index {
                let mut passed = 0;
                while passed < REST_MAX
                    && self.room > 0
                    && let Some(count) = self.pass_on_output(number, other, host)?
                {
                    passed += count;
                }
            }
            if self.room == 0 {
                return Ok(());
            }
        }
        self.pass_on_output(number, index, host).map(drop)
    }

    /// Passes on a piece of output. Returns how many bytes it had, or `None` if there is nothing more now.
    fn pass_on_output(
        &mut self,
        number: u32,
        index: usize,
        host: &mut File,
    ) -> Result<Option<usize>> {
        let Some(output) = &self.outputs[index] else {
            return Ok(None);
        };
        match receive(output, self.room.min(CHANNEL_PIECE))? {
            Received::Bytes(bytes) => {
                let count = bytes.len();
                self.room -= count;
                let stream = STREAMS[index];
                let output = Message::Output { stream, bytes };
                send(host, &Frame::Channel(number, output))?;
                Ok(Some(count))
            }
            Received::Nothing => Ok(None),
            Received::End => {
                self.outputs[index] = None;
                Ok(None)
            }
        }
    }

    /// Passes on what an output holds of a command that has ended. Returns whether that was all.
    fn pass_on_rest(&mut self, number: u32, index: usize, host: &mut File) -> Result<bool> {
        loop {
            let left = self.ended.map_or(0, |(_, left)| left[index]);
            if left == 0 || self.outputs[index].is_none() {
                return Ok(true);
            }
            if self.room == 0 {
                return Ok(false);
            }
            let passed = self.pass_on_output(number, index, host)?;
            if let Some((_, left)) = &mut self.ended {
                left[index] = passed.map_or(0, |count| left[index].saturating_sub(count));
            }
        }
    }
}

enum Received {
    Bytes(Vec<u8>),
    /// There is nothing now.
    Nothing,
    End,
}

/// Takes what a stream has, at most so many bytes.
fn receive(stream: &OwnedFd, most: usize) -> Result<Received> {
    let mut bytes = vec![0; most];
    Ok(match read(stream, &mut bytes) {
        Ok(count) if count > 0 => {
            bytes.truncate(count);
            Received::Bytes(bytes)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Received::Nothing,
        // A terminal that nobody has any more gives EIO.
        Ok(_) | Err(_) => Received::End,
    })
}
