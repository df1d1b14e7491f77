//! One run of a job: how the guest gets it, what becomes of its output, and how it ends. It lives as long
//! as its program.

use crate::agent::collection::Collection;
use crate::agent::connection::Connection;
use crate::agent::guest_report::{GuestReport, GuestReportBuilder};
use crate::agent::input::Shared;
use crate::agent::output_sink::{Sink, Totals};
use crate::devices::Violation;
use crate::job::Job;
use crate::outcome::{Crash, Outcome};
use crate::terminal::Modes;
use crate::vm::{HypercallHandler, JobLimits};
use guest::{File, FileStream, Frame, JobFrame, stream};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// A job in a guest.
pub struct JobRun {
    shared: Arc<Shared>,
    state: StartState,
    limits: JobLimits,
    /// The program's files, which the guest takes piece by piece.
    files: FileStream,
    /// Whether the guest makes them before the program begins. A script alone it may make later.
    makes_files_first: bool,
    /// The files that the guest is to send once its program has ended, if any are wanted.
    collection: Option<Collection>,
    /// Standard output and standard error.
    sinks: [Sink; 2],
    /// The modes of the terminal that the output goes to, if it goes to one.
    modes: Option<Modes>,
    /// The guest's reports, unless it is only to be saved.
    report: Option<GuestReportBuilder>,
    outcome: Option<Outcome>,
    /// Whether the guest has the job, or is getting it.
    is_handed_over: bool,
    /// When the program had its job and its files, and when its output began.
    started: Option<Instant>,
    first_output: Option<Instant>,
}

/// The progress of the job's handover to the guest.
enum StartState {
    /// The agent gets this job once it is ready, and `next` is the state after that.
    Agent {
        job: JobFrame,
        next: Box<StartState>,
    },
    /// The agent has the job.
    Started,
    /// The agent has the job, which is an interpreter to be saved when it asks for one itself.
    Warming,
    /// That interpreter has asked for a job.
    Warm,
    /// An interpreter waits for a job, or soon will, and gets these bytes on its request.
    Handover(VecDeque<u8>),
}

impl JobRun {
    /// Makes a run for a guest that boots and then gets this job.
    pub fn cold(job: Job, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        let (frame, next) = match job.interpreter() {
            Some(interpreter) => (interpreter, StartState::Handover(job.handover().into())),
            None => (job.frame.clone(), StartState::Started),
        };
        let next = Box::new(next);
        let state = StartState::Agent { job: frame, next };
        let report = Some(GuestReportBuilder::of(&job, &sinks, false));
        Self::of_program(state, job, sinks, report, shared)
    }

    /// Makes a run for a guest that boots and then starts this interpreter, to be saved, once these
    /// layers are mounted.
    pub fn warming(
        job: JobFrame,
        mounts: Vec<File>,
        sinks: [Sink; 2],
        shared: Arc<Shared>,
    ) -> Self {
        let next = Box::new(StartState::Warming);
        let limits = JobLimits {
            withheld: 0,
            pids: job.pids_limit,
        };
        let state = StartState::Agent { job, next };
        Self::new(state, limits, FileStream::new(mounts), sinks, None, shared)
    }

    /// Makes a run for a guest that was saved while its interpreter asked for a job.
    pub fn warm(job: Job, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        let state = StartState::Handover(job.handover().into());
        let report = Some(GuestReportBuilder::of(&job, &sinks, !job.is_warm()));
        Self::of_program(state, job, sinks, report, shared)
    }

    fn of_program(
        state: StartState,
        job: Job,
        sinks: [Sink; 2],
        report: Option<GuestReportBuilder>,
        shared: Arc<Shared>,
    ) -> Self {
        let (limits, makes_files_first) = (limits(&job), job.has_files());
        let files = FileStream::new(job.into_files());
        Self {
            makes_files_first,
            ..Self::new(state, limits, files, sinks, report, shared)
        }
    }

    /// Sets the files to fetch once the program has ended.
    pub fn collect(&mut self, collection: Option<Collection>) {
        self.collection = collection;
    }

    /// Makes the output that of a terminal. The agent passes on what it shows, so only the agent knows when
    /// that was all.
    pub fn show_on(&mut self, modes: Option<Modes>) {
        self.modes = modes;
    }

