//! Admission and logging of runs: which client may run which program, and what the log records of
//! it.

use crate::audit::{self, Code, Event, Files, Limits, Log, Refusal, Start, Usage};
use crate::cache::{SHARE, Share};
use crate::limits::{
    ConfineLevel, DEFAULT_MEMORY, DEFAULT_PIDS, DEFAULT_TIMEOUT, OUTPUT_MAX, PACKAGES_MEMORY,
};
use crate::log::say;
use crate::mcp::packages::{Refusal as Refusing, Wanted};
use crate::mcp::run::limits;
use crate::mcp::tool::arguments::{Arguments, Wrong};
use crate::mcp::tool::languages::Offer;
use crate::mcp::tool::remedies::advised;
use crate::policy::{
    Admission, Admitting, Grant, LimitExceeded, Packages, Policy, Quota, QuotaKind, Requested,
    ResourceRequest, Sessions, Throttled,
};
use crate::record::{Anchor, Failure, Record};
use crate::run::advice::advice;
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

pub struct Governor {
    policy: Policy,
    quota: Quota,
    log: Option<Arc<Log>>,
    keep_code: bool,
    /// Whether programs may run in images that were imported. Neither a policy nor a log knows what their
    /// languages run.
    has_images: bool,
}

/// The reason why a call came to no run.
#[derive(Debug)]
pub struct Refused {
    pub failure: Failure,
    /// The limit that was exceeded or the argument that was wrong, if that is the reason.
    pub refusal: Option<Refusal>,
    /// The position of the refusal in the log.
    pub anchor: Option<Anchor>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            refusal: None,
            anchor: None,
        }
    }
}

/// An admitted run whose start is logged.
pub struct RunPermit {
    admission: Admission,
    client: Arc<str>,
    /// The number of its entry in the log.
    number: Option<u64>,
}

impl RunPermit {
    /// Gives up the run's place, which another run may take from now on.
    pub fn leave(self, usage: Usage) {
        let processor_time = Duration::from_secs_f64(usage.cpu_ms / 1000.0);
        self.admission.end(processor_time, Instant::now());
    }
}

impl Governor {
    /// Makes a governor. `alone` means that there is only one client, which may use all places.
    pub fn new(policy: Option<&Path>, given: Option<&Path>, alone: bool) -> Result<Self> {
        let has_policy = policy.is_some();
        let mut policy = policy.map(Policy::read).transpose()?.unwrap_or_default();
        let audit = audit::open(policy.audit.as_ref(), given)?;
        let (log, keep_code) = audit.unzip();
        let processors = available_parallelism()?.get() as u32;
        if alone {
            let places = policy.server.concurrency.unwrap_or(processors);
            policy.server.client.concurrency.get_or_insert(places);
        }
        Ok(Self {
            quota: Quota::new(&policy.server, processors),
            keep_code: keep_code.unwrap_or_default(),
            has_images: !has_policy && log.is_none(),
            policy,
            log: log.map(Arc::new),
        })
    }

    /// Returns the default and the greatest time limit in seconds. The policy may lower both.
    pub fn seconds(&self, most: f64) -> (f64, f64) {
        let most = self
            .policy
            .run
            .timeout
            .map_or(most, |time| time.0.as_secs_f64().min(most));
        (DEFAULT_TIMEOUT.as_secs_f64().min(most), most)
    }

    pub fn mebibytes(&self, most: u64) -> (u64, u64) {
        let allowed = self.policy.run.memory_max();
        let most = allowed.map_or(most, |size| (size >> 20).min(most));
        ((DEFAULT_MEMORY >> 20).min(most), most)
    }

    /// Returns the languages that calls may name.
    pub fn offer(&self) -> Offer {
        Offer::new(self.has_images)
    }

    /// Returns whether the policy allows packages.
    pub fn has_packages(&self) -> bool {
        self.policy
            .run
            .packages
            .as_ref()
            .is_some_and(Packages::is_on)
    }

    /// Returns the log, if one is kept.
    pub fn log(&self) -> Option<Arc<Log>> {
        self.log.clone()
    }

