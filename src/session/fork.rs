//! The session's part in having its machine go on in others: it saves it to a file that comes with the
//! request, and goes on itself.

use crate::agent::Saved;
use crate::error::Error;
use crate::run::record_of;
use crate::session::context::Passed;
use crate::session::guest::Guest;
use crate::session::peers::Id;
use crate::session::points::{Points, stirs};
use crate::session::protocol::{Message, Purpose};
use crate::session::server::Server;
use std::time::Instant;

impl Server {
    /// Has the machine saved to the file that came with a request, if that is allowed and the session is quiet.
    pub fn ask_for_point(&mut self, id: Id, purpose: Purpose) {
        let file = self.peers.take_descriptor(id);
        let runs = (self.commands.count() > 0).then_some("a command runs");
        let busy = runs.or(self.contexts.why_busy());
        let asked = match (self.why_no_point(purpose), &mut self.points) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(points)) => points.ask(id, file, busy, || self.facts.saves(purpose)),
            (None, None) => Ok(()),
        };
        if let Err(error) = asked {
            self.peers.tell(id, &Message::Refused { error });
        }
    }

    /// Returns why the machine may not be saved for this purpose, if it may not.
    fn why_no_point(&self, purpose: Purpose) -> Option<Error> {
        let bounds = &self.facts.bounds;
        match purpose {
            Purpose::Checkpoint => bounds.no_checkpoints.clone(),
            Purpose::Fork => bounds.no_forks.clone(),
        }
    }

    /// Begins the point that is asked for, and answers after the one that was passed.
    pub fn look_at_points(&mut self, guest: &Guest) {
        match self.contexts.own_mut().take_passed() {
            Some(Passed::Saved(saved)) => self.saved(*saved),
            Some(Passed::Lost) => self.give_up_point(),
            None => {}
        }
        let Some(points) = &mut self.points else {
            return;
        };
        if points
            .deadline()
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            self.give_up_point();
        } else if self.contexts.is_up()
            && self.contexts.why_busy().is_none()
            && self.commands.count() == 0
            && let Some(file) = points.begin(self.number)
        {
            self.contexts.own_mut().begin_point(file, guest);
        }
    }

    /// Answers once the machine was saved.
    fn saved(&mut self, mut saved: Saved) {
        // What has begun meanwhile is nobody's in another machine.
        if self.contexts.has_named() || self.commands.count() > 0 {
            saved.machine = Ok(None);
        }
        let (facts, number) = (&self.facts, self.number);
        let points = self.points.as_mut();
        match points.and_then(|points| points.answer(saved, facts, number)) {
            Some((id, Ok(message))) => self.peers.tell(id, &message),
            Some((id, Err(error))) => {
                let error = record_of::explained(&error).unwrap_or_else(|_| stirs());
                self.peers.tell(id, &Message::Refused { error });
            }
            None => {}
        }
    }

    /// Gives up a point that the interpreter does not come to.
    fn give_up_point(&mut self) {
        self.contexts.own_mut().give_up_point();
        if let Some(id) = self.points.as_mut().and_then(Points::give_up) {
            let error = stirs();
            self.peers.tell(id, &Message::Refused { error });
        }
    }
}
