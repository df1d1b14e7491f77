//! A machine that is kept, and asked again: its process, the socket that this listens on, and the
//! messages there (docs/session-protocol.md).

mod answer;
mod background;
mod captured_output;
mod channel;
mod client;
mod commands;
mod context;
mod contexts;
mod facts;
mod fetch;
mod fork;
mod guest;
mod interpreter_link;
mod journal;
mod machine;
mod owner;
mod peers;
mod points;
pub mod protocol;
mod request_check;
mod resume;
mod server;
mod snapshot;
mod socket_directory;
mod start;
mod transfer;
mod turn;
mod vcpu_thread;

pub use captured_output::{CapturedOutput, bytes_of};
pub use client::Client;
pub use fetch::{FETCH_VERB, Fetch, FetchResult, fetch, serve_fetch};
pub use journal::{Answer, Asked, Entry, answer, first_entry, unwritten};
pub use machine::serve;
pub use owner::{Owner, Tie, let_go, parent_has_ended};
pub use snapshot::Taken;
pub use socket_directory::{Place, check_name, random_name};
pub use start::{KEEPER_VERB, Owned, Started, VERB, start, start_another};
pub use transfer::Transfer;
