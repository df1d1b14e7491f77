//! Files of the host's for the guest, and files of the guest's for the host.
//!
//! What goes in is read here and handed to the session. What comes out is hostile: a process of
//! its own takes the guest's stream apart and writes below the destinations, and does nothing else.

mod destination;
mod fetched;
mod name;
mod put;
mod unpack;
mod unpacker;

pub use destination::{Destination, destinations};
pub use fetched::{Failure, Fetched, Written};
pub use name::{Get, Put};
pub use put::read;
pub use unpacker::Unpacker;

use crate::complaint::Complaint;
use crate::outcome::EXIT_OURS;

/// Files and directories in one run at most, each way.
const COUNT_MAX: usize = 100_000;

fn complaint(what: impl Into<String>, remedy: impl Into<String>) -> Complaint {
    Complaint {
        what: what.into(),
        remedy: remedy.into(),
        exit_code: EXIT_OURS,
    }
}
