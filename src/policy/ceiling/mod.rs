//! The limits on one run that a policy sets.

use crate::cache::Share;
use crate::image::LanguageName;
use crate::limits::ConfineLevel;
use crate::policy::limit_exceeded::LimitExceeded;
use crate::policy::packages::Packages;
use crate::policy::requested::{Requested, at_most, lower, seconds};
use crate::policy::sessions::Sessions;
use crate::policy::values::{Size, Time};
use crate::units::{MEMORY_PIECE, format_size, memory_step};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// The most that a run gets. A key that is absent limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// Guest memory.
    pub memory: Option<Size>,
    /// Wall clock of the program.
    pub timeout: Option<Time>,
    /// Bytes delivered of each output stream.
    pub output: Option<Size>,
    /// Bytes of standard input.
    pub stdin: Option<Size>,
    /// Bytes of the code or script, with its arguments and variables.
    pub code: Option<Size>,
    /// Files and directories that are put into the guest, and likewise those that are fetched.
    pub files: Files,
    /// Processes and threads at once.
    #[schemars(range(min = 1))]
    pub pids: Option<u32>,
    /// Languages that code may be in.
    pub languages: Option<Vec<LanguageName>>,
    /// Names of variables that may be set; a * at the end stands for anything.
    pub environment: Option<Vec<String>>,
    /// Whether a program may be the guest's root.
    pub root: Option<bool>,
    /// The packages that a program may have. Without this key, a server allows none.
    pub packages: Option<Packages>,
    /// The sessions that there may be.
    pub sessions: Sessions,
    /// The least confinement of the process that runs the guest.
    pub confine: Option<Confinement>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    pub count: Option<u64>,
    /// The bytes of all of them together.
    pub size: Option<Size>,
}

/// A level of confinement other than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confinement {
    /// The process confines itself as far as the kernel lets it.
    Auto,
    /// The process confines itself fully, or there is no run.
    Require,
}

/// The resources that a caller wants for a run, before anything is done for it.
#[derive(Debug, Clone)]
pub struct ResourceRequest<'a> {
    pub memory: Requested<u64>,
    /// The time limit; `None` means that there is to be none.
    pub timeout: Requested<Option<Duration>>,
    pub output: Requested<u64>,
    pub pids: Requested<u32>,
    pub confine: Requested<ConfineLevel>,
    pub root: bool,
    /// The program's language, if it is known already.
    pub language: Option<&'a str>,
    /// The bytes of standard input, if they are known before the run; otherwise, the run is held to
    /// [`Grant::stdin`].
    pub stdin: Option<u64>,
    /// The names of the variables that are to be set.
    pub environment: Vec<&'a [u8]>,
}

/// The resources that a run gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub memory: u64,
    /// The memory of a saved machine for it, which has no more than the policy allows either.
    pub machine_memory: u64,
    pub timeout: Option<Duration>,
    pub output: u64,
    pub pids: u32,
    pub confine: ConfineLevel,
    pub stdin: u64,
    /// The limits on files that are put, and likewise on those that are fetched.
    pub files: Files,
    /// The share of the cache, for a client of a server.
    pub share: Option<Share>,
}

impl Ceiling {
    /// Returns what a run gets that is started with this request.
    pub fn grant(&self, wish: &ResourceRequest) -> Result<Grant, LimitExceeded> {
        wish.language
            .map_or(Ok(()), |language| self.check_language(language))?;
        self.check_environment(&wish.environment)?;
        if wish.root && self.root == Some(false) {
            return Err(LimitExceeded::new("root", true, false));
        }
        let size = |most: Option<Size>| most.map(|most| most.0);
        let stdin = size(self.stdin).unwrap_or(u64::MAX);
        if let Some(bytes) = wish.stdin {
            within("stdin", bytes, self.stdin)?;
        }
        // A run without a time limit counts as longer than one with any limit.
        let endless = |timeout: Option<Duration>| timeout.unwrap_or(Duration::MAX);
        let timeout = lower(
            "timeout",
            wish.timeout.map(endless),
            self.timeout.map(|most| most.0),
            seconds,
        )?;
        let memory = lower("memory", wish.memory, self.memory_max(), format_size)?;
        Ok(Grant {
            memory,
            machine_memory: memory_step(memory).min(self.memory_max().unwrap_or(u64::MAX)),
            timeout: (timeout < Duration::MAX).then_some(timeout),
            output: lower("output", wish.output, size(self.output), format_size)?,
            pids: lower("pids", wish.pids, self.pids, |pids| pids.to_string())?,
            confine: self.confine(wish.confine)?,
            stdin,
            files: self.files,
            share: None,
        })
    }

