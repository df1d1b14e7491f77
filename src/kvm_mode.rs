//! In which mode of KVM guests run: as the user wants it, or the fastest that works here, which is
//! found out by trying and then remembered.

pub mod kept;

use crate::complaint::Complaint;
use crate::outcome::EXIT_OURS;
use crate::vm::mode::Mode;
use crate::vm::{Verdict, probe};
use anyhow::Result;
use kept::Kept;
use kvm_ioctls::Kvm;
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

/// The mode in which guests are to run, by what is remembered of this host if anything is.
pub fn choose(kvm: &Kvm, device: &Device) -> Result<Mode> {
    let kept = Kept::of(&device.path)?;
    let verdict = match kept.read() {
        Some(verdict) => verdict,
        None => examine(kvm, &kept)?,
    };
    Ok(decide(&verdict, device.choice)?)
}

/// What a guest's kernel can do here, tried anew.
pub fn try_anew(kvm: &Kvm, device: &Device) -> Result<Verdict> {
    examine(kvm, &Kept::of(&device.path)?)
}

fn examine(kvm: &Kvm, kept: &Kept) -> Result<Verdict> {
    let verdict = probe(kvm)?;
    // Without a place to remember it, the next run tries again.
    kept.write(&verdict).unwrap_or_default();
    Ok(verdict)
}

/// Whether the user can have what he wants, and what it is.
pub fn decide(verdict: &Verdict, choice: Choice) -> Result<Mode, Complaint> {
    match (verdict, choice) {
        (Verdict::Hardware, Choice::Auto) => Ok(Mode::Hardware),
        (Verdict::Native, Choice::Auto | Choice::Native) => Ok(Mode::Native),
        (Verdict::Native | Verdict::Emulated(_), Choice::Emulated) => Ok(Mode::Emulated),
        (Verdict::Emulated(_), Choice::Auto) => Ok(Mode::Emulated),
        (Verdict::Hardware, Choice::Native | Choice::Emulated) => Err(Complaint {
            what: format!(
                "--kvm-mode {}: this host has a hardware KVM, which has no such mode",
                choice.name()
            ),
            remedy: "leave it out: the guest's kernel runs natively here in any case".into(),
            exit_code: EXIT_OURS,
        }),
        (Verdict::Emulated(why), Choice::Native) => Err(Complaint {
            what: format!("--kvm-mode native: this host's KVM does not run guests' kernels natively: {why}"),
            remedy: "leave it out: everything works, more slowly; or see that kvm_pvm is loaded with pvm_native=Y".into(),
            exit_code: EXIT_OURS,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_was_asked_for_is_given_or_refused_never_another() {
        let refused = Verdict::Emulated("for a reason".into());
        let given = |verdict, choice| decide(verdict, choice).ok();
        let (auto, native, emulated) = (Choice::Auto, Choice::Native, Choice::Emulated);
        assert_eq!(given(&Verdict::Hardware, auto), Some(Mode::Hardware));
        assert_eq!(given(&Verdict::Hardware, native), None);
        assert_eq!(given(&Verdict::Hardware, emulated), None);
        assert_eq!(given(&Verdict::Native, auto), Some(Mode::Native));
        assert_eq!(given(&Verdict::Native, native), Some(Mode::Native));
        assert_eq!(given(&Verdict::Native, emulated), Some(Mode::Emulated));
        assert_eq!(given(&refused, auto), Some(Mode::Emulated));
        assert_eq!(given(&refused, native), None);
        assert_eq!(given(&refused, emulated), Some(Mode::Emulated));
        let complaint = decide(&refused, native).unwrap_err();
        assert!(complaint.what.ends_with("for a reason"), "{complaint}");
    }
}
