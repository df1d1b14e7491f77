//! What depends on the processor: a folder for each architecture.

pub mod x86_64;
