//! The transports of messages to and from the server: standard input and output, and HTTP.

pub(crate) mod backpressure;
pub(crate) mod client;
pub(crate) mod gauge;
pub(crate) mod http;
pub(crate) mod message_limits;
pub(crate) mod parse;
pub(crate) mod session_ids;
pub(crate) mod stdio;
pub(crate) mod token_file;
pub(crate) mod tokens;
