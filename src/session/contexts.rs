//! The contexts of a session: its own interpreter, and others beside it, by their names.

use crate::agent::{Cells, Channels};
use crate::error::{Error, Kind};
use crate::image::Language;
use crate::session::context::Context;
use crate::session::facts::Facts;
use crate::session::guest::Guest;
use crate::session::interpreter_link::Line;
use crate::session::peers::{Id, Peers};
use crate::session::protocol::ContextDescription;
use crate::session::request_check;
use crate::session::turn::{Turn, Waiting};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The most contexts beside the session's own.
const NAMED_MAX: usize = 8;

/// A context that a request names: none is the session's own, whose language is the image's first.
#[derive(Debug, Clone, Default)]
pub struct Which {
    pub name: Option<String>,
    /// The name of its language.
    pub language: Option<String>,
}

/// All contexts.
pub struct Contexts {
    own: Context,
    /// The others, each with the name of its language.
    named: BTreeMap<String, (String, Context)>,
    channels: Arc<Channels>,
}

impl Contexts {
    pub fn new(cells: Arc<Cells>, channels: Arc<Channels>) -> Self {
        Self {
            own: Context::new(Line::Own(cells)),
            named: BTreeMap::new(),
            channels,
        }
    }

    /// Returns whether the session's own interpreter waits for a cell.
    pub fn is_up(&self) -> bool {
        self.own.is_at_rest()
    }

    /// Returns whether all interpreters wait for a cell.
    pub fn are_at_rest(&self) -> bool {
        self.all().all(Context::is_at_rest)
    }

    /// Returns whether cells run or wait.
    pub fn are_busy(&self) -> bool {
        self.all().any(Context::is_busy)
    }

    /// Returns whether a cell runs.
    pub fn are_running(&self) -> bool {
        self.all().any(|context| context.running().is_some())
    }

