//! The ways in which interpreters get cells, and tell what comes of them.

use crate::agent::{CellReport, Cells, Channels, GuestReportBuilder, Happening, Totals};
use crate::image::Framing;
use crate::session::channel::Channel;
use crate::session::guest::Guest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::channel::Command;
use guest::{CELL_SIGNAL, Cell, stream};
use std::fs::File;
use std::sync::Arc;

/// The way to an interpreter.
pub enum Line {
    /// The way to the machine's own interpreter, by hypercalls.
    Own(Arc<Cells>),
    /// The way to one beside it, by a channel.
    Beside(Box<Beside>),
}

/// An interpreter that runs as a command does.
pub struct Beside {
    channels: Arc<Channels>,
    channel: Channel,
    command: Command,
    framing: Framing,
    report: GuestReportBuilder,
    output: [Totals; 2],
    /// The most bytes that a cell may give of each stream.
    limit: u64,
    has_begun: bool,
    /// Whether the present interpreter ever waited for a cell.
    has_waited: bool,
}

impl Line {
    /// Starts another interpreter, which this command is.
    pub fn beside(
        channels: &Arc<Channels>,
        mut command: Command,
        framing: Framing,
        limit: u64,
        guest: &Guest,
    ) -> Self {
        command.reports = true;
        Self::Beside(Box::new(Beside {
            channels: Arc::clone(channels),
            channel: Channel::open(channels, command.clone(), guest),
            command,
            framing,
            report: GuestReportBuilder::new(limit, false),
            output: Default::default(),
            limit,
            has_begun: false,
            has_waited: false,
        }))
    }

    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Takes what happened first.
    pub fn take(&mut self, guest: &Guest) -> Option<Happening> {
        match self {
            Self::Own(cells) => cells.take(),
            Self::Beside(beside) => beside.take(guest),
        }
    }

    /// Gives the interpreter a cell.
    pub fn give(&mut self, cell: Cell, guest: &Guest) {
        match self {
            Self::Own(cells) => {
                cells.give(cell.encode());
                // After the cell before was interrupted, if it was: the agent passes signals on in their
                // order.
                guest.signal(CELL_SIGNAL, false);
            }
            Self::Beside(beside) => {
                beside.has_begun = false;
                let bytes = match beside.framing {
                    Framing::Lengths => cell.encode(),
                    Framing::Nul => ended_by_nul(cell),
                };
                beside.channel.give(&bytes, guest);
            }
        }
    }

    /// Has the machine's own interpreter come to a point, where the machine is saved to this file.
    pub fn give_point(&self, file: File, guest: &Guest) {
        if let Self::Own(cells) = self {
            cells.give_point(file);
            guest.signal(CELL_SIGNAL, false);
        }
    }

    /// Lets it pass the point without the machine being saved.
    pub fn give_up_point(&self) {
        if let Self::Own(cells) = self {
            cells.take_point();
        }
    }

    /// Returns whether the interpreter has begun the cell that was given last: only then an interrupt can
    /// be for it.
    pub fn is_taken(&self) -> bool {
        match self {
            Self::Own(cells) => cells.is_taken(),
            Self::Beside(beside) => beside.has_begun,
        }
    }

    pub fn interrupt(&self, guest: &Guest) {
        match self {
            Self::Own(_) => guest.signal(libc::SIGINT as u8, true),
            Self::Beside(beside) => beside.channel.signal(libc::SIGINT, guest),
        }
    }

    /// Ends the interpreter, in whose place another one comes.
    pub fn kill(&self, guest: &Guest) {
        match self {
            Self::Own(_) => guest.signal(libc::SIGKILL as u8, false),
            Self::Beside(beside) => beside.channel.signal(libc::SIGKILL, guest),
        }
    }

    /// Lets the guest go on without room, once it is to stop.
    pub fn release(&self) {
        if let Self::Own(cells) = self {
            cells.release();
        }
    }
}

impl Beside {
    fn take(&mut self, guest: &Guest) -> Option<Happening> {
        self.channel.take_passed_on(guest);
        while let Some((stream, bytes)) = self.channel.take_output(guest) {
            let happened = match stream {
                stream::REPORTS => self.reported(&bytes),
                stream => self.wrote(stream, bytes),
            };
            if happened.is_some() {
                return happened;
            }
        }
        let exit = self.channel.take_end()?;
        if std::mem::take(&mut self.has_waited) {
            self.channel = Channel::open(&self.channels, self.command.clone(), guest);
        }
        let told = self.take_report();
        Some(Happening::Ended { exit, told })
    }

    fn reported(&mut self, bytes: &[u8]) -> Option<Happening> {
        self.report.add_reports(bytes);
        self.has_begun |= self.report.take_begun();
        let status = self.report.take_cell()?;
        self.has_waited = true;
        let told = self.take_report();
        Some(Happening::Waits { status, told })
    }

    fn wrote(&mut self, stream: u8, mut bytes: Vec<u8>) -> Option<Happening> {
        let totals = &mut self.output[usize::from(stream != stream::STDOUT)];
        let allowed = self.limit - totals.delivered;
        totals.total += bytes.len() as u64;
        bytes.truncate(allowed.try_into().unwrap_or(usize::MAX));
        totals.delivered += bytes.len() as u64;
        (!bytes.is_empty()).then_some(Happening::Output { stream, bytes })
    }

    fn take_report(&mut self) -> Box<CellReport> {
        let fresh = GuestReportBuilder::new(self.limit, false);
        Box::new(CellReport {
            report: std::mem::replace(&mut self.report, fresh).finish(),
            output: std::mem::take(&mut self.output),
        })
    }
}

/// Returns a cell as a shell can read it.
fn ended_by_nul(cell: Cell) -> Vec<u8> {
    let number = cell.number.to_string().into_bytes();
    let input = STANDARD.encode(cell.stdin).into_bytes();
    [number, cell.code, input]
        .map(|mut word| {
            word.push(0);
            word
        })
        .concat()
}
