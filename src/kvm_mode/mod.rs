//! The choice of the KVM mode in which guests run: the one that the user wants, or the fastest that
//! works here, which is found by trying and then remembered.

pub mod verdicts;
use crate::error::{Error, Kind, Remedy};
use crate::vm::mode::Mode;
use crate::vm::{Kvm, Verdict, probe};
use crate::wire::Bytes;
use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use verdicts::VerdictFile;

/// The KVM device, and what it is to be used for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    #[serde(with = "crate::wire")]
    #[schemars(with = "Bytes")]
    pub path: PathBuf,
    pub choice: Choice,
}

/// The mode that the user wants of a software KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Choice {
    /// The fastest that works here.
    Auto,
    /// The guest's kernel runs natively, or there is no run.
    Native,
    /// The guest's kernel is emulated.
    Emulated,
}

impl Choice {
    /// Returns the choice's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Emulated => "emulated",
        }
    }
}

/// Returns the mode in which guests are to run, by the verdict on this host that is remembered, if
/// there is one.
pub fn choose(kvm: &Kvm, device: &Device) -> Result<Mode> {
    let kept = VerdictFile::of(&device.path)?;
    let verdict = match kept.read() {
        Some(verdict) => verdict,
        None => examine(kvm, &kept)?,
    };
    Ok(decide(&verdict, device.choice)?)
}

/// Checks that a machine that was saved in this mode may go on in it: any host that could save it
/// can emulate it again, but the user may want another mode, and native mode may be gone.
pub fn check_saved(kvm: &Kvm, device: &Device, saved: Mode) -> Result<()> {
    let mode = choose(kvm, device)?;
    if mode == saved || (saved == Mode::Emulated && device.choice == Choice::Auto) {
        return Ok(());
    }
    let (saved, mode) = (saved.name(), mode.name());
    let message =
        format!("the machine was saved in {saved} mode, and it would go on in {mode} mode");
    let remedy = Remedy::LeaveModeOut("a machine keeps the mode that it was saved in".into());
    Err(Error::new(Kind::Host, message, remedy).into())
}

/// Tries anew what a guest's kernel can do here. A guest that failed natively a while ago counts
/// for more than a trial that goes well.
pub fn try_anew(kvm: &Kvm, device: &Device) -> Result<Verdict> {
    let kept = VerdictFile::of(&device.path)?;
    let failure = kept
        .read()
        .filter(|verdict| matches!(verdict, Verdict::Unbootable(_)));
    match (probe(kvm)?, failure) {
        (Verdict::Native, Some(failure)) => Ok(failure),
        (verdict, _) => Ok(remember(&kept, verdict)),
    }
}

/// Remembers that a guest failed natively, in this way, and did not when it was emulated.
pub fn remember_failure(device: &Device, how: String) -> Result<()> {
    remember(&VerdictFile::of(&device.path)?, Verdict::Unbootable(how));
    Ok(())
}

fn examine(kvm: &Kvm, kept: &VerdictFile) -> Result<Verdict> {
    Ok(remember(kept, probe(kvm)?))
}

/// Remembers the verdict and returns it. If it cannot be remembered, the next run tries again.
fn remember(kept: &VerdictFile, verdict: Verdict) -> Verdict {
    kept.write(&verdict).unwrap_or_default();
    verdict
}

/// Decides what becomes of a guest that failed natively, in this way.
pub fn after_failure(choice: Choice, how: &str) -> Result<Mode, Error> {
    match choice {
        Choice::Auto => Ok(Mode::Emulated),
        Choice::Native | Choice::Emulated => Err(unavailable(
            choice,
            how,
            "everything works, more slowly; a console shows the guest kernel's log",
        )),
    }
}

/// Returns an error that says why a mode that was asked for is not available, and why another will do.
fn unavailable(choice: Choice, why: &str, instead: &str) -> Error {
    let message = format!("{} mode was asked for: {why}", choice.name());
    Error::new(Kind::Host, message, Remedy::LeaveModeOut(instead.into()))
}

/// Returns the mode for the user's choice, or an error if this host does not have it.
pub fn decide(verdict: &Verdict, choice: Choice) -> Result<Mode, Error> {
    match (verdict, choice) {
        (Verdict::Hardware, Choice::Auto) => Ok(Mode::Hardware),
        (Verdict::Native, Choice::Auto) => Ok(Mode::Native),
        // If native mode failed, it is tried again for a user who insists, to see how it fails.
        (Verdict::Native | Verdict::Unbootable(_), Choice::Native) => Ok(Mode::Native),
        (Verdict::Emulated(_) | Verdict::Unbootable(_), Choice::Auto) => Ok(Mode::Emulated),
        (Verdict::Native | Verdict::Emulated(_) | Verdict::Unbootable(_), Choice::Emulated) => {
            Ok(Mode::Emulated)
        }
        (Verdict::Hardware, Choice::Native | Choice::Emulated) => Err(unavailable(
            choice,
            "this host has a hardware KVM, which has no such mode",
            "the guest's kernel runs natively here in any case",
        )),
        (Verdict::Emulated(why), Choice::Native) => Err(unavailable(
            choice,
            &format!("this host's KVM does not run guests' kernels natively: {why}"),
            "everything works, more slowly; or see that kvm_pvm is loaded with pvm_native=Y",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_was_asked_for_is_given_or_refused_never_another() {
        let refused = Verdict::Emulated("for a reason".into());
        let failed = Verdict::Unbootable("in some way".into());
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
        assert_eq!(given(&failed, auto), Some(Mode::Emulated));
        assert_eq!(given(&failed, native), Some(Mode::Native));
        assert_eq!(given(&failed, emulated), Some(Mode::Emulated));
        let complaint = decide(&refused, native).unwrap_err();
        assert!(complaint.message.ends_with("for a reason"), "{complaint}");
    }

    #[test]
    fn a_guest_that_failed_natively_is_emulated_unless_the_user_insists() {
        let how = "it crashed: triple fault";
        assert_eq!(after_failure(Choice::Auto, how), Ok(Mode::Emulated));
        let complaint = after_failure(Choice::Native, how).unwrap_err();
        assert_eq!(
            complaint.message,
            format!("native mode was asked for: {how}")
        );
    }
}
