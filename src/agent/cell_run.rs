//! The conversation with the guest of a session, whose interpreter runs cell after cell. It runs on the
//! vCPU thread; the main thread reaches it through [`Cells`], [`Channels`] and
//! [`Shared`].

use crate::agent::cells::{CellReport, Cells, Happening, Saved};
use crate::agent::channels::Channels;
use crate::agent::connection::Connection;
use crate::agent::guest_report::GuestReportBuilder;
use crate::agent::{Shared, Totals};
use crate::devices::Violation;
use crate::devices::vsock::Peer;
use crate::job::Job;
use crate::outcome::{Crash, Outcome};
use crate::vm::{HypercallHandler, JobLimits};
use guest::{Exit, FileStream, Frame, JobFrame, point_answer, stream};
use std::collections::VecDeque;
use std::fs::File;
use std::mem::take;
use std::sync::Arc;
use std::time::Instant;

/// The host's end of the conversation with the guest of a session.
pub struct CellRun {
    connection: Connection,
    shared: Arc<Shared>,
    cells: Arc<Cells>,
    channels: Arc<Channels>,
    /// The interpreter that takes the place of one that has ended.
    interpreter: JobFrame,
    /// The job that each interpreter gets first, and the part of a job or cell that is still to be taken.
    job: Vec<u8>,
    rest: VecDeque<u8>,
    limits: JobLimits,
    files: FileStream,
    /// The most bytes that a cell may give of each stream.
    limit: u64,
    output: [Totals; 2],
    report: GuestReportBuilder,
    /// Whether the present interpreter ever waited for a cell.
    has_waited: bool,
    progress: Progress,
    outcome: Option<Outcome>,
}

/// The interpreter's progress to a point, at which its machine is saved.
#[derive(PartialEq)]
enum Progress {
    None,
    /// It asks for its answer next.
    Comes,
    /// It waits for its answer.
    IsThere,
}

impl CellRun {
    /// Makes the conversation with a guest that was saved at a point, and whose interpreters got this job.
    pub fn another(
        job: Vec<u8>,
        interpreter: JobFrame,
        limits: JobLimits,
        limit: u64,
        (cells, channels): (Arc<Cells>, Arc<Channels>),
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            connection: Connection::new(),
            shared,
            cells,
            channels,
            interpreter,
            job,
            rest: point_answer(true).into(),
            limits,
            files: FileStream::new(Vec::new()),
            limit,
            output: Default::default(),
            report: GuestReportBuilder::new(limit, false),
            has_waited: true,
            progress: Progress::None,
            outcome: None,
        }
    }

    /// Makes the conversation with a guest that gets this job first, and asks for it itself or, if it
    /// boots, when an interpreter was started for it.
    pub fn new(
        job: Job,
        interpreter: JobFrame,
        limit: u64,
        queues: (Arc<Cells>, Arc<Channels>),
        shared: Arc<Shared>,
    ) -> Self {
        let handover = job.handover();
        let limits = JobLimits {
            withheld: job.withheld,
            pids: job.frame.pids_limit,
        };
        Self {
            rest: handover.clone().into(),
            files: FileStream::new(job.into_files()),
            has_waited: false,
            ..Self::another(handover, interpreter, limits, limit, queues, shared)
        }
    }

    /// Returns whether the interpreter waits at a point for its answer.
    pub fn is_at_point(&self) -> bool {
        self.outcome.is_none() && self.progress == Progress::IsThere
    }

    /// Returns whether nothing is under way to or from the guest.
    pub fn is_at_rest(&self) -> bool {
        self.connection.is_at_rest() && !self.shared.has_input()
    }

    /// Takes the file that the machine is to be saved to, unless nobody wants that any more.
    pub fn take_point(&self) -> Option<File> {
        self.cells.take_point()
    }

    /// Has the interpreter go on from the point.
    pub fn go_on(&mut self, saved: Option<Saved>) {
        self.progress = Progress::None;
        self.rest = point_answer(false).into();
        if let Some(saved) = saved {
            let saved = Happening::Saved(Box::new(saved));
            self.cells.tell(saved, &self.shared);
        }
    }

    /// Returns why the guest is of no use any more, if it told.
    pub fn into_outcome(self) -> Option<Outcome> {
        self.outcome
    }

    fn handle(&mut self, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Ready => self
                .connection
                .send(&Frame::Start(self.interpreter.clone())),
            // One that was told to start must have been heard of before it can end.
            Frame::Exit(exit) if self.connection.has_sent_all() => self.ended(exit),
            Frame::Channel(number, message) => {
                self.channels.receive(number, message)?;
                self.shared.tell();
            }
            other => return Err(Violation(format!("the agent sent {other:?} out of turn"))),
        }
        Ok(())
    }

    /// Starts another interpreter, unless the one that has ended never came up.
    fn ended(&mut self, exit: Exit) {
        if !take(&mut self.has_waited) {
            let crash = Crash::Violation("its interpreter does not come up".into());
            self.outcome.get_or_insert(Outcome::Crashed(crash));
            return;
        }
        self.progress = Progress::None;
        self.cells.take_point();
        let told = self.take_report();
        self.cells
            .tell(Happening::Ended { exit, told }, &self.shared);
        self.rest = self.job.clone().into();
        self.connection
            .send(&Frame::Start(self.interpreter.clone()));
        // Its input comes with the cells, as that of the first one.
        self.connection.send(&Frame::StdinEnd);
    }

    fn take_report(&mut self) -> Box<CellReport> {
        let fresh = GuestReportBuilder::new(self.limit, false);
        Box::new(CellReport {
            report: std::mem::replace(&mut self.report, fresh).finish(),
            output: take(&mut self.output),
        })
    }

    fn pass_on(&mut self, stream: u8, bytes: &[u8]) {
        let totals = match stream {
            stream::STDOUT => &mut self.output[0],
            _ => &mut self.output[1],
        };
        let allowed = self.limit - totals.delivered;
        let piece = &bytes[..bytes.len().min(allowed.try_into().unwrap_or(usize::MAX))];
        totals.total += bytes.len() as u64;
        totals.delivered += piece.len() as u64;
        if !piece.is_empty() {
            let bytes = piece.to_vec();
            self.cells
                .tell(Happening::Output { stream, bytes }, &self.shared);
        }
    }
}

