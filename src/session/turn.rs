//! A cell or command that runs, and the steps by which one is ended whose time is over.

use crate::session::peers::Id;
use guest::Cell;
use std::time::{Duration, Instant};

/// The time that the guest has to end an interpreter.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// A request to run something.
pub struct TurnRequest {
    pub peer: Id,
    pub timeout: Option<Duration>,
    pub asked: Instant,
}

/// A cell that waits for its turn.
pub struct Waiting {
    pub request: TurnRequest,
    pub cell: Cell,
}

/// A cell or command that runs.
pub struct Turn {
    pub number: u64,
    pub peer: Id,
    pub timeout: Option<Duration>,
    pub asked: Instant,
    pub began: Instant,
    phase: Phase,
    /// The time of the next step.
    deadline: Option<Instant>,
    /// Whether its time limit is what ended it.
    pub is_late: bool,
    /// Whether an interrupt waits until the interpreter has taken the cell.
    is_interrupt_due: bool,
}

#[derive(PartialEq)]
enum Phase {
    Running,
    Interrupted,
    Killed,
}

/// A step against a cell that is to end.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Interrupt,
    /// End its interpreter, or the command.
    Kill,
    /// End the machine, which does not obey.
    GiveUp,
}

impl Turn {
    /// Begins a cell or command with this number.
    pub fn begin(request: TurnRequest, number: u64) -> Self {
        let now = Instant::now();
        Self {
            number,
            peer: request.peer,
            timeout: request.timeout,
            asked: request.asked,
            began: now,
            phase: Phase::Running,
            deadline: request.timeout.and_then(|limit| now.checked_add(limit)),
            is_late: false,
            is_interrupt_due: false,
        }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns the step that is due. `is_taken`: the guest has the cell or command.
    pub fn step(&mut self, is_taken: bool, grace: Duration) -> Option<Step> {
        if self.is_interrupt_due && is_taken {
            self.is_interrupt_due = false;
            return Some(Step::Interrupt);
        }
        let now = Instant::now();
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return None;
        }
        match self.phase {
            Phase::Running => {
                self.is_late = true;
                self.end(grace);
                self.step(is_taken, grace)
            }
            Phase::Interrupted => {
                self.phase = Phase::Killed;
                self.deadline = now.checked_add(KILL_TIMEOUT);
                Some(Step::Kill)
            }
            Phase::Killed => Some(Step::GiveUp),
        }
    }

    /// Has it interrupted.
    pub fn interrupt(&mut self) {
        self.is_interrupt_due = true;
    }

    /// Has it interrupted and, if it goes on for longer than the grace, ended.
    pub fn end(&mut self, grace: Duration) {
        if self.phase == Phase::Running {
            self.is_interrupt_due = true;
            self.phase = Phase::Interrupted;
            self.deadline = Instant::now().checked_add(grace);
        }
    }

    /// Returns whether it is being ended, so that nobody waits for a reader of its output.
    pub fn is_ending(&self) -> bool {
        self.phase != Phase::Running
    }

    /// Returns whether its interpreter, or the command, was ended.
    pub fn is_killed(&self) -> bool {
        self.phase == Phase::Killed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(timeout: Duration) -> Turn {
        let request = TurnRequest {
            peer: 1,
            timeout: Some(timeout),
            asked: Instant::now(),
        };
        Turn::begin(request, 1)
    }

    #[test]
    fn a_late_cell_is_interrupted_then_killed_then_given_up() {
        let mut turn = turn(Duration::ZERO);
        assert_eq!(turn.step(true, Duration::ZERO), Some(Step::Interrupt));
        assert!(turn.is_late && turn.is_ending() && !turn.is_killed());
        assert_eq!(turn.step(true, Duration::ZERO), Some(Step::Kill));
        assert!(turn.is_killed());
        assert_eq!(turn.step(true, Duration::ZERO), None);
        turn.deadline = Some(Instant::now());
        assert_eq!(turn.step(true, Duration::ZERO), Some(Step::GiveUp));
    }

    #[test]
    fn an_interrupt_waits_for_the_interpreter_to_have_the_cell() {
        let mut turn = turn(Duration::from_secs(1000));
        turn.interrupt();
        assert_eq!(turn.step(false, Duration::ZERO), None);
        assert_eq!(turn.step(true, Duration::ZERO), Some(Step::Interrupt));
        assert_eq!(turn.step(true, Duration::ZERO), None);
        assert!(!turn.is_late && !turn.is_ending());
    }
}
