//! Messages on standard error: what the command line says, and the server's own log.

use std::io::{Write, stderr};

/// Writes lines to standard error, if anybody still reads it.
pub fn say(text: &str) {
    let lines = text.lines().map(|line| format!("sandbox: {line}\n"));
    // The lines are written in one piece, since others may write there too.
    let lines: String = lines.collect();
    stderr().write_all(lines.as_bytes()).unwrap_or_default();
}
