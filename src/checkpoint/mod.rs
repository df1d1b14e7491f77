//! Machines of sessions that were saved, for others to go on from.

mod file;
mod point;
mod store;

pub use point::{Interpreter, MEMORY_OFFSET, POINT_OFFSET, Point};
pub use store::{Checkpoint, Checkpoints};
