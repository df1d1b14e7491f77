//! What a user did that cannot be done.

use std::fmt;

/// The user's mistake: what is wrong, what to do, and the exit code that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    pub remedy: String,
    pub exit_code: u8,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Complaint {}
