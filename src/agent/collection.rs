//! Files that the guest is to send once its program has ended.

use crate::agent::{Shared, Sink};
use crate::devices::Violation;
use crate::outcome::Outcome;
use guest::Frame;
use nix::errno::Errno;
use std::os::fd::RawFd;

pub struct Collection {
    paths: Vec<Vec<u8>>,
    sink: Sink,
    phase: Phase,
}

enum Phase {
    /// The program runs.
    Running,
    /// The program has ended with this outcome.
    Ended(Outcome),
    /// The program has ended with this outcome, and the guest was asked for the files.
    Asked(Outcome),
    /// The guest has sent the files, or as much of them as the reader takes.
    Done,
}

impl Collection {
    /// Makes a collection of the files at these absolute paths, which go to the sink as a stream
    /// of records ([`guest::Header`]).
    pub fn new(paths: Vec<Vec<u8>>, sink: Sink) -> Self {
        Self {
            paths,
            sink,
            phase: Phase::Running,
        }
    }

    pub fn descriptor(&self) -> Option<RawFd> {
        self.sink.descriptor()
    }

    /// Notes that the program has ended. Only the first report of its end counts.
    pub fn await_files(&mut self, outcome: Outcome) {
        if let Phase::Running = self.phase {
            self.phase = Phase::Ended(outcome);
        }
    }

    /// Returns whether the program has ended, so that only its files are still wanted.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    /// Returns the frame that asks the agent for the files, once the program has ended. It is
    /// returned only once.
    pub fn wish(&mut self) -> Option<Frame> {
        let Phase::Ended(outcome) = &self.phase else {
            return None;
        };
        self.phase = Phase::Asked(outcome.clone());
        Some(Frame::Collect(std::mem::take(&mut self.paths)))
    }

    /// Notes that all files have arrived. Returns the program's outcome, or `None` if the guest
    /// was not asked for files.
    pub fn finish(&mut self) -> Option<Outcome> {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Asked(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Passes on the next bytes of the stream. Returns the program's outcome when the reader takes
    /// no more of them.
    pub fn deliver(&mut self, bytes: &[u8], shared: &Shared) -> Result<Option<Outcome>, Violation> {
        let Phase::Asked(_) = self.phase else {
            return Err(Violation("files that nobody asked for".into()));
        };
        match self.sink.deliver(bytes, || shared.is_stopped()) {
            Ok(()) => Ok(None),
            Err(Errno::EPIPE) => Ok(self.finish()),
            Err(errno) => Err(Violation(format!("its files cannot be passed on: {errno}"))),
        }
    }
}
