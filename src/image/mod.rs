//! What a guest has in it: its kernel, its agent, its file system and the languages of its programs.

pub(crate) mod language;
pub mod store;
