//! Packages for programs: what a script says that it needs is chosen once, and from then on runs without
//! a network.
//!
//! What is asked for ([`Asked`]) comes from a script's header, from options and files. [`choose`] makes a
//! lock of it ([`Lock`]): from the cache, from beside the script, or by uv from an index. uv is a program
//! of its own, and confined.

mod asked;
pub mod beside;
mod choice;
mod environment;
mod fault;
mod header;
mod interpreter;
mod layer;
mod lock;
mod modules;
mod requirement;
mod setup;
mod shelf;
mod stage;
mod store;
mod tree;
mod uv;
mod wheel;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use asked::Asked;
pub use choice::{Chosen, How, choose, choose_anew};
pub use environment::Environment;
pub use header::Header;
pub use layer::Maker;
pub use lock::Lock;
pub use modules::distribution;
pub use setup::{VERSION as UV_VERSION, bring};
pub use store::Store;
