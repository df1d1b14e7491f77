//! An interpreter of a session: the cells that wait for it, the one that runs, and what it has lost.

use crate::agent::{CellReport, Happening, Saved, events};
use crate::error::{Error, Kind};
use crate::limits::BOOT_LIMIT;
use crate::outcome::Outcome;
use crate::record::State;
use crate::session::answer::{end_message, end_of, ended};
use crate::session::background::Background;
use crate::session::facts::Facts;
use crate::session::guest::Guest;
use crate::session::interpreter_link::Line;
use crate::session::journal::Asked;
use crate::session::peers::{Id, Peers, UNSENT_MAX};
use crate::session::protocol::Message;
use crate::session::turn::{Step, Turn, Waiting};
use guest::{Cell, Exit, stream};
use std::collections::VecDeque;
use std::fs::File;
use std::mem::take;
use std::time::Instant;

/// The most cells that wait.
const QUEUE_MAX: usize = 8;

/// An interpreter, and its cells.
pub struct Context {
    line: Line,
    interpreter: Interpreter,
    waiting: VecDeque<Waiting>,
    turn: Option<Turn>,
    /// When a cell last ended.
    used: Instant,
    /// Output that came while no cell ran, for the next one.
    background: Background,
    /// Why variables are gone that a cell may count on, until one has been told.
    reset: Option<String>,
    /// Whether somebody has ended the interpreter to have another.
    is_restarted: bool,
    /// Whether its interpreter never came up, so that it is of no use.
    is_dead: bool,
    /// How the last point ended, if one did.
    passed: Option<Passed>,
}

/// The end of a point, at which the machine is saved.
pub enum Passed {
    Saved(Box<Saved>),
    /// The interpreter ended before.
    Lost,
}

#[derive(Clone, Copy, PartialEq)]
enum Interpreter {
    /// It is to be up by then.
    Starts(Instant),
    Waits,
    Runs,
}

impl Context {
    pub fn new(line: Line) -> Self {
        let now = Instant::now();
        Self {
            line,
            interpreter: Interpreter::Starts(now + BOOT_LIMIT),
            waiting: VecDeque::new(),
            turn: None,
            used: now,
            background: Background::default(),
            reset: None,
            passed: None,
            is_restarted: false,
            is_dead: false,
        }
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Ends the interpreter, so that another one takes its place.
    pub fn restart(&mut self, guest: &Guest) {
        if let Interpreter::Starts(_) = self.interpreter {
            // It is another one already.
            return;
        }
        self.is_restarted = true;
        if self.turn.is_none() {
            self.interpreter = self.next_interpreter();
        }
        self.line.kill(guest);
    }

    /// Refuses all cells that wait: the interpreter is of no use.
    pub fn refuse_all(&mut self, peers: &mut Peers) {
        for waiting in self.waiting.drain(..) {
            let error = Error::new(
                Kind::Guest,
                "the interpreter of the context does not come up",
                "see that the image has it, and that there is memory for it",
            );
            peers.tell(waiting.request.peer, &Message::Refused { error });
        }
    }

    /// Returns whether the interpreter waits for a cell.
    pub fn is_at_rest(&self) -> bool {
        self.interpreter == Interpreter::Waits
    }

    /// Returns whether cells run or wait.
    pub fn is_busy(&self) -> bool {
        self.turn.is_some() || !self.waiting.is_empty()
    }

    /// Returns why the machine cannot be saved now, if it cannot.
    pub fn why_busy(&self) -> Option<&'static str> {
        match (&self.turn, self.interpreter) {
            (Some(_), _) => Some("a cell runs"),
            (None, Interpreter::Starts(_)) => Some("its interpreter starts"),
            (None, _) if !self.waiting.is_empty() => Some("cells wait"),
            (None, _) => None,
        }
    }

    /// Has the interpreter come to a point, where the machine is saved to this file.
    pub fn begin_point(&mut self, file: File, guest: &Guest) {
        self.interpreter = Interpreter::Runs;
        self.line.give_point(file, guest);
    }