    fn new(
        state: StartState,
        limits: JobLimits,
        files: FileStream,
        sinks: [Sink; 2],
        report: Option<GuestReportBuilder>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            shared,
            state,
            limits,
            files,
            makes_files_first: false,
            collection: None,
            sinks,
            modes: None,
            report,
            outcome: None,
            is_handed_over: false,
            started: None,
            first_output: None,
        }
    }

    /// Returns whether it is known how the job ended.
    pub fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }

    /// Returns how the job ended, if it did.
    pub fn into_outcome(self) -> Option<Outcome> {
        self.outcome
    }

    /// Returns when the program had its job and its files.
    pub fn started(&self) -> Option<Instant> {
        self.started
    }

    pub fn first_output(&self) -> Option<Instant> {
        self.first_output
    }

    /// Returns the byte counts of standard output and standard error.
    pub fn totals(&self) -> [Totals; 2] {
        self.sinks.each_ref().map(Sink::totals)
    }

    /// Takes the part of the program's output that was kept.
    pub fn take_kept(&mut self) -> [Option<Vec<u8>>; 2] {
        self.sinks.each_mut().map(Sink::take_kept)
    }

    /// Returns the end of both streams, as far as it was to be kept.
    pub fn ends(&self) -> [&[u8]; 2] {
        self.sinks.each_ref().map(Sink::end)
    }

    /// Takes what the guest reported beyond the output.
    pub fn take_report(&mut self) -> GuestReport {
        let report = self.report.take();
        report.map(GuestReportBuilder::finish).unwrap_or_default()
    }

    /// Returns whether the guest's interpreter waits for a job, so that the guest can be saved.
    pub fn is_warm(&self) -> bool {
        matches!(self.state, StartState::Warm)
    }

    /// Returns whether nothing more is wanted of the guest.
    pub fn is_done(&self) -> bool {
        self.has_ended() || self.shared.is_stopped() || self.is_warm()
    }

    /// Takes the standard input and signals that wait for the guest.
    pub fn take_input(&self) -> Vec<Frame> {
        self.shared.take_input()
    }

    /// Notes that the guest has left the connection, which is a crash unless the job has ended.
    pub fn disconnect(&mut self) {
        self.outcome
            .get_or_insert(Outcome::Crashed(Crash::ShutDown));
    }

    /// Handles a frame from the agent. An answer goes to the connection.
    pub fn handle(&mut self, frame: Frame, connection: &mut Connection) -> Result<(), Violation> {
        match (frame, &self.state) {
            (Frame::Ready, StartState::Agent { .. }) => self.start(connection),
            (frame, StartState::Agent { .. }) | (frame @ Frame::Ready, _) => {
                return Err(out_of_turn(&frame));
            }
            (Frame::TypedTaken(count), _) => self
                .shared
                .typed_taken(count as usize)
                .ok_or_else(|| Violation("input taken that was never sent".into()))?,
            (Frame::Exit(exit), _) => {
                self.ended(exit.into());
                if let Some(wish) = self.collection.as_mut().and_then(Collection::wish) {
                    connection.send(&wish);
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

    /// Notes that the program has ended with this outcome. The guest goes on for a while if files
    /// are to be fetched, unless the program was stopped.
    fn ended(&mut self, outcome: Outcome) {
        if self.shared.is_late() {
            self.outcome.get_or_insert(Outcome::TimedOut);
            return;
        }
        match (&mut self.collection, &outcome) {
            (Some(collection), Outcome::Exited(_) | Outcome::Signaled { .. }) => {
                collection.await_files(outcome);
            }
            _ => drop(self.outcome.get_or_insert(outcome)),
        }
    }

    fn start(&mut self, connection: &mut Connection) {
        let state = std::mem::replace(&mut self.state, StartState::Started);
        if let StartState::Agent { job, next } = state {
            self.state = *next;
            connection.send(&Frame::Start(job));
            // If an interpreter is started first, it gets the job later.
            if !matches!(self.state, StartState::Handover(_)) {
                self.is_handed_over = true;
                self.mark_start();
            }
        }
    }

    /// Begins the program's time, unless it has begun, once there is nothing more that it waits for.
    fn mark_start(&mut self) {
        let has_files = !self.makes_files_first || self.files.is_taken();
        if self.started.is_none() && self.is_handed_over && has_files {
            let now = Instant::now();
            self.started = Some(now);
            self.shared.started(now);
        }
    }
}

fn limits(job: &Job) -> JobLimits {
    JobLimits {
        withheld: job.withheld,
        pids: job.frame.pids_limit,
    }
}

fn out_of_turn(frame: &Frame) -> Violation {
    let name = format!("{frame:?}");
    let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
    Violation(format!("the agent sent {name} out of turn"))
}

impl HypercallHandler for JobRun {
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
            match &mut self.report {
                Some(report) if stream == stream::REPORTS => report.add_reports(bytes),
                Some(report) => report.add_events(bytes),
                None => {}
            }
            return Ok(());
        }
        let sink = match stream {
            stream::STDOUT => &mut self.sinks[0],
            stream::STDERR => &mut self.sinks[1],
            _ => return Err(Violation(format!("output to stream {stream}"))),
        };
        self.first_output.get_or_insert_with(Instant::now);
        let ended = self.collection.as_ref().is_some_and(Collection::is_awaited);
        if self.outcome.is_some() || ended {
            return Ok(());
        }
        if let Some(modes) = self.modes.as_mut().filter(|_| stream == stream::STDOUT) {
            modes.read(bytes);
        }
        match sink.deliver(bytes, || self.shared.is_stopped()) {
            Ok(()) => {}
            Err(Errno::EPIPE) => self.outcome = Some(Outcome::OutputClosed),
            Err(errno) => self.outcome = Some(Outcome::OutputFailed(errno as i32)),
        }
        Ok(())
    }

    fn job(&mut self, room: usize) -> Option<Vec<u8>> {
        if let StartState::Warming = self.state {
            self.state = StartState::Warm;
            return None;
        }
        let StartState::Handover(rest) = &mut self.state else {
            return Some(Vec::new());
        };
        let count = room.min(rest.len());
        let piece = rest.drain(..count).collect();
        self.is_handed_over = true;
        self.mark_start();
        Some(piece)
    }

    fn limits(&self) -> JobLimits {
        self.limits
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        let piece = match self.state {
            StartState::Started | StartState::Warming | StartState::Handover(_) => {
                self.files.take(room)
            }
            _ => Vec::new(),
        };
        self.mark_start();
        piece
    }

    fn no_files(&mut self, errno: u8) {
        self.outcome.get_or_insert(Outcome::NoFiles(errno));
    }

    fn exited(&mut self, status: u8) {
        if self.modes.is_some() {
            return;
        }
        self.ended(Outcome::Exited(status));
    }

    fn wants_stdin(&mut self) {
        self.shared.want_stdin();
    }

    fn input(&mut self, room: usize) -> Vec<u8> {
        self.shared.take_stdin(room)
    }

    fn has_begun(&self) -> bool {
        self.is_handed_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use crate::job::rehearsal;

    /// Hands a job with these files beside its script over to a saved machine.
    fn handed_over(files: Vec<File>) -> (JobRun, Arc<Shared>) {
        let image = Image::built_in();
        let mut job = rehearsal((image, &image.languages[0]), false, "pass");
        job.files = files;
        let shared = Arc::new(Shared::new().unwrap());
        let sinks = [Sink::memory(0), Sink::memory(0)];
        let mut run = JobRun::warm(job, sinks, Arc::clone(&shared));
        assert!(!run.has_begun());
        run.job(usize::MAX).unwrap();
        assert!(run.has_begun());
        (run, shared)
    }

    #[test]
    fn a_programs_time_begins_once_the_guest_has_all_of_its_files() {
        let file = File {
            path: b"/tmp/large".into(),
            content: vec![0; 1000],
            ..File::default()
        };
        let (mut run, shared) = handed_over(vec![file]);
        while !run.files.is_taken() {
            assert_eq!((run.started(), shared.start_time()), (None, None));
            assert!(!run.files(100).is_empty());
        }
        assert!(run.started().is_some());
        assert_eq!(run.started(), shared.start_time());
    }

    /// The guest makes a script when somebody first looks for any file, which may be never.
    #[test]
    fn a_programs_time_does_not_wait_for_its_script() {
        let (run, shared) = handed_over(Vec::new());
        assert!(!run.files.is_taken());
        assert!(run.started().is_some());
        assert_eq!(run.started(), shared.start_time());
    }
}
