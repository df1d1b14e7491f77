//! The policy on what callers may ask for: a TOML file with limits that they cannot exceed.

mod ceiling;
mod limit_exceeded;
mod packages;
mod quota;
mod requested;
mod sessions;
mod values;

pub use ceiling::{Ceiling, Files, Grant, ResourceRequest};
pub use limit_exceeded::LimitExceeded;
pub use packages::Packages;
pub use quota::{Admission, Admitting, Quota, QuotaKind, Throttled};
pub use requested::Requested;
pub use sessions::Sessions;
pub use values::Size;

use crate::error::{Error, Kind};
use crate::text::toml_error;
use crate::units::MEMORY_MIN;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A policy. A key that is absent limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// The limits of one run.
    pub run: Ceiling,
    /// The limits of each client of a server, and of all of them together.
    pub server: Server,
    /// The log of runs, which a caller can neither turn off nor change.
    pub audit: Option<Audit>,
}

/// The limits of a server. Runs that no client of it asked for are not counted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Runs at once, of all clients; absent: as many as there are processors.
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// The limits of each client.
    pub client: Client,
}

/// The limits of one client of a server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Client {
    /// Runs at once; absent: half of all, so that another finds a place.
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
    /// Runs that wait for their turn; absent: 16.
    pub queue: Option<u32>,
    /// Runs in any 60 seconds.
    pub runs_per_minute: Option<u32>,
    /// Processor time of its runs' processes, the guests' included, in any hour.
    pub cpu_seconds_per_hour: Option<u32>,
    /// Bytes on disk of what is kept in the cache for its runs; absent: 2G.
    pub cache: Option<Size>,
}

/// The log of runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Absolute path.
    pub file: PathBuf,
    /// Size at which a new file is begun; absent: 64M.
    pub rotate: Option<Size>,
    /// Wait for the disk after each entry: it is there then even after a power failure.
    #[serde(default)]
    pub sync: bool,
    /// Write down the code itself too, not only its hash.
    #[serde(default)]
    pub code: bool,
}

impl Policy {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(&text).map_err(|what| {
            Error::new(
                Kind::Policy,
                format!("the policy {} is refused: {what}", path.display()),
                "correct it there; docs/policy.md says what a policy may have",
            )
        })
    }

    /// Parses and checks a policy. The error says what is wrong, and where.
    fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
        policy.check()?;
        Ok(policy)
    }

    /// Checks what the types of the fields do not.
    fn check(&self) -> Result<(), String> {
        let Server {
            concurrency,
            client,
        } = &self.server;
        for (key, value) in [
            ("server.concurrency", concurrency),
            ("server.client.concurrency", &client.concurrency),
        ] {
            if *value == Some(0) {
                return Err(format!("{key}: with 0 nothing ever runs"));
            }
        }
        if self.run.pids == Some(0) {
            return Err("run.pids: with 0 no program starts".into());
        }
        if self.run.memory.is_some_and(|memory| memory.0 < MEMORY_MIN) {
            return Err("run.memory: no machine runs with less than 64M".into());
        }
        match &self.audit {
            Some(audit) if !audit.file.is_absolute() => {
                Err("audit.file: give an absolute path".into())
            }
            _ => Ok(()),
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::Policy,
        format!("the policy {} cannot be read: {error}", path.display()),
        "check the path and its permissions: nothing runs without the policy",
    )
}

/// Returns the schema of a [`Policy`] (JSON Schema 2020-12).
#[cfg(any(test, feature = "internals"))]
pub fn schema() -> schemars::Schema {
    use crate::record::without_format;
    use schemars::generate::SchemaSettings;
    use schemars::transform::RecursiveTransform;

    let settings = SchemaSettings::draft2020_12();
    let generator = settings.with_transform(RecursiveTransform(without_format));
    generator.into_generator().into_root_schema_for::<Policy>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::values::Time;
    use std::time::Duration;

    #[test]
    fn a_policy_may_be_empty() {
        assert_eq!(Policy::parse(""), Ok(Policy::default()));
    }

    #[test]
    fn the_example_has_every_key() {
        let text = include_str!("../../examples/policy.toml");
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.run.memory, Some(Size(512 << 20)));
        assert_eq!(policy.run.timeout, Some(Time(Duration::from_secs(60))));
        let schema = schema().to_value();
        let mut keys = Vec::new();
        for definition in ["Ceiling", "Files", "Sessions", "Server", "Client", "Audit"] {
            let properties = &schema["$defs"][definition]["properties"];
            keys.extend(properties.as_object().unwrap().keys().cloned());
        }
        assert!(keys.len() > 15, "{keys:?}");
        for key in keys {
            assert!(
                text.contains(&format!("{key} =")) || text.contains(&format!("{key}]")),
                "no {key}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, what) in [
            ("[run]\nmemroy = '1G'", 2, "memroy"),
            ("\n\n[runs]\n", 3, "runs"),
            ("[run]\nmemory = '1X'", 2, "K, M or G"),
            ("[run]\npids = -1", 2, "-1"),
            ("[run]\ntimeout = '0'", 2, "limit"),
            ("[run]\nlanguages = ['cobol']", 2, "cobol"),
            ("[audit]\nsync = true", 1, "file"),
            ("[run]\nmemory = ", 2, ""),
            ("[run]\nfiles = { number = 1 }", 2, "number"),
        ] {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}: ")), "{error}");
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn what_would_never_run_or_depends_on_a_directory_is_refused() {
        for text in [
            "[server]\nconcurrency = 0",
            "[server.client]\nconcurrency = 0",
            "[audit]\nfile = 'audit.jsonl'",
            "[run]\nmemory = '32M'",
            "[run]\npids = 0",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