    /// Lets the interpreter pass the point without the machine being saved.
    pub fn give_up_point(&self) {
        self.line.give_up_point();
    }

    /// Takes how the last point ended.
    pub fn take_passed(&mut self) -> Option<Passed> {
        self.passed.take()
    }

    /// Returns the number of the cell that runs.
    pub fn running(&self) -> Option<u64> {
        self.turn.as_ref().map(|turn| turn.number)
    }

    /// Returns the number of cells that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn used(&self) -> Instant {
        self.used
    }

    /// Returns the next time at which something is to be done.
    pub fn next_time(&self) -> Option<Instant> {
        match (&self.turn, self.interpreter) {
            (Some(turn), _) => turn.deadline(),
            (None, Interpreter::Starts(deadline)) => Some(deadline),
            (None, _) => None,
        }
    }

    /// Returns whether a peer has cells here.
    pub fn is_of(&self, id: Id) -> bool {
        let mut waiting = self.waiting.iter();
        self.turn.as_ref().is_some_and(|turn| turn.peer == id)
            || waiting.any(|waiting| waiting.request.peer == id)
    }

    /// Has a cell wait for its turn, unless too many do.
    pub fn queue(&mut self, waiting: Waiting) -> Result<(), Error> {
        if self.waiting.len() >= QUEUE_MAX {
            return Err(Error::new(
                Kind::Request,
                format!("{QUEUE_MAX} cells of the session wait already"),
                "try again when one has ended, or interrupt the one that runs",
            ));
        }
        self.waiting.push_back(waiting);
        Ok(())
    }

    /// Interrupts the cell that runs, if it is this one or none is named; returns its number.
    pub fn interrupt(&mut self, cell: Option<u64>) -> Option<u64> {
        let turn = self.turn.as_mut();
        let turn = turn.filter(|turn| cell.is_none_or(|cell| cell == turn.number))?;
        turn.interrupt();
        Some(turn.number)
    }

    /// Ends the cell of a peer that is gone, and drops those that wait.
    pub fn leave(&mut self, id: Id, facts: &Facts) {
        self.waiting.retain(|waiting| waiting.request.peer != id);
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.peer == id) {
            turn.end(facts.limits.grace);
        }
    }

    /// Takes what happened, as far as readers are not behind.
    pub fn follow(&mut self, facts: &Facts, peers: &mut Peers, guest: &Guest) {
        while self.has_room(peers)
            && let Some(happening) = self.line.take(guest)
        {
            self.happened(happening, facts, peers);
        }
    }

    /// Takes the steps that are due. Returns why the session is over, if it is.
    pub fn look_at_clock(&mut self, facts: &Facts, guest: &Guest) -> Option<&'static str> {
        if let Some(turn) = &mut self.turn {
            match turn.step(self.line.is_taken(), facts.limits.grace)? {
                Step::Interrupt => self.line.interrupt(guest),
                Step::Kill => self.line.kill(guest),
                Step::GiveUp => return Some("its machine did not obey"),
            }
            return None;
        }
        match self.interpreter {
            Interpreter::Starts(deadline) if Instant::now() >= deadline => {
                Some("its interpreter did not come up")
            }
            _ => None,
        }
    }

    /// Begins the cell that waits longest, if the interpreter waits too. `number` is the number of the last
    /// one.
    pub fn begin_next(
        &mut self,
        number: &mut u64,
        (language, facts): (&str, &Facts),
        peers: &mut Peers,
        guest: &Guest,
    ) {
        if self.interpreter != Interpreter::Waits {
            return;
        }
        let Some(waiting) = self.waiting.pop_front() else {
            return;
        };
        *number += 1;
        let asked = || Asked::of_cell(language, &waiting.cell, waiting.request.timeout);
        if let Err(error) = facts.begins(*number, asked) {
            peers.tell(waiting.request.peer, &Message::Refused { error });
            return;
        }
        let turn = Turn::begin(waiting.request, *number);
        let cell = Cell {
            number: turn.number,
            ..waiting.cell
        };
        self.interpreter = Interpreter::Runs;
        self.line.give(cell, guest);
        for message in take(&mut self.background).into_messages() {
            peers.tell(turn.peer, &message);
        }
        peers.tell(turn.peer, &Message::Began { cell: turn.number });
        self.turn = Some(turn);
    }

    /// Takes the cell that runs, since the session is over.
    pub fn take_turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Lets the guest go on without room, once it is to stop.
    pub fn release(&self) {
        self.line.release();
    }

    /// Returns whether more of the guest's output can be taken: not while the reader is behind, unless its
    /// cell is being ended.
    fn has_room(&self, peers: &Peers) -> bool {
        self.turn
            .as_ref()
            .is_none_or(|turn| turn.is_ending() || peers.unsent(turn.peer) < UNSENT_MAX)
    }

    fn happened(&mut self, happening: Happening, facts: &Facts, peers: &mut Peers) {
        match happening {
            Happening::Output { stream, bytes } => {
                let name = stream_name(stream);
                match &self.turn {
                    None => self.background.add(name, bytes),
                    Some(turn) if peers.unsent(turn.peer) < UNSENT_MAX => {
                        peers.send(turn.peer, &events(name, &bytes));
                    }
                    // It is being ended, and nobody waits for its reader.
                    Some(_) => {}
                }
            }
            Happening::Waits { status, told } => {
                self.interpreter = self.next_interpreter();
                if let Some(turn) = self.turn.take() {
                    let outcome = match turn.is_late {
                        true => Outcome::TimedOut,
                        false => Outcome::Exited(status),
                    };
                    self.finish(turn, (outcome, *told), None, facts, peers);
                }
            }
            Happening::Saved(saved) => self.passed = Some(Passed::Saved(saved)),
            Happening::Ended { exit, told } => self.ended(exit, *told, facts, peers),
        }
    }

    /// Returns what to wait for: one that is being ended gets no cell any more.
    fn next_interpreter(&self) -> Interpreter {
        match self.is_restarted {
            true => Interpreter::Starts(Instant::now() + BOOT_LIMIT),
            false => Interpreter::Waits,
        }
    }

    /// Notes that the interpreter has ended, and another one takes its place.
    fn ended(&mut self, exit: Exit, told: CellReport, facts: &Facts, peers: &mut Peers) {
        self.passed = Some(Passed::Lost);
        let is_starting = matches!(self.interpreter, Interpreter::Starts(_));
        let never_came_up = is_starting && !self.is_restarted;
        self.is_dead = never_came_up && !self.line.is_own();
        self.interpreter = Interpreter::Starts(Instant::now() + BOOT_LIMIT);
        let is_restarted = take(&mut self.is_restarted);
        let restarted = || "it was restarted".to_owned();
        match self.turn.take() {
            Some(turn) => {
                let (outcome, why) = end_of(&turn, exit);
                let why = if is_restarted { restarted() } else { why };
                self.finish(turn, (outcome, told), Some(why), facts, peers);
            }
            None if is_restarted => self.reset = Some(restarted()),
            None => self.reset = Some(format!("between cells, {}", ended(exit))),
        }
    }

    /// Tells how a cell ended. `reset`: why the interpreter was started anew.
    fn finish(
        &mut self,
        turn: Turn,
        (outcome, told): (Outcome, CellReport),
        reset: Option<String>,
        facts: &Facts,
        peers: &mut Peers,
    ) {
        self.used = Instant::now();
        let before = self.reset.take();
        let why = reset.or(before);
        let state = if why.is_some() {
            State::Reset
        } else {
            State::Kept
        };
        let message = end_message(facts, &turn, outcome, told, (state, why.clone()));
        match peers.is_open(turn.peer) {
            true => peers.tell(turn.peer, &message),
            // The next one that can be told is told.
            false => self.reset = why,
        }
    }
}

/// Returns the name of a standard stream, as messages have it.
pub fn stream_name(stream: u8) -> &'static str {
    match stream {
        stream::STDOUT => "stdout",
        _ => "stderr",
    }
}
