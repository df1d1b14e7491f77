//! The commands that run beside a session's cells, each on a channel of its own.

use crate::agent::{CellReport, Channels, Totals, events};
use crate::error::{Error, Kind};
use crate::outcome::Outcome;
use crate::record::State;
use crate::session::answer::end_message;
use crate::session::channel::Channel;
use crate::session::context::stream_name;
use crate::session::facts::Facts;
use crate::session::guest::Guest;
use crate::session::journal::Asked;
use crate::session::peers::{Id, Peers, UNSENT_MAX};
use crate::session::protocol::Message;
use crate::session::turn::{Step, Turn, TurnRequest};
use guest::channel::Command;
use guest::{Exit, WindowSize, stream};
use std::sync::Arc;
use std::time::Instant;

/// The most commands at once.
const COMMANDS_MAX: usize = 16;
/// From so many bytes of input on that the guest has no room for, a peer is not read from.
const INPUT_MAX: usize = 1 << 20;

/// A command that a peer asks for.
pub struct AskedCommand {
    pub request: TurnRequest,
    pub command: Command,
    /// Whether its input comes later, or it has none.
    pub has_input: bool,
    /// The bytes of each output stream that are passed on; `None`: all.
    pub output_max: Option<u64>,
    /// The bytes of input that it may get.
    pub input_max: u64,
}

/// The commands that run.
pub struct Commands {
    channels: Arc<Channels>,
    running: Vec<Running>,
    /// When a command last ended.
    used: Instant,
}

/// A command that runs.
struct Running {
    turn: Turn,
    channel: Channel,
    output: [Totals; 2],
    output_max: Option<u64>,
    /// All bytes of input that came, and that may come.
    input: u64,
    input_max: u64,
    has_terminal: bool,
}

impl Commands {
    pub fn new(channels: Arc<Channels>) -> Self {
        Self {
            channels,
            running: Vec::new(),
            used: Instant::now(),
        }
    }

    pub fn count(&self) -> usize {
        self.running.len()
    }

    pub fn used(&self) -> Instant {
        self.used
    }

    /// Returns the next time at which something is to be done.
    pub fn next_time(&self) -> Option<Instant> {
        let deadlines = self.running.iter();
        deadlines
            .filter_map(|running| running.turn.deadline())
            .min()
    }

    /// Returns whether a peer has a command.
    pub fn is_of(&self, id: Id) -> bool {
        self.running.iter().any(|running| running.turn.peer == id)
    }

    /// Starts a command, which gets this number, unless too many run.
    pub fn start(
        &mut self,
        asked: AskedCommand,
        number: u64,
        facts: &Facts,
        peers: &mut Peers,
        guest: &Guest,
    ) -> Result<(), Error> {
        if self.running.len() >= COMMANDS_MAX {
            return Err(Error::new(
                Kind::Request,
                format!("{COMMANDS_MAX} commands of the session run already"),
                "try again when one has ended",
            ));
        }
        let AskedCommand {
            request, command, ..
        } = &asked;
        let in_log = || Asked::of_command(command, &facts.frame.env, request.timeout);
        facts.begins(number, in_log)?;
        let turn = Turn::begin(asked.request, number);
        peers.tell(turn.peer, &Message::Began { cell: number });
        let has_terminal = asked.command.terminal.is_some();
        let mut channel = Channel::open(&self.channels, asked.command, guest);
        if !asked.has_input {
            channel.end_input(guest);
        }
        self.running.push(Running {
            turn,
            channel,
            output: Default::default(),
            output_max: asked.output_max,
            input: 0,
            input_max: asked.input_max,
            has_terminal,
        });
        Ok(())
    }

    /// Interrupts the command with this number; returns that.
    pub fn interrupt(&mut self, number: u64) -> Option<u64> {
        let mut running = self.running.iter_mut();
        let found = running.find(|running| running.turn.number == number)?;
        found.turn.interrupt();
        Some(number)
    }

    /// Ends the command of a peer that is gone.
    pub fn leave(&mut self, id: Id, facts: &Facts) {
        if let Some(running) = self.of(id) {
            running.turn.end(facts.limits.grace);
        }
    }

