//! The server's own log, on standard error.

use std::io::{Write, stderr};

/// Writes a line to standard error, if anybody still reads it.
pub fn say(text: &str) {
    stderr()
        .write_all(format!("sandbox: {text}\n").as_bytes())
        .unwrap_or_default();
}
