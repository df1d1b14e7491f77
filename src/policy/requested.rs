//! Values that a caller chose or left to us, and what a policy makes of them.

use crate::policy::limit_exceeded::LimitExceeded;
use std::time::Duration;

/// A value, and who chose it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested<T> {
    /// The caller chose the value; it is refused if it is too high.
    Given(T),
    /// The caller chose nothing, so the value is our default; it is lowered if it is too high.
    Default(T),
}

impl<T> Requested<T> {
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Requested<U> {
        match self {
            Self::Given(value) => Requested::Given(change(value)),
            Self::Default(value) => Requested::Default(change(value)),
        }
    }
}

/// Returns the value as far as the policy allows it.
pub fn lower<T: Ord + Copy>(
    what: &'static str,
    ask: Requested<T>,
    most: Option<T>,
    show: impl Fn(T) -> String,
) -> Result<T, LimitExceeded> {
    match (ask, most) {
        (Requested::Given(value), Some(most)) if value > most => {
            Err(LimitExceeded::new(what, show(value), at_most(show(most))))
        }
        (Requested::Default(value), Some(most)) => Ok(value.min(most)),
        (Requested::Given(value) | Requested::Default(value), _) => Ok(value),
    }
}

pub fn at_most(what: String) -> String {
    format!("at most {what}")
}

pub fn seconds(time: Duration) -> String {
    match time {
        Duration::MAX => "no limit".into(),
        time => format!("{} s", time.as_secs_f64()),
    }
}
