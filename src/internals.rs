//! The parts that tests outside of `src/` use: no interface, and without the feature `internals` not there.

pub mod agent {
    pub use crate::agent::*;
}
pub mod audit {
    pub use crate::audit::*;
}
pub mod cache {
    pub use crate::cache::*;
}
pub mod cli {
    pub use crate::cli::*;
}
pub mod confine {
    pub use crate::confine::*;
}
pub mod devices {
    pub use crate::devices::*;
}
pub mod error {
    pub use crate::error::*;
}
pub mod image {
    pub use crate::image::*;
}
pub mod job {
    pub use crate::job::*;
}
pub mod kvm_mode {
    pub use crate::kvm_mode::*;
}
pub mod limits {
    pub use crate::limits::*;
}
pub mod outcome {
    pub use crate::outcome::*;
}
pub mod policy {
    pub use crate::policy::*;
}
pub mod record {
    pub use crate::record::*;
}
pub mod run {
    pub use crate::run::*;
}
pub mod session {
    pub use crate::session::*;
}
pub mod signals {
    pub use crate::signals::*;
}
pub mod template {
    pub use crate::template::*;
}
pub mod units {
    pub use crate::units::*;
}
pub mod vm {
    pub use crate::vm::*;
}
pub mod watchdog {
    pub use crate::watchdog::*;
}
