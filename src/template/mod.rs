//! Templates: saved virtual machines, as files in the user's cache.
//!
//! A template is one file, so that a rename publishes it whole: a [header](mod@format), the state
//! of vCPU and devices as bytes that this module does not interpret, and the memory, with a hole
//! for every page of zeroes. Header and state are verified whenever a template is opened. The
//! memory, which a run maps and mostly does not touch, is protected by owner, mode and rename, and
//! is verified on demand.

mod build_process;
pub mod builder;
pub mod eviction;
mod failure;
pub mod format;
mod listing;
mod lock;
mod module_uses;
mod pages;
mod preload;
mod rehearsal;
mod spec;
mod store;
mod writer;

pub use crate::key::Key;
pub use lock::Lock;
pub use preload::Preload;
pub use spec::{TemplateSpec, open_layers};
pub use store::{Found, Store, Template};
pub use writer::{GAP, TemplateWriter};

#[cfg(test)]
mod fixture;
