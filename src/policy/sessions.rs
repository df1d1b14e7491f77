//! What a policy says of sessions: how many there may be, how large, and for how long.

use crate::policy::limit_exceeded::LimitExceeded;
use crate::policy::requested::{Requested, at_most, lower, seconds};
use crate::policy::values::{Size, Time};
use crate::units::format_size;
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// The sessions of a user of the host, or of a client of a server. A key that is absent limits nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Sessions at once; 0: none.
    pub count: Option<u32>,
    /// Guest memory of all of them together.
    pub memory: Option<Size>,
    /// How long one may be asked nothing.
    pub idle: Option<Time>,
    /// How long one may be there.
    pub age: Option<Time>,
    /// Whether others may go on from one.
    pub fork: Option<bool>,
    /// Whether the machine of one may be saved to a file.
    pub checkpoint: Option<bool>,
}

impl Sessions {
    /// Returns whether there may be any.
    pub fn is_on(&self) -> bool {
        self.count != Some(0)
    }

    /// Checks that there may be one more, of so much memory, beside others of so much together.
    pub fn check(&self, others: u32, memory: u64, of_others: u64) -> Result<(), LimitExceeded> {
        self.check_alone(memory)?;
        match self.count {
            Some(most) if others >= most => Err(LimitExceeded::new(
                "sessions.count",
                format!("one beside {others}"),
                at_most(most.to_string()),
            )),
            _ => self.check_memory(of_others.saturating_add(memory)),
        }
    }

    /// Checks that there may be one of so much memory, if there is no other.
    pub fn check_alone(&self, memory: u64) -> Result<(), LimitExceeded> {
        match self.is_on() {
            true => self.check_memory(memory),
            false => Err(LimitExceeded::none("sessions.count", "a session")),
        }
    }

    fn check_memory(&self, memory: u64) -> Result<(), LimitExceeded> {
        let most = self.memory.map(|most| most.0);
        let memory = Requested::Given(memory);
        lower("sessions.memory", memory, most, format_size).map(drop)
    }

    /// Checks that others may go on from a session.
    pub fn check_fork(&self) -> Result<(), LimitExceeded> {
        allowed("sessions.fork", "a fork", self.fork)
    }

    /// Checks that the machine of a session may be saved.
    pub fn check_checkpoint(&self) -> Result<(), LimitExceeded> {
        allowed("sessions.checkpoint", "a checkpoint", self.checkpoint)
    }

    /// Returns how long a session may be asked nothing, and how long it may be there.
    pub fn bounds(
        &self,
        idle: Requested<Duration>,
        age: Requested<Duration>,
    ) -> Result<(Duration, Duration), LimitExceeded> {
        let most = |time: Option<Time>| time.map(|time| time.0);
        Ok((
            lower("sessions.idle", idle, most(self.idle), seconds)?,
            lower("sessions.age", age, most(self.age), seconds)?,
        ))
    }
}

fn allowed(what: &'static str, asked: &str, is_on: Option<bool>) -> Result<(), LimitExceeded> {
    match is_on {
        Some(false) => Err(LimitExceeded::none(what, asked)),
        Some(true) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(text: &str) -> Sessions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn one_more_session_must_be_within_the_count_and_the_memory() {
        const MIB: u64 = 1 << 20;
        for (text, others, of_others, refused) in [
            ("", 1000, 1 << 40, None),
            ("count = 0", 0, 0, Some("sessions.count")),
            ("count = 2", 1, 0, None),
            ("count = 2", 2, 0, Some("sessions.count")),
            ("memory = '512M'", 9, 256 * MIB, None),
            ("memory = '512M'", 9, 257 * MIB, Some("sessions.memory")),
        ] {
            let checked = sessions(text).check(others, 256 * MIB, of_others);
            assert_eq!(checked.err().map(|excess| excess.what), refused, "{text}");
        }
        assert!(!sessions("count = 0").is_on());
        assert!(sessions("count = 1").check_alone(256 * MIB).is_ok());
        assert!(sessions("memory = '128M'").check_alone(256 * MIB).is_err());
    }

    #[test]
    fn times_are_lowered_for_who_asks_for_none_and_else_refused() {
        let policy = sessions("idle = '1m'\nage = '1h'");
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
        let usual = (Requested::Default(2 * minute), Requested::Default(2 * hour));
        assert_eq!(policy.bounds(usual.0, usual.1), Ok((minute, hour)));
        let less = (Requested::Given(minute / 2), Requested::Given(hour));
        assert_eq!(policy.bounds(less.0, less.1), Ok((minute / 2, hour)));
        let more = policy.bounds(Requested::Given(2 * minute), Requested::Given(hour));
        assert_eq!(more.unwrap_err().what, "sessions.idle");
    }

    #[test]
    fn forks_and_checkpoints_are_refused_each_by_its_key() {
        for (text, fork, checkpoint) in [
            ("", None, None),
            ("fork = true\ncheckpoint = true", None, None),
            ("fork = false", Some("sessions.fork"), None),
            ("checkpoint = false", None, Some("sessions.checkpoint")),
        ] {
            let policy = sessions(text);
            let refused = [policy.check_fork(), policy.check_checkpoint()]
                .map(|checked| checked.err().map(|excess| excess.what));
            assert_eq!(refused, [fork, checkpoint], "{text}");
        }
    }
}
