//! The refusal of what is more than a policy allows.

use crate::error::{Error, Kind};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// More than the policy allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LimitExceeded {
    /// The key of the policy.
    pub what: &'static str,
    pub asked: String,
    pub allowed: String,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            asked,
            allowed,
        } = self;
        write!(
            f,
            "the policy's run.{what} allows {allowed}, and {asked} is asked for"
        )
    }
}

impl std::error::Error for LimitExceeded {}

impl From<LimitExceeded> for Error {
    fn from(excess: LimitExceeded) -> Self {
        Self::new(Kind::Policy, excess.to_string(), excess.remedy())
    }
}

impl LimitExceeded {
    pub fn new(what: &'static str, asked: impl ToString, allowed: impl ToString) -> Self {
        Self {
            what,
            asked: asked.to_string(),
            allowed: allowed.to_string(),
        }
    }

    /// Returns the refusal of something of which the policy allows nothing.
    pub fn none(what: &'static str, asked: &str) -> Self {
        Self::new(what, asked, "none")
    }

    pub fn remedy(&self) -> String {
        format!(
            "stay within that, or ask whoever wrote the policy to raise run.{}",
            self.what
        )
    }
}
