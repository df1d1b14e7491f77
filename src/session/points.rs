//! Requests that a session's machine be saved, to go on in others, and what is saved beside the machine.

use crate::agent::Saved;
use crate::checkpoint::{Interpreter, Point};
use crate::clock::since_1970;
use crate::error::{Error, Kind, Remedy, Session};
use crate::run::Lineage;
use crate::session::facts::Facts;
use crate::session::peers::Id;
use crate::session::protocol::Message;
use crate::vm::{Pages, State};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long the interpreter may take to come to a point, which threads of the program may keep it from.
const POINT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a machine is saved anew that was not at rest.
const TRIES: u32 = 20;

/// The state that is saved beside the machine, and the peers that wait for it.
pub struct Points {
    lineage: Result<Lineage, &'static str>,
    interpreter: Interpreter,
    /// The bytes of the machine's memory.
    memory: u64,
    asked: Option<SaveRequest>,
    passing: Option<SaveRequest>,
}

/// A request that the machine be saved, with the file unless that is under way.
struct SaveRequest {
    peer: Id,
    file: Option<File>,
    deadline: Instant,
    tries: u32,
    /// The number of the last cell or command before.
    number: u64,
}

impl Points {
    pub fn new(
        lineage: Result<Lineage, &'static str>,
        interpreter: Interpreter,
        memory: u64,
    ) -> Self {
        Self {
            lineage,
            interpreter,
            memory,
            asked: None,
            passing: None,
        }
    }

    /// Takes a request, with the file that came with it. `busy`: why the session is not quiet. It is written down
    /// once nothing else is against it.
    pub fn ask(
        &mut self,
        peer: Id,
        file: Option<OwnedFd>,
        busy: Option<&str>,
        write_down: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Err(why) = self.lineage {
            let message = format!("the session cannot be forked or saved: {why}");
            let remedy = "start one without that, and put the files in afterwards";
            return Err(Error::new(Kind::Request, message, remedy));
        }
        let others = self.asked.is_some() || self.passing.is_some();
        let busy = busy.or(others.then_some("it is just being forked or saved"));
        if let Some(why) = busy {
            return Err(Error::new(
                Kind::Request,
                format!("the session cannot be forked or saved now: {why}"),
                Remedy::UseSession(Session::Interrupt),
            ));
        }
        let Some(file) = file else {
            return Err(Error::new(
                Kind::Request,
                "no file came with the request",
                "hand in the descriptor of one: docs/session-protocol.md",
            ));
        };
        write_down()?;
        self.asked = Some(SaveRequest {
            peer,
            file: Some(file.into()),
            deadline: Instant::now() + POINT_TIMEOUT,
            tries: TRIES,
            number: 0,
        });
        Ok(())
    }

    /// Returns the file for the machine, if it is to be saved. `number` is that of the last cell or command.
    pub fn begin(&mut self, number: u64) -> Option<File> {
        let mut asked = self.asked.take()?;
        let file = asked.file.take();
        asked.number = number;
        self.passing = Some(asked);
        file
    }

    /// Returns the time until which the interpreter must come to the point.
    pub fn deadline(&self) -> Option<Instant> {
        let asked = self.passing.as_ref().or(self.asked.as_ref());
        asked.map(|asked| asked.deadline)
    }

    /// Gives up a point that the interpreter does not come to, or that went with it; returns whose it was.
    pub fn give_up(&mut self) -> Option<Id> {
        let asked = self.passing.take().or(self.asked.take());
        asked.map(|asked| asked.peer)
    }

    /// Returns the answer to who asked for it, once the machine was saved. `None`: it was not at rest, and is
    /// saved anew.
    pub fn answer(
        &mut self,
        saved: Saved,
        facts: &Facts,
        cells: u64,
    ) -> Option<(Id, Result<Message>)> {
        let mut asked = self.passing.take()?;
        // What began meanwhile is nobody's in another machine.
        let machine = match asked.number == cells {
            true => saved.machine,
            false => Ok(None),
        };
        let written = match machine {
            Ok(None) if asked.tries > 0 => {
                asked.tries -= 1;
                asked.file = Some(saved.file);
                self.asked = Some(asked);
                return None;
            }
            Ok(None) => Err(stirs().into()),
            Ok(Some((state, own))) => self.point(state, own, facts, cells).and_then(|point| {
                let bytes = point.encode()?;
                let mut file = saved.file;
                file.write_all(&bytes).context("writing the point")?;
                Ok(bytes.len() as u64)
            }),
            Err(error) => Err(error),
        };
        let answer = written.map(|bytes| Message::Saved {
            bytes,
            paused_ms: saved.paused.as_secs_f64() * 1e3,
        });
        Some((asked.peer, answer))
    }

    fn point(&self, state: State, own: Pages, facts: &Facts, cells: u64) -> Result<Point> {
        let lineage = self.lineage.as_ref().map_err(|why| anyhow!(*why))?;
        Ok(Point {
            template: lineage.template.clone(),
            digest: lineage.digest,
            mode: facts.mode,
            state,
            taken: since_1970(),
            own,
            memory: self.memory,
            cells,
            interpreter: self.interpreter.clone(),
            limits: facts.bounds.encode(&facts.limits)?,
        })
    }
}

/// Says that a machine does not come to rest.
pub fn stirs() -> Error {
    Error::new(
        Kind::Guest,
        "the session's machine does not come to rest, so that it could be saved",
        "try again, or end the threads that cells have left",
    )
}
