//! End-to-end tests: the real binary, real virtual machines on the real KVM, the real kernel and
//! CPython. Without KVM they fail, and say so.

mod age;
mod clones;
mod common;
mod confine;
mod failures;
mod fidelity;
mod guest;
mod killed;
mod limits;
mod machine;
mod puppet;
mod templates;
mod warm;