impl Peer for CellRun {
    fn connected(&mut self) {
        self.connection.open();
    }

    fn disconnected(&mut self) {
        self.outcome
            .get_or_insert(Outcome::Crashed(Crash::ShutDown));
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.connection.receive(bytes);
        while self.outcome.is_none()
            && let Some(frame) = self.connection.next_frame()?
        {
            self.handle(frame)?;
        }
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        if self.connection.has_sent_all() {
            for frame in self.shared.take_input() {
                self.connection.send(&frame);
            }
        }
        self.connection.transmit(room)
    }

    fn is_done(&self) -> bool {
        self.outcome.is_some() || self.shared.is_stopped() || self.progress == Progress::IsThere
    }
}

impl HypercallHandler for CellRun {
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        match stream {
            stream::REPORTS => {
                self.report.add_reports(bytes);
                if let Some(status) = self.report.take_cell() {
                    self.has_waited = true;
                    let told = self.take_report();
                    self.cells
                        .tell(Happening::Waits { status, told }, &self.shared);
                }
            }
            stream::EVENTS => self.report.add_events(bytes),
            stream::STDOUT | stream::STDERR => self.pass_on(stream, bytes),
            _ => return Err(Violation(format!("output to stream {stream}"))),
        }
        Ok(())
    }

    fn job(&mut self, room: usize) -> Option<Vec<u8>> {
        if self.shared.start_time().is_none() {
            self.shared.started(Instant::now());
        }
        if self.rest.is_empty() {
            if self.progress == Progress::Comes {
                self.progress = Progress::IsThere;
                return None;
            }
            let (next, is_point) = self.cells.take_next();
            self.rest = next.into();
            if is_point {
                self.progress = Progress::Comes;
            }
            self.shared.tell();
        }
        let count = room.min(self.rest.len());
        Some(self.rest.drain(..count).collect())
    }

    fn limits(&self) -> JobLimits {
        self.limits
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        self.files.take(room)
    }

    fn no_files(&mut self, errno: u8) {
        self.outcome.get_or_insert(Outcome::NoFiles(errno));
    }

    // The agent tells of the end too, once nothing of the program runs any more.
    fn exited(&mut self, _: u8) {}

    // It comes with the cells.
    fn wants_stdin(&mut self) {}

    fn input(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn has_begun(&self) -> bool {
        self.shared.start_time().is_some()
    }
}