    /// Passes input on to a peer's command, or its end. One that has ended already takes no notice.
    pub fn input(
        &mut self,
        id: Id,
        bytes: Option<Vec<u8>>,
        facts: &Facts,
        peers: &mut Peers,
        guest: &Guest,
    ) {
        let Some(running) = self.of(id) else {
            return;
        };
        match bytes {
            _ if running.channel.has_input_ended() => {}
            None => running.channel.end_input(guest),
            Some(bytes) => {
                running.input += bytes.len() as u64;
                running.channel.give(&bytes, guest);
                if running.input > running.input_max {
                    running.turn.end(facts.limits.grace);
                }
            }
        }
        peers.hold(id, running.channel.waiting() >= INPUT_MAX);
    }

    /// Tells a peer's command the size of its terminal's window.
    pub fn resize(&mut self, id: Id, size: WindowSize, guest: &Guest) {
        if let Some(running) = self.of(id) {
            running.channel.resize(size, guest);
        }
    }

    /// Takes what happened, as far as readers are not behind.
    pub fn follow(&mut self, facts: &Facts, peers: &mut Peers, guest: &Guest) {
        let mut at = 0;
        while let Some(running) = self.running.get_mut(at) {
            running.follow_output(peers, guest);
            running.follow_input(peers, guest);
            let Some(exit) = running.channel.take_end() else {
                at += 1;
                continue;
            };
            self.used = Instant::now();
            let ended = self.running.remove(at);
            let peer = ended.turn.peer;
            peers.hold(peer, false);
            peers.tell(peer, &ended.end_message(facts, exit));
        }
    }

    /// Takes the steps that are due. Returns why the session is over, if it is.
    pub fn look_at_clock(&mut self, facts: &Facts, guest: &Guest) -> Option<&'static str> {
        for running in &mut self.running {
            let signal = match running.turn.step(true, facts.limits.grace) {
                // Shells on a terminal take no notice of SIGINT; that nobody is there is told by the other.
                Some(Step::Interrupt) if running.has_terminal => libc::SIGHUP,
                Some(Step::Interrupt) => libc::SIGINT,
                Some(Step::Kill) => libc::SIGKILL,
                Some(Step::GiveUp) => return Some("its machine did not obey"),
                None => continue,
            };
            running.channel.signal(signal, guest);
        }
        None
    }

    /// Takes the commands that run, since the session is over.
    pub fn take_turns(&mut self) -> impl Iterator<Item = (Turn, CellReport)> {
        let running = std::mem::take(&mut self.running);
        running.into_iter().map(|running| {
            let told = CellReport {
                output: running.output,
                ..CellReport::default()
            };
            (running.turn, told)
        })
    }

    fn of(&mut self, id: Id) -> Option<&mut Running> {
        let mut running = self.running.iter_mut();
        running.find(|running| running.turn.peer == id)
    }
}

impl Running {
    fn follow_output(&mut self, peers: &mut Peers, guest: &Guest) {
        // Nobody waits for the reader of one that is being ended.
        let peer = self.turn.peer;
        let has_room = |peers: &Peers| peers.unsent(peer) < UNSENT_MAX;
        while (has_room(peers) || self.turn.is_ending())
            && let Some((stream, bytes)) = self.channel.take_output(guest)
        {
            let totals = &mut self.output[usize::from(stream != stream::STDOUT)];
            let allowed = self
                .output_max
                .map_or(u64::MAX, |most| most - totals.delivered);
            let piece = &bytes[..bytes.len().min(allowed.try_into().unwrap_or(usize::MAX))];
            totals.total += bytes.len() as u64;
            if has_room(peers) {
                totals.delivered += piece.len() as u64;
                peers.send(peer, &events(stream_name(stream), piece));
            }
        }
    }

    fn follow_input(&mut self, peers: &mut Peers, guest: &Guest) {
        let bytes = self.channel.take_passed_on(guest);
        if bytes > 0 {
            peers.tell(self.turn.peer, &Message::Taken { bytes });
            peers.hold(self.turn.peer, self.channel.waiting() >= INPUT_MAX);
        }
    }

    fn end_message(self, facts: &Facts, exit: Exit) -> Message {
        let outcome = match exit {
            _ if self.input > self.input_max => Outcome::InputLimit,
            _ if self.turn.is_late => Outcome::TimedOut,
            exit => exit.into(),
        };
        let told = CellReport {
            output: self.output,
            ..CellReport::default()
        };
        end_message(facts, &self.turn, outcome, told, (State::Kept, None))
    }
}
