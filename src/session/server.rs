//! The main thread of a session: it takes requests, has cells and commands run, and watches the clock.

use crate::agent::{CellReport, CellRun, Cells, Channels, Shared};
use crate::error::{Error, Kind};
use crate::outcome::Outcome;
use crate::record::State;
use crate::session::answer::end_message;
use crate::session::captured_output::bytes_of;
use crate::session::commands::{AskedCommand, Commands};
use crate::session::contexts::{Contexts, Which};
use crate::session::facts::Facts;
use crate::session::guest::Guest;
use crate::session::owner::{Owner, Tie};
use crate::session::peers::{Heard, Id, Peers, Ready};
use crate::session::points::Points;
use crate::session::protocol::{Bounds, Description, Message, Request};
use crate::session::request_check;
use crate::signals::Signals;
use crate::units::rough;
use crate::vm::{End, Vm};
use crate::watchdog::Watchdog;
use anyhow::Result;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval at which the vCPU thread is kicked while a cell runs, so that it sees whether its guest has
/// halted for good.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);

/// A session at work.
pub struct Server {
    pub facts: Facts,
    pub peers: Peers,
    pub shared: Arc<Shared>,
    pub signals: Signals,
    /// The ties to those with whose end it is to end.
    pub ties: Vec<Tie>,
    /// The means for its machine to go on in others.
    pub points: Option<Points>,
    pub began: Instant,
    pub contexts: Contexts,
    pub commands: Commands,
    /// The number of the last cell or command.
    pub number: u64,
    /// Why it is over.
    over: Option<String>,
}

impl Server {
    pub fn new(
        facts: Facts,
        peers: Peers,
        (cells, channels): (Arc<Cells>, Arc<Channels>),
        shared: Arc<Shared>,
        signals: Signals,
    ) -> Self {
        Self {
            facts,
            peers,
            shared,
            signals,
            ties: Vec::new(),
            points: None,
            began: Instant::now(),
            contexts: Contexts::new(cells, Arc::clone(&channels)),
            commands: Commands::new(channels),
            number: 0,
            over: None,
        }
    }

    /// Serves until the session is over. `ready` is called once its interpreter waits.
    pub fn run(
        &mut self,
        watchdog: Watchdog<CellRun>,
        mut ready: Option<impl FnOnce() -> Result<()>>,
    ) -> Result<()> {
        let served = self.serve(&watchdog, &mut ready);
        self.shared.stop();
        self.contexts.release();
        // The guest is stopped whatever the result was: nobody else would do it.
        let (vm, ended) = watchdog.stop()?;
        served?;
        let outcome = match ended?.1 {
            End::Crashed(crash) => Outcome::Crashed(crash),
            End::Done => outcome_of(vm),
        };
        let why = self.over.clone();
        let why = why.unwrap_or_else(|| match outcome.explanation(&self.facts.limits) {
            Some(error) => error.message,
            None => "its machine ended".into(),
        });
        self.say_farewell(&why, outcome)
    }