    /// Returns why the machine cannot be saved now, if it cannot. Contexts beside the session's own are on
    /// channels, which no other process has.
    pub fn why_busy(&self) -> Option<&'static str> {
        match self.named.is_empty() {
            true => self.own.why_busy(),
            false => Some("it has contexts beside its own"),
        }
    }

    /// Returns whether there are contexts beside the session's own.
    pub fn has_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// Returns the session's own context, of whose interpreter the machine is.
    pub fn own_mut(&mut self) -> &mut Context {
        &mut self.own
    }

    pub fn used(&self) -> Instant {
        let used = self.named.values().map(|(_, context)| context.used());
        used.fold(self.own.used(), Instant::max)
    }

    pub fn next_time(&self) -> Option<Instant> {
        self.all().filter_map(Context::next_time).min()
    }

    pub fn is_of(&self, id: Id) -> bool {
        self.all().any(|context| context.is_of(id))
    }

    /// Returns the cell that the session's own interpreter runs, and how many wait for that.
    pub fn own(&self) -> (Option<u64>, usize) {
        (self.own.running(), self.own.waiting())
    }

    pub fn describe(&self) -> Vec<ContextDescription> {
        let named = self.named.iter();
        let described = named.map(|(name, (language, context))| ContextDescription {
            name: name.clone(),
            language: language.clone(),
            cell: context.running(),
            waiting: context.waiting(),
        });
        described.collect()
    }

    /// Has a cell wait for its turn in its context, which is made if there is none.
    pub fn queue(
        &mut self,
        which: &Which,
        waiting: Waiting,
        facts: &Facts,
        guest: &Guest,
    ) -> Result<(), Error> {
        let language = which.language.as_deref();
        let language = language.map(|name| request_check::language(facts, name));
        let context = match key(which, language.transpose()?, facts) {
            None => &mut self.own,
            Some((name, language)) => self.named(name, language, facts, guest)?,
        };
        context.queue(waiting)
    }

    /// Ends the interpreter of a context, so that another one takes its place.
    pub fn restart(&mut self, name: Option<&str>, guest: &Guest) -> Result<(), Error> {
        let context = match name {
            None => &mut self.own,
            Some(name) => match self.named.get_mut(name) {
                Some((_, context)) => context,
                None => return Err(unknown(name)),
            },
        };
        context.restart(guest);
        Ok(())
    }

    /// Interrupts the cell with this number or, without one, the one that runs in the session's own context;
    /// returns its number.
    pub fn interrupt(&mut self, cell: Option<u64>) -> Option<u64> {
        if cell.is_none() {
            return self.own.interrupt(None);
        }
        self.all_mut().find_map(|context| context.interrupt(cell))
    }

    pub fn leave(&mut self, id: Id, facts: &Facts) {
        self.all_mut().for_each(|context| context.leave(id, facts));
    }

    pub fn follow(&mut self, facts: &Facts, peers: &mut Peers, guest: &Guest) {
        for context in self.all_mut() {
            context.follow(facts, peers, guest);
            if context.is_dead() {
                context.refuse_all(peers);
            }
        }
        self.named.retain(|_, (_, context)| !context.is_dead());
    }

    pub fn look_at_clock(&mut self, facts: &Facts, guest: &Guest) -> Option<&'static str> {
        self.all_mut()
            .find_map(|context| context.look_at_clock(facts, guest))
    }

    pub fn begin_next(
        &mut self,
        number: &mut u64,
        facts: &Facts,
        peers: &mut Peers,
        guest: &Guest,
    ) {
        let own = (facts.image.default_language().name.as_str(), &mut self.own);
        let named = self.named.values_mut();
        let named = named.map(|(language, context)| (language.as_str(), context));
        for (language, context) in [own].into_iter().chain(named) {
            context.begin_next(number, (language, facts), peers, guest);
        }
    }

    pub fn take_turns(&mut self) -> Vec<Turn> {
        self.all_mut().filter_map(Context::take_turn).collect()
    }

    pub fn release(&self) {
        self.own.release();
    }

    /// Returns a context, which is made if there is none.
    fn named(
        &mut self,
        name: &str,
        language: Option<&Language>,
        facts: &Facts,
        guest: &Guest,
    ) -> Result<&mut Context, Error> {
        if let Some((its, _)) = self.named.get(name)
            && language.is_some_and(|language| *its != language.name)
        {
            return Err(Error::new(
                Kind::Request,
                format!("the context {name} is one of another language"),
                "leave the language out, or name another context",
            ));
        }
        if !self.named.contains_key(name) {
            if self.named.len() >= NAMED_MAX {
                return Err(Error::new(
                    Kind::Request,
                    format!("{NAMED_MAX} contexts of the session are there already"),
                    "use one of them, or start another session",
                ));
            }
            let language = language.unwrap_or(facts.image.default_language());
            let (command, framing) = request_check::interpreter(facts, language)?;
            let limit = facts.limits.max_output;
            let line = Line::beside(&self.channels, command, framing, limit, guest);
            let made = (language.name.clone(), Context::new(line));
            self.named.insert(name.to_owned(), made);
        }
        let found = self.named.get_mut(name);
        found
            .map(|(_, context)| context)
            .ok_or_else(|| unknown(name))
    }

    fn all(&self) -> impl Iterator<Item = &Context> {
        let named = self.named.values().map(|(_, context)| context);
        [&self.own].into_iter().chain(named)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Context> {
        let named = self.named.values_mut().map(|(_, context)| context);
        [&mut self.own].into_iter().chain(named)
    }
}

/// Returns the name and the language of a context beside the session's own: without a name, one of another
/// language is called as that is.
fn key<'a>(
    which: &'a Which,
    language: Option<&'a Language>,
    facts: &Facts,
) -> Option<(&'a str, Option<&'a Language>)> {
    let own = &facts.image.default_language().name;
    match (which.name.as_deref(), language) {
        (Some(name), language) => Some((name, language)),
        (None, Some(other)) if other.name != *own => Some((&other.name, language)),
        (None, _) => None,
    }
}

fn unknown(name: &str) -> Error {
    Error::new(
        Kind::Request,
        format!("there is no context {name}"),
        "a context is made by the first cell that names it",
    )
}
