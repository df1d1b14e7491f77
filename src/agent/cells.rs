//! What happens in a session's guest, on its way from the vCPU thread to the main thread, and the cell on
//! its way back.

use crate::agent::{GuestReport, Shared, Totals};
use crate::vm::{Pages, State as MachineState};
use anyhow::Result;
use guest::{Cell, Exit};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::mem::take;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bytes that the main thread can be behind: then the guest waits for it.
const HELD_MAX: usize = 1 << 20;
/// The most bytes of one piece of output.
const PIECE_MAX: usize = 64 << 10;

/// A thing that happened, in the order in which it did.
#[derive(Debug)]
pub enum Happening {
    /// A program wrote to a standard stream ([`guest::stream`]).
    Output { stream: u8, bytes: Vec<u8> },
    /// The interpreter waits for a cell. The status is that of the cell before.
    Waits { status: u8, told: Box<CellReport> },
    /// The interpreter has ended, and another one takes its place.
    Ended { exit: Exit, told: Box<CellReport> },
    /// The machine was saved, and goes on.
    Saved(Box<Saved>),
}

/// The machine at a point: its state, and its own pages in the file. `None`: it was not at rest.
pub struct Saved {
    pub file: File,
    pub machine: Result<Option<(MachineState, Pages)>>,
    /// How long the guest stood still for it.
    pub paused: Duration,
}

impl fmt::Debug for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Saved in {:?}", self.paused)
    }
}

/// The interpreter's reports since it last waited, and the byte counts of both streams.
#[derive(Debug, Default)]
pub struct CellReport {
    pub report: GuestReport,
    pub output: [Totals; 2],
}

/// The queue of what happened, and the cell that is to be handed over.
#[derive(Default)]
pub struct Cells {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    next: Vec<u8>,
    /// Whether that is no cell but a point, and the file for the machine, which is to be saved there.
    is_point: bool,
    point: Option<File>,
    /// Whether the interpreter has taken it.
    is_taken: bool,
    happened: VecDeque<Happening>,
    held: usize,
}

impl Happening {
    /// Returns the room that it takes. A report takes all: there is one at a time.
    fn size(&self) -> usize {
        match self {
            Self::Output { bytes, .. } => bytes.len(),
            Self::Waits { .. } | Self::Ended { .. } | Self::Saved(_) => HELD_MAX,
        }
    }
}

impl Cells {
    /// Puts the next cell where the interpreter finds it. The main thread calls this.
    pub fn give(&self, cell: Vec<u8>) {
        let mut state = self.state();
        state.next = cell;
        state.is_taken = false;
    }

    /// Has the interpreter come to a point, where the machine is saved to this file. The main thread calls
    /// this.
    pub fn give_point(&self, file: File) {
        let point = Cell {
            number: Cell::POINT,
            ..Cell::default()
        };
        self.give(point.encode());
        let mut state = self.state();
        state.is_point = true;
        state.point = Some(file);
    }

    /// Takes the file for the machine, which then is not saved by another.
    pub fn take_point(&self) -> Option<File> {
        self.state().point.take()
    }

    /// Returns whether the interpreter has taken the cell that was given last: only then an interrupt can
    /// be for it. The main thread calls this.
    pub fn is_taken(&self) -> bool {
        self.state().is_taken
    }

    /// Takes what happened first. The main thread calls this.
    pub fn take(&self) -> Option<Happening> {
        let mut state = self.state();
        let happening = state.happened.pop_front()?;
        state.held -= happening.size();
        self.room.notify_all();
        Some(happening)
    }

    /// Lets the vCPU thread go on without room, once it is to stop. The main thread calls this.
    pub fn release(&self) {
        let _state = self.state();
        self.room.notify_all();
    }

    /// Takes the cell that was given, and whether it is a point. The vCPU thread calls this.
    pub fn take_next(&self) -> (Vec<u8>, bool) {
        let mut state = self.state();
        state.is_taken = true;
        (take(&mut state.next), take(&mut state.is_point))
    }

    /// Tells the main thread what happened; waits until there is room. The vCPU thread calls this.
    pub fn tell(&self, happening: Happening, shared: &Shared) {
        let mut state = self.state();
        while state.held >= HELD_MAX && !shared.is_stopped() {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.held += happening.size();
        match (state.happened.back_mut(), happening) {
            (
                Some(Happening::Output { stream, bytes }),
                Happening::Output {
                    stream: same,
                    bytes: more,
                },
            ) if *stream == same && bytes.len() + more.len() <= PIECE_MAX => bytes.extend(more),
            (_, happening) => state.happened.push_back(happening),
        }
        drop(state);
        shared.tell();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is complete before the lock is released, so a poisoned lock is harmless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
