//! A probe that finds out in which mode a guest's kernel can run here. It runs a program of a few
//! dozen instructions, which does what the guest's kernel will, on a throw-away machine.
//!
//! It assumes nothing: the host may have no `/sys`, its KVM may be part of the kernel, and it may
//! lack native mode, refuse it, or mean something else by it.

mod program;

use crate::vm::arch::x86_64::msr::{entry, set_msrs};
use crate::vm::kick::Kicker;
use crate::vm::memory::Memory;
use crate::vm::{bare, guest_cpuid};
use anyhow::{Context, Result, bail, ensure};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use program::{Word, words};
use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// The mode in which a guest's kernel can run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Hardware,
    Native,
    /// The kernel must be emulated, since native mode is not as it should be; the reason is a
    /// clause.
    Emulated(String),
    /// Native mode is as it should be, but a guest failed in it all the same, in the way that the
    /// clause says. No probe finds that.
    Unbootable(String),
}

/// The time that the program may take; it takes a millisecond if it ends at all.
const DEADLINE: Duration = Duration::from_secs(3);
/// The interval at which a vCPU thread that should stop is kicked.
const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// The end of the program.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Overdue,
    /// KVM cannot emulate an instruction that it would have to.
    NotEmulated,
    /// KVM had another exit.
    Other(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            Self::Overdue => write!(f, "no answer in {} s", DEADLINE.as_secs()),
            Self::NotEmulated => write!(f, "not emulated"),
            Self::Other(exit) => write!(f, "KVM exit {exit}"),
        }
    }
}

/// Probes the host. An error is one that a run would meet as well.
pub fn probe(kvm: &Kvm) -> Result<Verdict> {
    let runtime = memfd_create(c"probe", MFdFlags::MFD_CLOEXEC).context("making a file")?;
    let runtime = File::from(runtime);
    runtime
        .set_len(program::MEMORY)
        .context("sizing a file in memory")?;
    let memory = Memory::new(program::MEMORY, runtime, Vec::new())?;
    let (_vm, vcpu) = bare(kvm, &memory, &guest_cpuid(kvm)?)?;
    program::load(memory.ram())?;
    prepare(&vcpu)?;
    let Some(end) = run(vcpu)? else {
        return Ok(Verdict::Hardware);
    };
    let mut found = [0; program::WORDS];
    for (index, word) in (0..).zip(&mut found) {
        let address = GuestAddress(program::REPORT + index * size_of::<u64>() as u64);
        *word = memory.ram().read_obj(address).context("reading a report")?;
    }
    Ok(judge(&found, &end))
}

fn prepare(vcpu: &VcpuFd) -> Result<()> {
    let before = vcpu.get_sregs().context("reading the system registers")?;
    vcpu.set_sregs(&program::sregs(before))
        .context("setting the system registers")?;
    let msrs = program::MSRS.map(|(index, value)| entry(index, value));
    ensure!(
        set_msrs(vcpu, &msrs)?,
        "KVM does not take the MSRs of system calls"
    );
    Ok(())
}

/// Runs the program in a thread of its own, which a kick ends: a mode that does not work may well
/// loop without an exit.
fn run(mut vcpu: VcpuFd) -> Result<Option<End>> {
    let kicked = Arc::new(AtomicBool::new(false));
    let kicker = Kicker::new(&mut vcpu, Arc::clone(&kicked));
    let (sender, ended) = channel();
    thread::scope(|scope| {
        let kicker = &kicker;
        let thread = thread::Builder::new().spawn_scoped(scope, move || {
            let end = kicker.enlist().and_then(|()| enter(&mut vcpu, &kicked));
            // If the program was overdue, nobody waits any more.
            sender.send(()).unwrap_or_default();
            // The thread returns the vCPU, because the kicker's page is mapped only as long as the
            // vCPU exists.
            (end, vcpu)
        });
        let thread = thread.context("starting a thread")?;
        let mut patience = DEADLINE;
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(patience) {
            kicker.kick();
            patience = KICK_INTERVAL;
        }
        let (end, _vcpu) = thread.join().expect("a thread that does not panic");
        end
    })
}

