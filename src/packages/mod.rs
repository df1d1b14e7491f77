//! Packages for programs: what a script says that it needs is chosen once, and from then on runs without
//! a network.
//!
//! What is asked for ([`Asked`]) comes from a script's header, from options and files. [`choose`] makes a
//! lock of it ([`Lock`]): from the cache, from beside the script, or by uv from an index. uv is a program
//! of its own, and confined.

mod choice;
mod environment;
mod header;
mod interpreter;
mod layer;
mod lock;
mod modules;
mod request;
mod requirement;
pub mod script_lock;
mod setup;
mod shelf;
mod staging;
mod store;
mod tree;
mod uv;
mod uv_error;
mod wheel;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use choice::{Chosen, How, choose, choose_anew};
pub use environment::Environment;
pub use header::Header;
pub use layer::Maker;
pub use lock::Lock;
pub use modules::distribution;
pub use request::Asked;
pub use setup::{VERSION as UV_VERSION, bring};
pub use store::Store;
