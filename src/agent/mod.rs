//! The conversation with the guest: Ready → Start → output → Exit; or, with one that was saved
//! when it was warm, job → output → Exit. Then, where files are wanted: Collect → files → Collected.
//!
//! Runs on the vCPU thread, as the peer of the vsock device. The main thread reaches it
//! through [`Shared`].

mod collection;
mod console;
mod guest_report;
mod input;
mod output_sink;
pub use collection::Collection;
pub use console::Console;
pub use guest_report::Told;
pub use input::Shared;
pub use output_sink::{Sink, Totals};

use crate::devices::Violation;
use crate::devices::vsock::Peer;
use crate::job::Work;
use crate::outcome::{Crash, Outcome};
use crate::vm::HypercallHandler;
use guest::{Decoder, Exit, FileStream, Frame, Job, encode, stream};
use guest_report::Telling;
use nix::errno::Errno;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// One job in one guest.
pub struct Session {
    shared: Arc<Shared>,
    plan: Plan,
    /// The program's, as the guest takes them.
    files: FileStream,
    /// What is wanted of the guest once its program has ended, if anything is.
    collection: Option<Collection>,
    decoder: Decoder,
    /// Encoded frames for the guest.
    outgoing: VecDeque<u8>,
    /// Standard output and standard error.
    sinks: [Sink; 2],
    /// If anybody wants to know.
    telling: Option<Telling>,
    outcome: Option<Outcome>,
    marks: Marks,
}

/// How the guest gets its job.
enum Plan {
    /// Through the agent, once that is ready; what follows.
    Agent { job: Job, next: Box<Plan> },
    /// The agent has it.
    Started,
    /// The same, and it is an interpreter to be saved when it asks for a job.
    Warming,
    /// It asked.
    Warm,
    /// The interpreter waits, or will, and gets this on its request.
    Handover(VecDeque<u8>),
}

/// When the guest got how far; host facts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// The agent's first act as PID 1.
    pub connected: Option<Instant>,
    /// The job was handed over.
    pub started: Option<Instant>,
    pub first_output: Option<Instant>,
}

impl Session {
    /// With a guest that boots and then gets this job.
    pub fn cold(work: Work, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        let (job, next) = match work.interpreter() {
            Some(interpreter) => (interpreter, Plan::Handover(work.handover().into())),
            None => (work.job.clone(), Plan::Started),
        };
        let next = Box::new(next);
        let telling = Telling::of(&work, &sinks, false);
        let files = FileStream::new(work.into_files());
        Self::new(Plan::Agent { job, next }, files, sinks, telling, shared)
    }

    /// With a guest that boots and then starts this interpreter, to be saved.
    pub fn warming(job: Job, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        let next = Box::new(Plan::Warming);
        let plan = Plan::Agent { job, next };
        Self::new(plan, FileStream::default(), sinks, None, shared)
    }

    /// With a guest that was saved while its interpreter asked for a job.
    pub fn warm(work: Work, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        let plan = Plan::Handover(work.handover().into());
        let telling = Telling::of(&work, &sinks, !work.is_python());
        let files = FileStream::new(work.into_files());
        Self::new(plan, files, sinks, telling, shared)
    }

    /// The same, with files to fetch once the program has ended.
    pub fn collecting(mut self, collection: Option<Collection>) -> Self {
        self.collection = collection;
        self
    }

