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
    state: State,
}

enum State {
    /// The program runs.
    Running,
    /// It ended like this.
    Ended(Outcome),
    /// And the guest was asked for the files.
    Asked(Outcome),
    /// It sent them, or all that anybody takes.
    Done,
}

impl Collection {
    /// What is at these absolute paths goes to this sink, as a stream of records
    /// ([`guest::Header`]).
    pub fn new(paths: Vec<Vec<u8>>, sink: Sink) -> Self {
        Self {
            paths,
            sink,
            state: State::Running,
        }
    }

    pub fn descriptor(&self) -> Option<RawFd> {
        self.sink.descriptor()
    }

    /// The program ended. What is said of that first counts.
    pub fn await_files(&mut self, outcome: Outcome) {
        if let State::Running = self.state {
            self.state = State::Ended(outcome);
        }
    }

    /// Whether nothing but files is wanted any more.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.state, State::Running)
    }

    /// What to say to an agent that says that the program ended; once.
    pub fn wish(&mut self) -> Option<Frame> {
        let State::Ended(outcome) = &self.state else {
            return None;
        };
        self.state = State::Asked(outcome.clone());
        Some(Frame::Collect(std::mem::take(&mut self.paths)))
    }

    /// All of it came. `None`: nobody had asked.
    pub fn finish(&mut self) -> Option<Outcome> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Asked(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The next bytes of the stream. Gives the outcome when nobody takes any more of them.
    pub fn deliver(&mut self, bytes: &[u8], shared: &Shared) -> Result<Option<Outcome>, Violation> {
        let State::Asked(_) = self.state else {
            return Err(Violation("files that nobody asked for".into()));
        };
        match self.sink.deliver(bytes, || shared.is_stopped()) {
            Ok(()) => Ok(None),
            Err(Errno::EPIPE) => Ok(self.finish()),
            Err(errno) => Err(Violation(format!("its files cannot be passed on: {errno}"))),
        }
    }
}
