//! The conversation with the guest: Ready → Start → output → Exit; or, with a guest that was saved
//! when it was warm, job → output → Exit. If files are wanted, Collect → files → Collected follows.
//!
//! It runs on the vCPU thread, as the peer of the vsock device and the handler of hypercalls. The
//! main thread reaches it through [`Shared`].

mod cell_run;
mod cells;
mod channels;
mod collection;
mod connection;
mod console;
mod guest_report;
mod input;
mod job_run;
mod output_event;
mod output_sink;
pub use cell_run::CellRun;
pub use cells::{CellReport, Cells, Happening, Saved};
pub use channels::Channels;
pub use collection::Collection;
pub use console::Console;
pub use guest_report::{GuestReport, GuestReportBuilder};
pub use input::Shared;
pub use output_event::events;
pub use output_sink::{Sink, Totals};

use crate::devices::Violation;
use crate::devices::vsock::Peer;
use crate::job::Job;
use crate::outcome::Outcome;
use crate::terminal::Modes;
use crate::vm::{HypercallHandler, JobLimits};
use connection::Connection;
use guest::{File, JobFrame};
use job_run::JobRun;
use std::sync::Arc;
use std::time::Instant;

/// The host's end of the conversation with one guest.
pub struct Session {
    connection: Connection,
    job: JobRun,
}

/// The times at which the guest reached certain points, taken on the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Milestones {
    /// When the agent opened the connection, its first act as PID 1.
    pub connected: Option<Instant>,
    /// When the job was handed over.
    pub started: Option<Instant>,
    pub first_output: Option<Instant>,
}

impl Session {
    /// Makes a session with a guest that boots and then gets this job.
    pub fn cold(job: Job, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        Self::new(JobRun::cold(job, sinks, shared))
    }

    /// Makes a session with a guest that boots and then starts this interpreter, to be saved, once
    /// these layers are mounted.
    pub fn warming(
        job: JobFrame,
        mounts: Vec<File>,
        sinks: [Sink; 2],
        shared: Arc<Shared>,
    ) -> Self {
        Self::new(JobRun::warming(job, mounts, sinks, shared))
    }

    /// Makes a session with a guest that was saved while its interpreter asked for a job.
    pub fn warm(job: Job, sinks: [Sink; 2], shared: Arc<Shared>) -> Self {
        Self::new(JobRun::warm(job, sinks, shared))
    }

    fn new(job: JobRun) -> Self {
        Self {
            connection: Connection::new(),
            job,
        }
    }

    /// Sets the files to fetch once the program has ended.
    pub fn collecting(mut self, collection: Option<Collection>) -> Self {
        self.job.collect(collection);
        self
    }

    /// Makes the output that of a terminal with these modes.
    pub fn shown_on(mut self, modes: Option<Modes>) -> Self {
        self.job.show_on(modes);
        self
    }

    /// Returns how the program ended, if it did, with the byte counts of its output and the
    /// milestones.
    pub fn into_result(self) -> (Option<Outcome>, [Totals; 2], Milestones) {
        let milestones = Milestones {
            connected: self.connection.opened(),
            started: self.job.started(),
            first_output: self.job.first_output(),
        };
        let totals = self.job.totals();
        (self.job.into_outcome(), totals, milestones)
    }

    /// Takes the part of the program's output that was kept.
    pub fn take_kept(&mut self) -> [Option<Vec<u8>>; 2] {
        self.job.take_kept()
    }

    /// Returns the end of both streams, as far as it was to be kept.
    pub fn ends(&self) -> [&[u8]; 2] {
        self.job.ends()
    }

    /// Takes what the guest reported beyond the output.
    pub fn take_report(&mut self) -> GuestReport {
        self.job.take_report()
    }

    /// Returns whether the guest's interpreter waits for a job and nothing else is under way.
    pub fn is_warm(&self) -> bool {
        self.job.is_warm() && self.connection.is_at_rest()
    }
}

impl Peer for Session {
    fn connected(&mut self) {
        self.connection.open();
    }

    fn disconnected(&mut self) {
        self.job.disconnect();
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.connection.receive(bytes);
        while !self.job.has_ended()
            && let Some(frame) = self.connection.next_frame()?
        {
            self.job.handle(frame, &mut self.connection)?;
        }
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        if self.connection.has_sent_all() {
            for frame in self.job.take_input() {
                self.connection.send(&frame);
            }
        }
        self.connection.transmit(room)
    }

    fn is_done(&self) -> bool {
        self.job.is_done()
    }
}

impl HypercallHandler for Session {
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        self.job.output(stream, bytes)
    }

    fn job(&mut self, room: usize) -> Option<Vec<u8>> {
        self.job.job(room)
    }

    fn limits(&self) -> JobLimits {
        self.job.limits()
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        self.job.files(room)
    }

    fn no_files(&mut self, errno: u8) {
        self.job.no_files(errno);
    }

    fn exited(&mut self, status: u8) {
        self.job.exited(status);
    }

    fn wants_stdin(&mut self) {
        self.job.wants_stdin();
    }

    fn input(&mut self, room: usize) -> Vec<u8> {
        self.job.input(room)
    }

    fn has_begun(&self) -> bool {
        self.job.has_begun()
    }
}
