//! Files from the host for the guest, and files from the guest for the host.
//!
//! Files for the guest are read here and handed to the session. Files from the guest are hostile: a
//! process of its own takes the guest's stream apart and writes below the destinations, and does
//! nothing else.

mod destination;
mod excluded;
mod extract;
mod extract_process;
mod gather;
mod layer;
mod put;
mod report;
mod siblings;
mod spec;
mod tree;

pub use destination::{Destination, destinations};
pub use excluded::Excluded;
pub use extract_process::Unpacker;
pub use gather::{Gathered, Wanted, gather, place_of};
pub use layer::show;
pub use put::{list, read, room};
pub use report::{Fetched, Written};
pub use siblings::Siblings;
pub use spec::{Get, Put, PutContent};

use crate::error::{Error, Kind, Remedy};

/// Upper bound on the files and directories in one run, each way.
const COUNT_MAX: usize = 100_000;

fn unusable(message: impl Into<String>, remedy: impl Into<Remedy>) -> Error {
    Error::new(Kind::File, message, remedy)
}
