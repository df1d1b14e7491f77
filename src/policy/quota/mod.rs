//! Quotas of clients: which of them may run now, which must wait, and which are refused for a while.
//!
//! A place goes to the client that has the fewest runs, and among those to the one that has not
//! had a place for longest: a flood of requests from one client only makes that client wait.

use crate::policy::Server;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The time to wait after a queue was full: a guess, since nobody knows when a run ends.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const QUEUE: u32 = 16;

/// The quota of a server, for all that it runs.
#[derive(Debug, Clone)]
pub struct Quota(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rules: Rules,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Rules {
    /// The number of runs at once, of all clients and of each.
    places: u32,
    places_each: u32,
    queue: u32,
    runs_per_minute: Option<u32>,
    cpu_seconds_per_hour: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    running: u32,
    accounts: BTreeMap<String, Account>,
    /// The number of tickets so far.
    tickets: u64,
    /// The number of places given so far.
    given: u64,
}

/// The account of one client.
#[derive(Debug, Default)]
struct Account {
    running: u32,
    waiting: VecDeque<Ticket>,
    /// The number of places that had been given when the client got its last.
    served: u64,
    /// The times at which its runs of the last minute were asked for.
    starts: VecDeque<Instant>,
    /// The processor time of the last hour, in pieces of a minute: the start of each and its sum.
    spent: VecDeque<(Instant, Duration)>,
}

#[derive(Debug)]
struct Ticket {
    number: u64,
    waker: Option<Waker>,
}

/// The reason why a run is refused, and when it is worth asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    pub what: QuotaKind,
    pub limit: u32,
    pub retry_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaKind {
    Queue,
    RunsPerMinute,
    CpuSecondsPerHour,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        match self.what {
            QuotaKind::Queue => write!(f, "{limit} runs of this client wait already"),
            QuotaKind::RunsPerMinute => write!(f, "this client had its {limit} runs of a minute"),
            QuotaKind::CpuSecondsPerHour => write!(
                f,
                "this client's runs had their {limit} s of processor time of an hour"
            ),
        }?;
        write!(f, "; try again in {} s", self.seconds())
    }
}

impl std::error::Error for Throttled {}

impl Throttled {
    /// Returns the whole seconds until it is worth asking again.
    pub fn seconds(&self) -> u64 {
        self.retry_after.as_millis().div_ceil(1000) as u64
    }
}

impl Quota {
    /// Makes the quota of a server on a host with this many processors.
    pub fn new(server: &Server, processors: u32) -> Self {
        let places = server.concurrency.unwrap_or(processors).max(1);
        let client = &server.client;
        Self(Arc::new(Shared {
            rules: Rules {
                places,
                places_each: client.concurrency.unwrap_or(places.div_ceil(2)),
                queue: client.queue.unwrap_or(QUEUE),
                runs_per_minute: client.runs_per_minute,
                cpu_seconds_per_hour: client.cpu_seconds_per_hour,
            },
            state: Mutex::default(),
        }))
    }

    /// Requests a place for a run of this client, which it gets when its turn comes.
    pub fn admit(&self, client: &str, now: Instant) -> Result<Admitting, Throttled> {
        let rules = &self.0.rules;
        let mut state = self.0.state();
        state.forget(now);
        let account = state.accounts.entry(client.into()).or_default();
        account.check(rules, now)?;
        account.starts.push_back(now);
        let (number, full) = state.enqueue(client, rules);
        let woken = state.give(rules);
        if full && state.withdraw(client, number) {
            state.account(client).starts.pop_back();
            return Err(Throttled {
                what: QuotaKind::Queue,
                limit: rules.queue,
                retry_after: RETRY_INTERVAL,
            });
        }
        drop(state);
        wake(woken);
        Ok(Admitting {
            quota: self.clone(),
            client: client.into(),
            number,
            is_over: false,
        })
    }