    fn serve(
        &mut self,
        watchdog: &Watchdog<CellRun>,
        ready: &mut Option<impl FnOnce() -> Result<()>>,
    ) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let guest = Guest {
            shared: &shared,
            watchdog,
        };
        while self.over.is_none() {
            let peers = self.wait(watchdog)?;
            let has_ended = self.shared.has_ended();
            self.shared.acknowledge();
            if let Some(received) = self.signals.take()?
                && received.asks_to_stop()
            {
                self.over = Some(format!("{} asked its process to stop", received.signal));
            }
            self.look_at_owners();
            for heard in self.peers.serve(peers)? {
                self.hear(heard, &guest);
            }
            self.contexts.follow(&self.facts, &mut self.peers, &guest);
            self.commands.follow(&self.facts, &mut self.peers, &guest);
            if self.contexts.is_up()
                && let Some(ready) = ready.take()
            {
                ready()?;
            }
            if has_ended {
                return Ok(());
            }
            self.look_at_clock(&guest);
            self.look_at_points(&guest);
            let Self {
                number,
                facts,
                peers,
                ..
            } = self;
            self.contexts.begin_next(number, facts, peers, &guest);
        }
        Ok(())
    }

    /// Waits until there is something to do; returns which connections it is for.
    fn wait(&self, watchdog: &Watchdog<CellRun>) -> Result<Ready> {
        let next = [self.contexts.next_time(), self.commands.next_time()];
        let next = next.into_iter().flatten().fold(self.end(), Instant::min);
        let wait = next.saturating_duration_since(Instant::now());
        let works = !self.contexts.are_at_rest() || self.commands.count() > 0;
        let pulse = works.then_some(PULSE_INTERVAL);
        let wait = pulse.map_or(wait, |pulse| pulse.min(wait));
        let mut others = vec![self.signals.as_fd(), self.shared.news()];
        others.extend(self.ties.iter().map(Tie::as_fd));
        let ready = self.peers.wait(&others, wait)?;
        if ready.is_none() && pulse.is_some() {
            watchdog.kick();
        }
        Ok(ready.unwrap_or_default())
    }

    fn look_at_owners(&mut self) {
        let over = &mut self.over;
        self.ties.retain(|tie| {
            let owner = tie.look();
            if owner == Owner::IsGone {
                *over = Some("whoever it was started for has ended".into());
            }
            owner != Owner::LetsGo
        });
    }

    /// Returns when it was last of use, unless it is now.
    fn used(&self) -> Option<Instant> {
        let is_idle = !self.contexts.are_running() && self.commands.count() == 0;
        is_idle.then(|| self.contexts.used().max(self.commands.used()))
    }

    /// Returns the time at which it ends, if nothing is asked for.
    fn end(&self) -> Instant {
        let Bounds { idle, age, .. } = self.facts.bounds;
        let age = self.began + age;
        self.used().map_or(age, |used| age.min(used + idle))
    }

    fn look_at_clock(&mut self, guest: &Guest) {
        let now = Instant::now();
        let Bounds { idle, age, .. } = self.facts.bounds;
        let disobeyed = self.contexts.look_at_clock(&self.facts, guest);
        let disobeyed = disobeyed.or_else(|| self.commands.look_at_clock(&self.facts, guest));
        if now >= self.began + age {
            self.over = Some(format!("it was {} old", rough(age.as_secs())));
        } else if let Some(why) = disobeyed {
            self.over = Some(why.into());
        } else if self.contexts.are_at_rest() && !self.contexts.are_busy() && now >= self.end() {
            let idle = rough(idle.as_secs());
            self.over = Some(format!("it was asked nothing for {idle}"));
        }
    }

    fn hear(&mut self, heard: Heard, guest: &Guest) {
        match heard {
            Heard::Line(id, line) => {
                let request = serde_json::from_slice(&line).map_err(|error| {
                    let message = format!("this is not a request to a session: {error}");
                    Error::new(Kind::Request, message, "see docs/session-protocol.md")
                });
                let done = request.and_then(|request| self.carry_out(id, request, guest));
                if let Err(error) = done {
                    self.peers.tell(id, &Message::Refused { error });
                }
            }
            Heard::TooLong(id) | Heard::Gone(id) => {
                self.contexts.leave(id, &self.facts);
                self.commands.leave(id, &self.facts);
            }
        }
    }

    fn carry_out(&mut self, id: Id, request: Request, guest: &Guest) -> Result<(), Error> {
        match request {
            Request::Interrupt { cell } => {
                let command = cell.and_then(|number| self.commands.interrupt(number));
                let cell = command.or_else(|| self.contexts.interrupt(cell));
                self.peers.tell(id, &Message::Interrupted { cell });
            }
            Request::Describe {} => {
                let description = self.describe();
                self.peers.tell(id, &Message::Described(description));
            }
            Request::Save { purpose } => self.ask_for_point(id, purpose),
            Request::Stop {} => self.over = Some("it was asked to stop".into()),
            Request::Restart { context } => {
                self.contexts.restart(context.as_deref(), guest)?;
                self.peers.tell(id, &Message::Restarted {});
            }
            Request::Run {
                code,
                context,
                language,
                stdin,
                timeout_s,
            } => {
                let which = Which {
                    name: context,
                    language,
                };
                check_free(self.commands.is_of(id))?;
                let asked = request_check::cell(&self.facts, id, (code, stdin), timeout_s)?;
                self.contexts.queue(&which, asked, &self.facts, guest)?;
            }
            Request::Exec { .. } | Request::Put { .. } | Request::Get { .. } => {
                let asked = request_check::command(&self.facts, id, request)?;
                self.start(id, asked, guest)?;
            }
            Request::Input { data, encoding } => {
                let bytes = bytes_of(data, encoding).map_err(|error| not_base64(&error))?;
                self.input(id, Some(bytes), guest);
            }
            Request::InputEnd {} => self.input(id, None, guest),
            Request::Resize(size) => self.commands.resize(id, size.into(), guest),
        }
        Ok(())
    }

    fn start(&mut self, id: Id, asked: AskedCommand, guest: &Guest) -> Result<(), Error> {
        check_free(self.commands.is_of(id) || self.contexts.is_of(id))?;
        self.number += 1;
        self.commands
            .start(asked, self.number, &self.facts, &mut self.peers, guest)
    }

    fn input(&mut self, id: Id, bytes: Option<Vec<u8>>, guest: &Guest) {
        self.commands
            .input(id, bytes, &self.facts, &mut self.peers, guest);
    }

    fn describe(&self) -> Description {
        let now = Instant::now();
        let (cell, waiting) = self.contexts.own();
        Description {
            name: self.facts.name.clone(),
            pid: std::process::id(),
            is_logged: self.facts.journal.is_some(),
            cell,
            waiting,
            contexts: self.contexts.describe(),
            commands: self.commands.count(),
            cells: self.number,
            workdir: String::from_utf8_lossy(&self.facts.frame.workdir).into(),
            memory: self.facts.limits.memory,
            age_s: self.began.elapsed().as_secs_f64(),
            idle_s: self.used().map_or(0.0, |used| used.elapsed().as_secs_f64()),
            left_s: self.end().saturating_duration_since(now).as_secs_f64(),
        }
    }

    /// Tells everybody that it is over, and the peers of what runs how that ended.
    fn say_farewell(&mut self, why: &str, outcome: Outcome) -> Result<()> {
        let cells = self.contexts.take_turns().into_iter();
        let cells = cells.map(|turn| (turn, CellReport::default()));
        for (turn, told) in cells.chain(self.commands.take_turns()) {
            let outcome = match &self.over {
                Some(_) if turn.is_late => Outcome::TimedOut,
                Some(_) => Outcome::Interrupted(libc::SIGTERM as u8),
                None => outcome.clone(),
            };
            let lost = (State::Lost, Some(why.into()));
            let message = end_message(&self.facts, &turn, outcome, told, lost);
            self.peers.tell(turn.peer, &message);
        }
        if let Some(journal) = &self.facts.journal {
            journal.end(why);
        }
        for id in self.peers.ids() {
            self.peers.tell(id, &Message::Over { why: why.into() });
        }
        self.peers.deliver()
    }
}

/// Checks that a connection has nothing else: what comes on it tells not of what.
fn check_free(has_other: bool) -> Result<(), Error> {
    match has_other {
        false => Ok(()),
        true => Err(Error::new(
            Kind::Request,
            "this connection has a command, or cells, already",
            "wait for the end, or connect again",
        )),
    }
}

fn not_base64(error: &anyhow::Error) -> Error {
    Error::new(
        Kind::Request,
        format!("the input cannot be read: {error:#}"),
        "encode it in base64, or send text",
    )
}

fn outcome_of(vm: Vm<CellRun>) -> Outcome {
    let outcome = vm.into_host().into_outcome();
    outcome.unwrap_or(Outcome::Interrupted(libc::SIGTERM as u8))
}
