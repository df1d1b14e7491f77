//! A run as typed data in a process of its own: what it is goes in over a socket, and what becomes of
//! it comes out. Whoever starts such a process keeps its own rights and files from the guest.

pub mod client;
mod serve;
mod spec;
pub mod temp_dir;

pub use serve::serve;
pub use spec::{Ended, Event, Inspect, Notice, Spec, schema};
