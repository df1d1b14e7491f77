//! The conversation with the agent: Ready → Start → output → Exit.
//!
//! Runs on the vCPU thread, as the peer of the vsock device. The main thread reaches it
//! through [`Shared`].

mod console;
mod shared;
mod sink;

pub use console::Console;
pub use shared::Shared;
pub use sink::{Sink, Totals};

use crate::devices::Violation;
use crate::devices::vsock::Peer;
use crate::outcome::{Crash, Outcome};
use guest::{Decoder, Exit, Frame, Job, encode};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// One job in one guest.
pub struct Session {
    shared: Arc<Shared>,
    job: Option<Job>,
    decoder: Decoder,
    /// Encoded frames for the guest.
    outgoing: VecDeque<u8>,
    stdout: Sink,
    stderr: Sink,
    outcome: Option<Outcome>,
    marks: Marks,
}

/// When the guest got how far; host facts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// The agent's first act as PID 1.
    pub connected: Option<Instant>,
    /// The machine was ready, and the job went to the agent.
    pub started: Option<Instant>,
    pub first_output: Option<Instant>,
}

impl Session {
    pub fn new(job: Job, stdout: Sink, stderr: Sink, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            job: Some(job),
            decoder: Decoder::with_limit(guest::MAX_PAYLOAD),
            outgoing: VecDeque::new(),
            stdout,
            stderr,
            outcome: None,
            marks: Marks::default(),
        }
    }

    /// How the program ended, if it did; what became of its output; and when.
    pub fn into_result(self) -> (Option<Outcome>, [Totals; 2], Marks) {
        let totals = [self.stdout.totals(), self.stderr.totals()];
        (self.outcome, totals, self.marks)
    }

    fn handle(&mut self, frame: Frame) -> Result<(), Violation> {
        match (frame, self.job.is_none()) {
            (Frame::Ready, false) => self.start(),
            (Frame::Stdout(bytes), true) => self.output(|session| &mut session.stdout, &bytes),
            (Frame::Stderr(bytes), true) => self.output(|session| &mut session.stderr, &bytes),
            (Frame::StdinTaken(count), true) => self
                .shared
                .stdin_taken(count as usize)
                .ok_or_else(|| Violation("standard input taken that was never sent".into()))?,
            (Frame::Exit(exit), true) => self.outcome = Some(outcome(exit)),
            (frame, _) => {
                let name = format!("{frame:?}");
                let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
                return Err(Violation(format!("the agent sent {name} out of turn")));
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        if let Some(job) = self.job.take() {
            self.send(&Frame::Start(job));
            let now = Instant::now();
            self.marks.started = Some(now);
            self.shared.started(now);
        }
    }

    fn output(&mut self, sink: fn(&mut Self) -> &mut Sink, bytes: &[u8]) {
        self.marks.first_output.get_or_insert_with(Instant::now);
        let shared = Arc::clone(&self.shared);
        match sink(self).deliver(bytes, || shared.is_stopped()) {
            Ok(()) => {}
            Err(Errno::EPIPE) => self.outcome = Some(Outcome::OutputClosed),
            Err(errno) => self.outcome = Some(Outcome::OutputFailed(errno as i32)),
        }
    }

    fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        self.outgoing.extend(bytes);
    }
}

fn outcome(exit: Exit) -> Outcome {
    match exit {
        Exit::Exited(status) => Outcome::Exited(status),
        Exit::Signaled {
            signal,
            out_of_memory,
        } => Outcome::Signaled {
            signal,
            out_of_memory,
        },
        Exit::NotStarted(errno) => Outcome::NotStarted(errno),
    }
}

impl Peer for Session {
    fn connected(&mut self) {
        self.marks.connected = Some(Instant::now());
    }

    fn disconnected(&mut self) {
        self.outcome
            .get_or_insert(Outcome::Crashed(Crash::ShutDown));
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.decoder.push(bytes);
        while self.outcome.is_none()
            && let Some(frame) = self.decoder.next_frame()?
        {
            self.handle(frame)?;
        }
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        if self.outgoing.is_empty() {
            for frame in self.shared.take_stdin() {
                self.send(&frame);
            }
        }
        let count = room.min(self.outgoing.len());
        self.outgoing.drain(..count).collect()
    }

    fn is_done(&self) -> bool {
        self.outcome.is_some() || self.shared.is_stopped()
    }
}
