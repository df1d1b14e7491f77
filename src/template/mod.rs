//! Templates: saved virtual machines, as files in the user's cache.
//!
//! A template is one file, so that a rename publishes it whole: a [header](mod@format), the state
//! of vCPU and devices as bytes that this module does not interpret, and the memory, with a hole
//! for every page of zeroes. Header and state are verified whenever a template is opened. The
//! memory, which a run maps and mostly does not touch, is protected by owner, mode and rename, and
//! is verified on demand.

pub mod builder;
pub mod format;
mod listing;
mod lock;
mod pages;
mod spec;
mod store;
mod writer;

pub use crate::key::Key;
pub use lock::Lock;
pub use spec::TemplateSpec;
pub use store::{Found, Store, Template};
pub use writer::{GAP, TemplateWriter};

#[cfg(test)]
mod fixture;