    /// Frees a place.
    fn release(&self, client: &str, spent: Option<(Duration, Instant)>) {
        let mut state = self.0.state();
        state.running -= 1;
        let account = state.account(client);
        account.running -= 1;
        if let Some((time, now)) = spent {
            account.charge(time, now);
        }
        let woken = state.give(&self.0.rules);
        drop(state);
        wake(woken);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes the accounts of clients on which there is nothing any more.
    fn forget(&mut self, now: Instant) {
        self.accounts.retain(|_, account| {
            account.pass(now);
            !account.is_idle()
        });
    }

    fn account(&mut self, client: &str) -> &mut Account {
        self.accounts.entry(client.into()).or_default()
    }

    /// Adds a ticket to the client's queue. Returns its number, and whether the queue was full before.
    fn enqueue(&mut self, client: &str, rules: &Rules) -> (u64, bool) {
        self.tickets += 1;
        let number = self.tickets;
        let account = self.account(client);
        let full = account.waiting.len() >= rules.queue as usize;
        account.waiting.push_back(Ticket {
            number,
            waker: None,
        });
        (number, full)
    }

    /// Removes a ticket from the client's queue. Returns whether it was still waiting.
    fn withdraw(&mut self, client: &str, number: u64) -> bool {
        let waiting = &mut self.account(client).waiting;
        let before = waiting.len();
        waiting.retain(|ticket| ticket.number != number);
        waiting.len() < before
    }

    /// Gives all free places to tickets that wait; returns the wakers of those tickets.
    fn give(&mut self, rules: &Rules) -> Vec<Waker> {
        let mut woken = Vec::new();
        while self.running < rules.places {
            let waiting = self.accounts.values_mut().filter(|account| {
                !account.waiting.is_empty() && account.running < rules.places_each
            });
            let Some(next) = waiting.min_by_key(|account| (account.running, account.served)) else {
                break;
            };
            self.given += 1;
            self.running += 1;
            next.running += 1;
            next.served = self.given;
            woken.extend(next.waiting.pop_front().and_then(|ticket| ticket.waker));
        }
        woken
    }
}

/// Wakes those that got a place. The state must not be locked meanwhile: a waker may do anything.
fn wake(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl Account {
    fn check(&self, rules: &Rules, now: Instant) -> Result<(), Throttled> {
        let busy = |what, limit, until: Instant| Throttled {
            what,
            limit,
            retry_after: until.saturating_duration_since(now),
        };
        if let Some(limit) = rules.cpu_seconds_per_hour
            && let Some(until) = self.overspent(Duration::from_secs(limit.into()))
        {
            return Err(busy(QuotaKind::CpuSecondsPerHour, limit, until));
        }
        if let Some(limit) = rules.runs_per_minute
            && let Some(over) = self.starts.len().checked_sub(limit as usize)
        {
            let until = self.starts.get(over).map_or(now, |&start| start) + MINUTE;
            return Err(busy(QuotaKind::RunsPerMinute, limit, until));
        }
        Ok(())
    }

    /// Returns when the client will have spent less than this again, unless it already has.
    fn overspent(&self, limit: Duration) -> Option<Instant> {
        let mut rest: Duration = self.spent.iter().map(|(_, time)| *time).sum();
        let mut until = None;
        for (since, time) in &self.spent {
            if rest < limit {
                break;
            }
            rest -= *time;
            until = Some(*since + MINUTE + HOUR);
        }
        until
    }

    fn charge(&mut self, time: Duration, now: Instant) {
        match self.spent.back_mut() {
            Some((since, sum)) if now.saturating_duration_since(*since) < MINUTE => *sum += time,
            _ => self.spent.push_back((now, time)),
        }
    }

    /// Removes what is too long ago to be counted.
    fn pass(&mut self, now: Instant) {
        let is_past = |since: Instant, time| now.saturating_duration_since(since) >= time;
        while self
            .starts
            .front()
            .is_some_and(|&start| is_past(start, MINUTE))
        {
            self.starts.pop_front();
        }
        while self
            .spent
            .front()
            .is_some_and(|&(since, _)| is_past(since, MINUTE + HOUR))
        {
            self.spent.pop_front();
        }
    }

    fn is_idle(&self) -> bool {
        self.running == 0
            && self.waiting.is_empty()
            && self.starts.is_empty()
            && self.spent.is_empty()
    }
}

/// A run that waits for its turn, until it is dropped.
#[derive(Debug)]
#[must_use = "it gives up its turn when it is dropped"]
pub struct Admitting {
    quota: Quota,
    client: String,
    number: u64,
    /// Whether its place went to an [`Admission`].
    is_over: bool,
}

impl Future for Admitting {
    type Output = Admission;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Admission> {
        let quota = self.quota.clone();
        let mut state = quota.0.state();
        let mut waiting = state.account(&self.client).waiting.iter_mut();
        if let Some(ticket) = waiting.find(|ticket| ticket.number == self.number) {
            ticket.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(state);
        self.is_over = true;
        Poll::Ready(Admission {
            quota,
            client: std::mem::take(&mut self.client),
            is_over: false,
        })
    }
}

impl Drop for Admitting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let waited = self.quota.0.state().withdraw(&self.client, self.number);
        if !waited {
            self.quota.release(&self.client, None);
        }
    }
}

/// A place for one run, until it is dropped.
#[derive(Debug)]
#[must_use = "it gives up its place when it is dropped"]
pub struct Admission {
    quota: Quota,
    client: String,
    is_over: bool,
}

impl Admission {
    /// Ends the run, whose process took this much processor time.
    pub fn end(mut self, processor_time: Duration, now: Instant) {
        self.is_over = true;
        self.quota
            .release(&self.client, Some((processor_time, now)));
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if !self.is_over {
            self.quota.release(&self.client, None);
        }
    }
}

#[cfg(test)]
mod tests;
