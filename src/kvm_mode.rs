//! In which mode of KVM guests run: as the user wants it, or the fastest that works here.

use crate::complaint::Complaint;
use crate::outcome::EXIT_OURS;
use crate::vm::host::Family;
use crate::vm::mode::Mode;
use std::path::PathBuf;

/// The KVM device, and what it is to be used for.
#[derive(Debug, Clone)]
pub struct Device {
    pub path: PathBuf,
    pub choice: Choice,
}

/// What the user wants of a software KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The fastest that works here.
    Auto,
    /// The guest's kernel runs natively, or there is no run.
    Native,
    /// The guest's kernel is emulated.
    Emulated,
}

impl Choice {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Emulated => "emulated",
        }
    }
}

/// The mode in which guests are to run.
pub fn choose(choice: Choice) -> Result<Mode, Complaint> {
    match (Family::detect(), choice) {
        (Family::Hardware, Choice::Auto) => Ok(Mode::Hardware),
        (Family::Hardware, Choice::Native | Choice::Emulated) => Err(Complaint {
            what: format!(
                "--kvm-mode {} is for a software KVM, and this host has a hardware KVM",
                choice.name()
            ),
            remedy: "leave it out: the guest's kernel runs natively here".into(),
            exit_code: EXIT_OURS,
        }),
        (Family::Software, Choice::Native) => Ok(Mode::Native),
        (Family::Software, Choice::Auto | Choice::Emulated) => Ok(Mode::Emulated),
    }
}
