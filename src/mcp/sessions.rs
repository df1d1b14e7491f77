//! The sessions of a server's clients: machines that are kept from call to call. They end with the server.

use crate::audit::Log;
use crate::error::Error;
use crate::fs::make_private;
use crate::image::LayerFile;
use crate::job::Source;
use crate::kvm_mode::Device;
use crate::limits::Limits;
use crate::mcp::session_log::SessionLog;
use crate::packages::Lock;
use crate::policy::{self, Grant, Requested};
use crate::run;
use crate::session::protocol::{Bounds, Message, Request, Spec};
use crate::session::{Client, Place};
use anyhow::{Result, anyhow};
use rmcp::model::{Resource, ResourceContents};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::os::unix::net::UnixStream;
use std::path::{self, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The most sessions of a client that a policy does not allow more or fewer, and of all clients. Of more, the
/// one ends that was used least recently.
const CLIENT_MAX: u32 = 4;
const ALL_MAX: usize = 16;
/// The beginning of the address of a session, before its name.
const URI: &str = "sandbox://session/";
const MIME_TYPE: &str = "application/json";
/// The time for a session to tell about itself.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The sessions of all clients.
pub struct Sessions {
    place: Place,
    policy: policy::Sessions,
    bounds: Bounds,
    log: SessionLog,
    kept: Mutex<SessionTable>,
}

#[derive(Default)]
struct SessionTable {
    /// By the names of client and session.
    slots: BTreeMap<(String, String), Slot>,
    /// The number of the last session, which is its name on the host.
    last: u64,
}

/// A session, or the place of one that has yet to start.
struct Slot {
    number: u64,
    /// Bytes of memory.
    memory: u64,
    used: Instant,
    owner: Owner,
    turns: Turns,
}

/// The turns of a session's calls: one that moves files has the session alone, so that nothing runs between these
/// and its cell. A call that waits or is at work has a share of this.
type Turns = Arc<RwLock<()>>;

/// A call's turn in a session, until it is dropped.
enum Turn {
    Alone { _held: OwnedRwLockWriteGuard<()> },
    Beside { _held: OwnedRwLockReadGuard<()> },
}

/// A session's slot, held for a call whose turn it is.
pub struct Reserved {
    number: u64,
    owner: Owner,
    turn: Turn,
}

/// A session that was started, which one caller at a time connects to.
type Owner = Arc<Mutex<Option<Started>>>;

struct Started {
    /// The socket by which the session knows that somebody owns it. It ends when that is closed.
    _owner: UnixStream,
    /// Its packages.
    lock: Option<Lock>,
    /// The processor time of its process that calls have answered for.
    charged: Arc<Mutex<Duration>>,
}

/// The packages of a call, and the layer that they are in.
pub type Packages = (Lock, LayerFile);

/// The demand of a call that a session does not meet.
#[derive(Debug)]
pub struct Mismatch(String);

impl Display for Mismatch {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

/// A connection to a session, and whether that was started for it.
pub struct Opened {
    pub client: Client,
    pub is_new: bool,
    /// Its name on the host.
    pub name: String,
    /// Its packages.
    pub lock: Option<Lock>,
    pub charged: Arc<Mutex<Duration>>,
    /// The call's turn, which others wait for.
    _turn: Turn,
}

impl Sessions {
    /// Makes the store of a server, which will have a directory of its own in this one.
    pub fn new(parent: &Path, policy: policy::Sessions, log: Option<Arc<Log>>) -> Result<Self> {
        let usual = Bounds::default();
        let (idle, age) = policy.bounds(
            Requested::Default(usual.idle),
            Requested::Default(usual.age),
        )?;
        Ok(Self {
            // Its name is short, since the path of a socket must be.
            place: Place::at(path::absolute(parent.join("s"))?),
            bounds: Bounds {
                idle,
                age,
                no_forks: policy.check_fork().err().map(Error::from),
                no_checkpoints: policy.check_checkpoint().err().map(Error::from),
                ..usual
            },
            policy,
            log: SessionLog::new(log),
            kept: Mutex::default(),
        })
    }

    /// Ends all sessions; returns when their ends are written, or after so long.
    pub fn end(&self, timeout: Duration) {
        lock(&self.kept).slots.clear();
        self.log.wait(timeout);
    }

    /// Returns where the sessions are.
    pub fn directory(&self) -> &Path {
        self.place.directory()
    }

    /// Waits for the turn of a call, which may have a client's session with this name to itself.
    pub async fn reserve(&self, key: (&str, &str), memory: u64, is_alone: bool) -> Reserved {
        let (number, owner, turns) = lock(&self.kept).slot(key, memory, &self.policy);
        let turn = match is_alone {
            true => Turn::Alone {
                _held: turns.write_owned().await,
            },
            false => Turn::Beside {
                _held: turns.read_owned().await,
            },
        };
        Reserved {
            number,
            owner,
            turn,
        }
    }

    /// Connects to a client's session with this name, which is started if there is none, or none any more.
    pub fn open(
        &self,
        key: (&str, &str),
        Reserved {
            number,
            owner,
            turn,
        }: Reserved,
        (grant, packages): (&Grant, Option<Packages>),
        kvm: &Device,
    ) -> Result<Opened> {
        let name = number.to_string();
        // Another call for the same session waits meanwhile, and other sessions do not.
        let mut started = lock(&owner);
        let (lock, layer) = packages.unzip();
        if let Some(there) = started.as_ref()
            && let Ok(client) = Client::connect(&self.place, &name)
        {
            there.check(lock.as_ref(), key.1)?;
            return Ok(Opened {
                client: client.known_as(key.1),
                is_new: false,
                name,
                lock: there.lock.clone(),
                _turn: turn,
                charged: Arc::clone(&there.charged),
            });
        }
        let directory = self.place.directory();
        make_private(directory).map_err(|why| anyhow!("the directory of sessions {why}"))?;
        let spec = Spec {
            directory: directory.into(),
            name,
            request: run::Request {
                layers: layer.into_iter().collect(),
                ..request(grant, kvm)
            },
            bounds: self.bounds.clone(),
            is_owned: true,
            parent: None,
            log: None,
            is_logged: false,
            point: None,
        };
        let charged = Arc::default();
        *started = Some(Started {
            _owner: self.log.start(&spec, key)?,
            lock: lock.clone(),
            charged: Arc::clone(&charged),
        });
        Ok(Opened {
            client: Client::connect(&self.place, &spec.name)?.known_as(key.1),
            is_new: true,
            name: spec.name,
            lock,
            charged,
            _turn: turn,
        })
    }
}

/// Returns whether this is the address of a session, be it there or not.
pub fn is_address(uri: &str) -> bool {
    uri.starts_with(URI)
}

impl Sessions {
    /// Lists a client's sessions that are there.
    pub fn list(&self, client: &str) -> Vec<Resource> {
        let numbers = lock(&self.kept).numbers(client);
        let there = numbers
            .into_iter()
            .filter(|(_, number)| Client::connect(&self.place, &number.to_string()).is_ok());
        let resource = |(name, _)| Resource::new(format!("{URI}{name}"), name);
        there
            .map(|there| resource(there).with_mime_type(MIME_TYPE))
            .collect()
    }

    /// Returns what a client's session tells about itself, if this is the address of one that is there.
    pub fn describe(&self, client: &str, uri: &str) -> Option<ResourceContents> {
        let name = uri.strip_prefix(URI)?;
        let numbers = lock(&self.kept).numbers(client);
        let (_, number) = numbers.into_iter().find(|(its, _)| its == name)?;
        let asked = Client::connect(&self.place, &number.to_string()).and_then(|client| {
            client
                .with_timeout(ANSWER_TIMEOUT)?
                .ask(&Request::Describe {})
        });
        let Ok(Message::Described(description)) = asked else {
            return None;
        };
        let text = json!({
            "session": name,
            "memory": description.memory,
            "cells": description.cells,
            "waiting": description.waiting,
            "is_busy": description.cell.is_some(),
            "age_s": description.age_s,
            "idle_s": description.idle_s,
            "left_s": description.left_s,
        });
        let contents = ResourceContents::text(text.to_string(), uri);
        Some(contents.with_mime_type(MIME_TYPE))
    }
}

impl Started {
    /// Checks that it has the packages that a call asks for, if that asks for any.
    fn check(&self, asked: Option<&Lock>, session: &str) -> Result<(), Mismatch> {
        match asked.is_none() || asked == self.lock.as_ref() {
            true => Ok(()),
            false => Err(Mismatch(format!(
                "the session {session} was started without these packages"
            ))),
        }
    }
}

impl SessionTable {
    /// Returns the names of a client's sessions, and their numbers.
    fn numbers(&self, client: &str) -> Vec<(String, u64)> {
        let own = self.slots.iter().filter(|((its, _), _)| its == client);
        own.map(|((_, name), slot)| (name.clone(), slot.number))
            .collect()
    }

    /// Returns the slot of a session. For a new one, another may have to end.
    fn slot(
        &mut self,
        (client, name): (&str, &str),
        memory: u64,
        policy: &policy::Sessions,
    ) -> (u64, Owner, Turns) {
        let key = (client.to_owned(), name.to_owned());
        if !self.slots.contains_key(&key) {
            while !self.has_room(client, memory, policy) && self.end_oldest(|its| its == client) {}
            if self.slots.len() >= ALL_MAX {
                self.end_oldest(|_| true);
            }
            self.last += 1;
        }
        let number = self.last;
        let slot = self.slots.entry(key).or_insert_with(|| Slot {
            number,
            memory,
            used: Instant::now(),
            owner: Arc::default(),
            turns: Arc::default(),
        });
        slot.used = Instant::now();
        (
            slot.number,
            Arc::clone(&slot.owner),
            Arc::clone(&slot.turns),
        )
    }

    fn has_room(&self, client: &str, memory: u64, policy: &policy::Sessions) -> bool {
        let of_client = || self.slots.iter().filter(|((its, _), _)| its == client);
        let count = of_client().count() as u32;
        let of_others = of_client().map(|(_, slot)| slot.memory).sum();
        let is_usual = policy.count.is_some() || count < CLIENT_MAX;
        is_usual && policy.check(count, memory, of_others).is_ok()
    }

    /// Ends the session that was used least recently, if there is one; one with a call at work only if all have.
    fn end_oldest(&mut self, is_meant: impl Fn(&str) -> bool) -> bool {
        let slots = self.slots.iter();
        let meant = slots.filter(|((client, _), _)| is_meant(client));
        let is_busy = |slot: &Slot| Arc::strong_count(&slot.turns) > 1;
        let oldest = meant.min_by_key(|(_, slot)| (is_busy(slot), slot.used));
        let oldest = oldest.map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.slots.remove(&key).is_some())
    }
}

/// Returns the request for a session whose cells get these resources.
fn request(grant: &Grant, kvm: &Device) -> run::Request {
    run::Request {
        limits: Limits {
            memory: grant.memory,
            machine_memory: grant.machine_memory,
            timeout: grant.timeout,
            max_output: grant.output,
            pids: grant.pids,
            ..Limits::default()
        },
        kvm: kvm.clone(),
        confine: grant.confine,
        capture: false,
        share: grant.share.clone(),
        ..run::Request::of(Source::Code(Default::default()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Size;

    const MIB: u64 = 1 << 20;

    /// Has a client use a session of 256 MiB; returns its number.
    fn used(kept: &mut SessionTable, key: (&str, &str), policy: &policy::Sessions) -> u64 {
        kept.slot(key, 256 * MIB, policy).0
    }

    fn names(kept: &SessionTable) -> Vec<&str> {
        kept.slots.keys().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn of_more_sessions_than_a_client_may_have_the_oldest_goes() {
        let mut kept = SessionTable::default();
        let policy = policy::Sessions::default();
        for name in ["a", "b", "c", "d"] {
            used(&mut kept, ("one", name), &policy);
        }
        let other = used(&mut kept, ("two", "a"), &policy);
        let first = used(&mut kept, ("one", "a"), &policy);
        assert_eq!((first, other), (1, 5));
        assert_eq!(used(&mut kept, ("one", "e"), &policy), 6);
        assert_eq!(names(&kept), ["a", "c", "d", "e", "a"]);
        for client in 0..2 * ALL_MAX {
            used(&mut kept, (&client.to_string(), "a"), &policy);
        }
        assert_eq!(kept.slots.len(), ALL_MAX);
    }

    #[test]
    fn a_policy_bounds_the_sessions_of_a_client_and_their_memory() {
        let count = policy::Sessions {
            count: Some(6),
            ..Default::default()
        };
        let memory = policy::Sessions {
            memory: Some(Size(512 * MIB)),
            ..Default::default()
        };
        for (policy, left) in [(count, 6), (memory, 2)] {
            let mut kept = SessionTable::default();
            for name in ["a", "b", "c", "d", "e", "f", "g"] {
                used(&mut kept, ("one", name), &policy);
            }
            assert_eq!(kept.slots.len(), left, "{:?}", names(&kept));
            assert_eq!(names(&kept).last(), Some(&"g"));
        }
    }
}
