//! A run in a process of its own. Its request goes in over a socket, and its events come out, all
//! as typed data. So whoever starts such a process keeps its own rights and files from the guest.

pub mod client;
mod compile;
mod notice;
mod serve;
mod spec;
pub mod temp_dir;

pub use compile::compile;
pub use notice::{Notice, Notices};
pub use serve::serve;
pub use spec::{Ended, Event, Inspect, Spec};
