//! The code that depends on the processor, in a folder for each architecture.

pub mod x86_64;