    fn new(
        plan: Plan,
        files: FileStream,
        sinks: [Sink; 2],
        telling: Option<Telling>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shared,
            plan,
            files,
            collection: None,
            decoder: Decoder::with_limit(guest::MAX_PAYLOAD),
            outgoing: VecDeque::new(),
            sinks,
            telling,
            outcome: None,
            marks: Marks::default(),
        }
    }

    /// How the program ended, if it did; what became of its output; and when.
    pub fn into_result(self) -> (Option<Outcome>, [Totals; 2], Marks) {
        let totals = self.sinks.each_ref().map(Sink::totals);
        (self.outcome, totals, self.marks)
    }

    /// What was kept of the program's output; once.
    pub fn take_kept(&mut self) -> [Option<Vec<u8>>; 2] {
        self.sinks.each_mut().map(Sink::take_kept)
    }

    /// What the guest told beside that; once.
    pub fn take_told(&mut self) -> Told {
        let telling = self.telling.take();
        telling.map(Telling::into_told).unwrap_or_default()
    }

    /// Whether the guest is an interpreter that waits for a job, and nothing else is under way.
    pub fn is_warm(&self) -> bool {
        matches!(self.plan, Plan::Warm) && self.outgoing.is_empty() && self.decoder.is_empty()
    }

    fn handle(&mut self, frame: Frame) -> Result<(), Violation> {
        match (frame, &self.plan) {
            (Frame::Ready, Plan::Agent { .. }) => self.start(),
            (frame, Plan::Agent { .. }) | (frame @ Frame::Ready, _) => {
                return Err(out_of_turn(&frame));
            }
            (Frame::StdinTaken(count), _) => self
                .shared
                .stdin_taken(count as usize)
                .ok_or_else(|| Violation("standard input taken that was never sent".into()))?,
            (Frame::Exit(exit), _) => {
                self.ended(outcome(exit));
                if let Some(wish) = self.collection.as_mut().and_then(Collection::wish) {
                    self.send(&wish);
                }
            }
            (Frame::Collected, _) => match self.collection.as_mut().and_then(Collection::finish) {
                Some(outcome) => self.outcome = Some(outcome),
                None => return Err(out_of_turn(&Frame::Collected)),
            },
            (frame, _) => return Err(out_of_turn(&frame)),
        }
        Ok(())
    }

    /// The program has, so this is the outcome, though the guest may have to go on for a while.
    fn ended(&mut self, outcome: Outcome) {
        match (&mut self.collection, &outcome) {
            (Some(collection), Outcome::Exited(_) | Outcome::Signaled { .. }) => {
                collection.await_files(outcome);
            }
            _ => drop(self.outcome.get_or_insert(outcome)),
        }
    }

    fn start(&mut self) {
        let plan = std::mem::replace(&mut self.plan, Plan::Started);
        if let Plan::Agent { job, next } = plan {
            self.plan = *next;
            self.send(&Frame::Start(job));
            // An interpreter that is started first gets the job later.
            if !matches!(self.plan, Plan::Handover(_)) {
                self.mark_start();
            }
        }
    }

    fn mark_start(&mut self) {
        let now = Instant::now();
        self.marks.started = Some(now);
        self.shared.started(now);
    }

    fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        self.outgoing.extend(bytes);
    }
}

fn out_of_turn(frame: &Frame) -> Violation {
    let name = format!("{frame:?}");
    let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
    Violation(format!("the agent sent {name} out of turn"))
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

impl HypercallHandler for Session {
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        if stream == stream::FILES
            && let Some(collection) = &mut self.collection
        {
            if let Some(outcome) = collection.deliver(bytes, &self.shared)? {
                self.outcome.get_or_insert(outcome);
            }
            return Ok(());
        }
        if let stream::REPORTS | stream::EVENTS = stream {
            match &mut self.telling {
                Some(telling) if stream == stream::REPORTS => telling.report(bytes),
                Some(telling) => telling.event(bytes),
                None => {}
            }
            return Ok(());
        }
        let sink = match stream {
            stream::STDOUT => &mut self.sinks[0],
            stream::STDERR => &mut self.sinks[1],
            _ => return Err(Violation(format!("output to stream {stream}"))),
        };
        self.marks.first_output.get_or_insert_with(Instant::now);
        let ended = self.collection.as_ref().is_some_and(Collection::is_awaited);
        if self.outcome.is_some() || ended {
            return Ok(());
        }
        match sink.deliver(bytes, || self.shared.is_stopped()) {
            Ok(()) => {}
            Err(Errno::EPIPE) => self.outcome = Some(Outcome::OutputClosed),
            Err(errno) => self.outcome = Some(Outcome::OutputFailed(errno as i32)),
        }
        Ok(())
    }

    fn job(&mut self, room: usize) -> Option<Vec<u8>> {
        if let Plan::Warming = self.plan {
            self.plan = Plan::Warm;
            return None;
        }
        let Plan::Handover(rest) = &mut self.plan else {
            return Some(Vec::new());
        };
        let count = room.min(rest.len());
        let piece = rest.drain(..count).collect();
        if self.marks.started.is_none() {
            self.mark_start();
        }
        Some(piece)
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        let (Plan::Started | Plan::Handover(_)) = self.plan else {
            return Vec::new();
        };
        self.files.take(room)
    }

    fn no_files(&mut self, errno: u8) {
        self.outcome.get_or_insert(Outcome::NoFiles(errno));
    }

    fn exited(&mut self, status: u8) {
        self.ended(Outcome::Exited(status));
    }

    fn wants_stdin(&mut self) {
        self.shared.want_stdin();
    }

    fn has_begun(&self) -> bool {
        self.marks.started.is_some()
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
        self.outcome.is_some() || self.shared.is_stopped() || matches!(self.plan, Plan::Warm)
    }
}
