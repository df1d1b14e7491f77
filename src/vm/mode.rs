//! The three ways in which a guest's kernel mode can run.

use crate::vm::host::Family;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The way in which a guest's kernel mode runs. Its user mode is native in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Kernel mode runs natively on VT-x or AMD-V.
    Hardware,
    /// Kernel mode runs natively on a software KVM, for a kernel that knows how to.
    Native,
    /// A software KVM emulates kernel mode, one instruction at a time.
    Emulated,
}

impl Mode {
    pub fn family(self) -> Family {
        match self {
            Self::Hardware => Family::Hardware,
            Self::Native | Self::Emulated => Family::Software,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Native => "native",
            Self::Emulated => "emulated",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "hardware KVM",
            Self::Native => "software KVM, native kernel",
            Self::Emulated => "software KVM, emulated kernel",
        })
    }
}