    /// Returns the most bytes of memory that a guest can have.
    pub fn memory_max(&self) -> Option<u64> {
        self.memory.map(|most| most.0 - most.0 % MEMORY_PIECE)
    }

    pub fn check_code(&self, bytes: u64) -> Result<(), LimitExceeded> {
        within("code", bytes, self.code)
    }

    /// Checks the size of code together with its arguments and variables, which are `NAME=VALUE`. Each
    /// of those words counts one byte more, for its end, so that empty words are limited too.
    pub fn check_program<'a>(
        &self,
        code: u64,
        arguments: impl IntoIterator<Item = &'a [u8]>,
        variables: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), LimitExceeded> {
        self.check_code(code)?;
        let (arguments, variables) = (bytes(arguments), bytes(variables));
        within("code", code + arguments + variables, self.code).map_err(|excess| LimitExceeded {
            asked: format!(
                "{} (code {code}, arguments {arguments}, variables {variables})",
                excess.asked
            ),
            ..excess
        })
    }

    /// Checks the files that are put, or those that are to be fetched.
    pub fn check_files(&self, count: u64, bytes: u64) -> Result<(), LimitExceeded> {
        match self.files.count {
            Some(most) if count > most => Err(LimitExceeded::new(
                "files.count",
                count,
                at_most(most.to_string()),
            )),
            _ => within("files.size", bytes, self.files.size),
        }
    }

    pub fn check_language(&self, language: &str) -> Result<(), LimitExceeded> {
        match &self.languages {
            Some(allowed) if !allowed.iter().any(|name| name.as_str() == language) => {
                Err(LimitExceeded::new("languages", language, list(allowed)))
            }
            _ => Ok(()),
        }
    }

    fn check_environment(&self, names: &[&[u8]]) -> Result<(), LimitExceeded> {
        let Some(allowed) = &self.environment else {
            return Ok(());
        };
        match names.iter().find(|name| !is_among(name, allowed)) {
            None => Ok(()),
            Some(name) => {
                let name = String::from_utf8_lossy(name).escape_debug().to_string();
                Err(LimitExceeded::new("environment", name, list(allowed)))
            }
        }
    }

    fn confine(&self, ask: Requested<ConfineLevel>) -> Result<ConfineLevel, LimitExceeded> {
        let holds = |level| match self.confine {
            None => true,
            Some(Confinement::Auto) => level != ConfineLevel::Off,
            Some(Confinement::Require) => level == ConfineLevel::Require,
        };
        match ask {
            Requested::Given(level) | Requested::Default(level) if holds(level) => Ok(level),
            Requested::Default(_) => Ok(ConfineLevel::Require),
            Requested::Given(level) => {
                let least = match self.confine {
                    Some(Confinement::Require) => "require",
                    _ => "auto or require",
                };
                Err(LimitExceeded::new("confine", level.name(), least))
            }
        }
    }
}

fn within(what: &'static str, size: u64, most: Option<Size>) -> Result<(), LimitExceeded> {
    lower(
        what,
        Requested::Given(size),
        most.map(|most| most.0),
        format_size,
    )
    .map(|_| ())
}

fn bytes<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    words.into_iter().map(|word| word.len() as u64 + 1).sum()
}

fn list(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => "none".into(),
        names => {
            let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
            names.join(", ")
        }
    }
}

/// Returns whether one of the allowed names is this name, or its beginning with a * after it.
fn is_among(name: &[u8], allowed: &[String]) -> bool {
    allowed
        .iter()
        .any(|allowed| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning.as_bytes()),
            None => name == allowed.as_bytes(),
        })
}

#[cfg(test)]
mod tests;