/// Enters the program. `None` means a hardware KVM, on which all instructions of a kernel are
/// native.
fn enter(vcpu: &mut VcpuFd, kicked: &AtomicBool) -> Result<Option<End>> {
    match enter_at(vcpu, kicked, program::NOT_EMULATED)? {
        End::Done => Ok(None),
        End::NotEmulated => enter_at(vcpu, kicked, program::START).map(Some),
        end => bail!("KVM does not run a program of two instructions: {end}"),
    }
}

/// Runs the program from an entry until it says that it is done, or a kick comes.
fn enter_at(vcpu: &mut VcpuFd, kicked: &AtomicBool, entry: u64) -> Result<End> {
    vcpu.set_regs(&program::regs(entry))
        .context("setting the registers")?;
    loop {
        let end = match vcpu.run() {
            Ok(VcpuExit::IoOut(program::PORT, _)) => End::Done,
            Ok(VcpuExit::InternalError) => End::NotEmulated,
            Err(_) if kicked.load(Ordering::Acquire) => End::Overdue,
            // Any signal does that, even one that only stops and continues us.
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => continue,
            other => End::Other(format!("{other:?}")),
        };
        return Ok(end);
    }
}

/// Judges the report: the first wrong word is the reason, or else the premature end is.
fn judge(found: &[u64; program::WORDS], end: &End) -> Verdict {
    let mut words = words().into_iter().zip(found);
    let wrong = words.find(|(word, found)| word.value != **found);
    match (wrong, end) {
        (None, End::Done) => Verdict::Native,
        (None, end) => Verdict::Emulated(format!("at the end: {end}")),
        (Some((Word { name, .. }, &program::UNWRITTEN)), end) => {
            Verdict::Emulated(format!("{name}: {end}"))
        }
        (Some((Word { name, value }, found)), _) => {
            Verdict::Emulated(format!("{name}: {found:#x} instead of {value:#x}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::host::Family;
    use crate::vm::{allow_kicks, host};
    use std::path::Path;

    fn right() -> [u64; program::WORDS] {
        words().map(|word| word.value)
    }

    #[test]
    fn the_verdict_is_of_the_hosts_family() {
        allow_kicks().unwrap();
        let kvm = host::open(Path::new("/dev/kvm")).expect("these tests need KVM");
        let family = match probe(&kvm).unwrap() {
            Verdict::Hardware => Family::Hardware,
            Verdict::Native | Verdict::Emulated(_) | Verdict::Unbootable(_) => Family::Software,
        };
        assert_eq!(family, Family::detect());
    }

    #[test]
    fn any_word_but_the_right_one_is_a_refusal_that_names_it() {
        assert_eq!(judge(&right(), &End::Done), Verdict::Native);
        for (index, Word { name, value }) in words().into_iter().enumerate() {
            let mut found = right();
            found[index] = value + 1;
            let why = format!("{name}: {:#x} instead of {value:#x}", value + 1);
            assert_eq!(judge(&found, &End::Done), Verdict::Emulated(why));
        }
    }

    #[test]
    fn a_program_that_ends_early_is_a_refusal_that_says_where() {
        let end = End::Other("Shutdown".into());
        let mut found = right();
        let why = "at the end: KVM exit Shutdown".into();
        assert_eq!(judge(&found, &end), Verdict::Emulated(why));
        found[2..].fill(program::UNWRITTEN);
        for (end, why) in [
            (end, "KVM exit Shutdown"),
            (End::NotEmulated, "not emulated"),
            (End::Overdue, "no answer in 3 s"),
        ] {
            let why = format!("an instruction that is not emulated: {why}");
            assert_eq!(judge(&found, &end), Verdict::Emulated(why));
        }
    }
}
