//! The log of runs: one JSON object on each line, each with the hash of the one before.
//!
//! The log is written on the host, outside the guest, and never by the process that runs a guest.
//! Several processes may write to one log.

mod entry;
mod line;
mod log;
mod tail;
#[cfg(test)]
mod tests;
mod verify;

pub use entry::{Code, Event, Files, Limits, Refusal, Session, Start, Usage, names, shortened};
pub use log::{Log, open};
pub use verify::{Sound, verify};