    /// Returns what the policy says of sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.policy.run.sessions
    }

    /// Returns what would have helped the program.
    pub fn advice(&self, record: &Record) -> Vec<String> {
        let allowed = self.policy.run.packages.as_ref();
        let advice = advice(record);
        let in_session = record.session.is_some();
        let advised = |it| advised(it, allowed, in_session);
        advice.iter().map(advised).collect()
    }

    /// Returns the packages that the run may have of those that it asks for.
    pub async fn packages(
        &self,
        client: &Arc<str>,
        arguments: &Arguments,
    ) -> Result<Option<Wanted>, Refused> {
        let policy = self.policy.run.packages.as_ref();
        let wanted = Wanted::of(&arguments.packages, policy, self.share(client));
        let refused = match wanted {
            Ok(wanted) => return Ok(wanted),
            Err(Refusing::Policy(excess)) => excessive(&excess),
            Err(Refusing::Words(error)) => {
                return Err(self.refuse_wrong(client, Wrong::packages(error)).await);
            }
        };
        Err(self.refuse(client, refused).await)
    }

    /// Grants the run its limits and queues it for a place.
    pub async fn admit(
        &self,
        client: &Arc<str>,
        arguments: &Arguments,
    ) -> Result<(Grant, Admitting), Refused> {
        let refused = match self.grant(client, arguments) {
            Err(excess) => excessive(&excess),
            Ok(grant) => match self.quota.admit(client, Instant::now()) {
                Ok(admitting) => return Ok((grant, admitting)),
                Err(busy) => too_soon(&busy),
            },
        };
        Err(self.refuse(client, refused).await)
    }

    /// Refuses a call with a wrong argument.
    pub async fn refuse_wrong(&self, client: &Arc<str>, wrong: Wrong) -> Refused {
        let refused = Refused {
            refusal: Some(wrong.refusal()),
            failure: wrong.failure,
            anchor: None,
        };
        self.refuse(client, refused).await
    }

    /// Logs how often a transport turned a client away, and why.
    pub async fn turned_away(&self, client: &Arc<str>, why: &str, times: u64) {
        let why = why.into();
        // If the entry cannot be written, `append` has reported that.
        drop(self.append(client, Event::TurnedAway { why, times }).await);
    }

    /// Logs the refusal.
    async fn refuse(&self, client: &Arc<str>, refused: Refused) -> Refused {
        let Some(refusal) = refused.refusal.clone() else {
            return refused;
        };
        match self.append(client, Event::Refusal(refusal)).await {
            Ok(anchor) => Refused { anchor, ..refused },
            Err(unwritten) => unwritten,
        }
    }

    fn grant(&self, client: &str, arguments: &Arguments) -> Result<Grant, LimitExceeded> {
        let run = &self.policy.run;
        let default_memory = match arguments.packages.is_empty() {
            true => arguments.memory_or(DEFAULT_MEMORY),
            false => PACKAGES_MEMORY,
        };
        let fetched = arguments.files.iter().filter(|file| file.is_fetched);
        let put = put(arguments);
        let variables = arguments.variables();
        run.check_program(
            arguments.code.len() as u64,
            arguments.args.iter().map(String::as_bytes),
            variables.iter().map(String::as_bytes),
        )?;
        run.check_files(put.count, put.bytes)?;
        run.check_files(fetched.count() as u64, 0)?;
        let grant = run.grant(&ResourceRequest {
            memory: arguments
                .memory()
                .map_or(Requested::Default(default_memory), Requested::Given),
            timeout: match arguments.timeout() {
                Some(timeout) => Requested::Given(Some(timeout)),
                None => Requested::Default(Some(DEFAULT_TIMEOUT)),
            },
            output: Requested::Default(OUTPUT_MAX),
            pids: Requested::Default(DEFAULT_PIDS),
            confine: Requested::Default(ConfineLevel::Auto),
            root: false,
            language: Some(&arguments.language),
            stdin: Some(arguments.stdin.len() as u64),
            environment: arguments.env.keys().map(String::as_bytes).collect(),
        })?;
        if arguments.session.is_some() {
            run.sessions.check_alone(grant.memory)?;
        }
        Ok(Grant {
            share: Some(self.share(client)),
            ..grant
        })
    }

    /// Returns a client's share of the cache.
    fn share(&self, client: &str) -> Share {
        let most = self.policy.server.client.cache;
        Share {
            client: client.into(),
            most: most.map_or(SHARE, |most| most.0),
        }
    }

    /// Logs the start of a run. This comes before its process starts.
    pub async fn begin(
        &self,
        admission: Admission,
        client: &Arc<str>,
        arguments: &Arguments,
        grant: &Grant,
    ) -> Result<RunPermit, Refused> {
        let event = Event::Start(Start {
            session: arguments.session.clone(),
            code: Code::new(arguments.code.as_bytes(), self.keep_code),
            language: arguments.language.clone(),
            arguments: arguments.args.len(),
            environment: arguments.env.keys().cloned().collect(),
            files: put(arguments),
            limits: Limits {
                stdin: (grant.stdin < u64::MAX).then_some(grant.stdin),
                ..(&limits(grant)).into()
            },
            root: false,
        });
        Ok(RunPermit {
            admission,
            client: Arc::clone(client),
            number: self
                .append(client, event)
                .await?
                .map(|anchor| anchor.sequence),
        })
    }

    /// Logs the end of a run, once its process is gone.
    pub async fn end(&self, begun: &RunPermit, record: &mut Record, usage: Usage) {
        let (Some(log), Some(number)) = (self.log.clone(), begun.number) else {
            return;
        };
        let (client, told) = (Arc::clone(&begun.client), record.clone());
        let written = spawn_blocking(move || log.end(&client, number, &told, usage)).await;
        match written {
            Ok(Ok(anchor)) => record.audit = Some(anchor),
            Ok(Err(error)) => say(&format!("{error:#}")),
            Err(error) => say(&error.to_string()),
        }
    }

    /// Appends to the log and returns the entry's position. What cannot be logged does not happen.
    async fn append(&self, client: &Arc<str>, event: Event) -> Result<Option<Anchor>, Refused> {
        let Some(log) = self.log.clone() else {
            return Ok(None);
        };
        let name = Arc::clone(client);
        let written = spawn_blocking(move || log.append(&name, &event)).await;
        match written.map_err(Into::into).and_then(|written| written) {
            Ok(anchor) => Ok(Some(anchor)),
            Err(error) => {
                say(&format!("{error:#}"));
                let failure = Failure {
                    message: "the server cannot write its log of runs".into(),
                    remedy: "whoever runs the server must mend that; it says more in its own log"
                        .into(),
                };
                Err(failure.into())
            }
        }
    }
}

/// Returns the number and size of the files that are put into the guest.
fn put(arguments: &Arguments) -> Files {
    let contents = || {
        arguments
            .files
            .iter()
            .filter_map(|file| file.content.as_ref())
    };
    Files {
        count: contents().count() as u64,
        bytes: contents().map(|content| content.len() as u64).sum(),
    }
}

fn excessive(excess: &LimitExceeded) -> Refused {
    Refused {
        failure: Failure {
            message: excess.to_string(),
            remedy: "ask for no more than that".into(),
        },
        refusal: Some(excess.into()),
        anchor: None,
    }
}

fn too_soon(busy: &Throttled) -> Refused {
    let what = match busy.what {
        QuotaKind::Queue => "queue",
        QuotaKind::RunsPerMinute => "runs_per_minute",
        QuotaKind::CpuSecondsPerHour => "cpu_seconds_per_hour",
    };
    Refused {
        failure: Failure {
            message: busy.to_string(),
            remedy: format!("call again in {} s", busy.seconds()),
        },
        refusal: Some(Refusal {
            what: what.into(),
            asked: None,
            allowed: busy.limit.to_string(),
            retry_after_s: Some(busy.seconds()),
        }),
        anchor: None,
    }
}
