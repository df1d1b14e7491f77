//! The wall clock, which anybody may set at any time. It is used for reports and for names. Limits
//! go by [`std::time::Instant`], so that none of them changes with it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the time since 1970, or zero if the clock is before that.
#[expect(clippy::disallowed_methods, reason = "all others ask here")]
pub fn since_1970() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
