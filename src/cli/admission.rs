//! Admission of a run by the policy, and its entry in the log, before anything is done for its program.

use crate::audit::{Event, Files, Log, Start, Usage, names, open};
use crate::error::{Error, Kind};
use crate::policy::{Ceiling, LimitExceeded, Policy};
use crate::record::{Anchor, Record};
use crate::run::{Inspection, Request};
use crate::session::protocol::KeptLog;
use anyhow::{Context, Result};
use std::env;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The client's name in the log for `sandbox run` and `sandbox session`.
pub const CLIENT: &str = "cli";

/// The policy of a run, and the log that it is written to.
pub struct Admission {
    pub ceiling: Ceiling,
    log: Option<Log>,
    /// Whether the code itself is written to the log too.
    pub keep_code: bool,
    /// The number of the run that has begun, in the log.
    number: Option<u64>,
}

impl Admission {
    /// Reads the policy and opens the log, as the options and the policy say.
    pub fn prepare(policy: Option<&Path>, audit: Option<&Path>) -> Result<Self> {
        keep_to_environment("--policy", "SANDBOX_POLICY", policy)?;
        keep_to_environment("--audit", "SANDBOX_AUDIT", audit)?;
        let policy = match policy {
            Some(path) => Policy::read(path)?,
            None => Policy::default(),
        };
        let audit = open(policy.audit.as_ref(), audit)?;
        let (log, keep_code) = audit.unzip();
        Ok(Self {
            ceiling: policy.run,
            log,
            keep_code: keep_code.unwrap_or_default(),
            number: None,
        })
    }

    /// Returns whether runs are written down.
    pub fn is_audited(&self) -> bool {
        self.log.is_some()
    }

    /// Returns the log that is to be kept of a session, into which these files go. `from`: what it goes on from.
    pub fn log_of_session(&self, files: Files, from: Option<String>) -> Result<Option<KeptLog>> {
        let kept = |log: &Log| -> Result<KeptLog> {
            let (rotate, sync) = log.how();
            Ok(KeptLog {
                path: std::path::absolute(log.path()).context("finding the log")?,
                rotate,
                sync,
                code: self.keep_code,
                files,
                from: from.clone(),
            })
        };
        self.log.as_ref().map(kept).transpose()
    }

    /// Returns whether a run must be looked at before it begins.
    pub fn inspects(&self) -> bool {
        self.is_audited() || self.ceiling != Ceiling::default()
    }

    /// Writes a refusal down, and returns it as an error.
    pub fn refuse(&self, excess: LimitExceeded) -> anyhow::Error {
        if let Some(log) = &self.log {
            let refusal = Event::Refusal((&excess).into());
            if let Err(error) = log.append(CLIENT, &refusal) {
                return error;
            }
        }
        Error::from(excess).into()
    }

    /// Checks an inspected run against the policy, and writes its start to the log.
    pub fn admit(&mut self, request: &Request, inspection: Inspection) -> Result<()> {
        let Inspection {
            code,
            language,
            files,
        } = inspection;
        let checked = self
            .ceiling
            .check_language(&language)
            .and_then(|()| {
                let arguments = request.arguments.iter().map(|word| word.as_bytes());
                let variables = request.env.iter().map(Vec::as_slice);
                self.ceiling.check_program(code.bytes, arguments, variables)
            })
            .and_then(|()| self.ceiling.check_files(files.count, files.bytes));
        checked.map_err(|excess| self.refuse(excess))?;
        let Some(log) = &self.log else {
            return Ok(());
        };
        let start = Start {
            session: None,
            code,
            language,
            arguments: request.arguments.len(),
            environment: names(request.env.iter().map(Vec::as_slice)),
            files,
            limits: (&request.limits).into(),
            root: request.root,
        };
        self.number = Some(log.append(CLIENT, &Event::Start(start))?.sequence);
        Ok(())
    }

    /// Writes down how the run ended, if it had begun.
    pub fn end(&self, record: &Record, usage: Usage) -> Result<Option<Anchor>> {
        let begun = self.log.as_ref().zip(self.number);
        begun
            .map(|(log, number)| log.end(CLIENT, number, record, usage))
            .transpose()
    }
}

/// Refuses an option that contradicts its environment variable, since an administrator sets that for
/// other users.
pub fn keep_to_environment(option: &str, name: &str, given: Option<&Path>) -> Result<(), Error> {
    match env::var_os(name) {
        Some(set) if given != Some(Path::new(&set)) => Err(Error::new(
            Kind::Policy,
            format!("{option} is not what {name} says: {}", set.display()),
            format!("leave out {option}"),
        )),
        _ => Ok(()),
    }
}
