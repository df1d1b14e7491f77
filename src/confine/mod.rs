//! Confinement of this process: it gives up what it does not need any more, after everything is open
//! and before the guest's first instruction. A guest that takes over the VMM then holds two virtual
//! devices' worth of descriptors and a list of two dozen system calls.
//!
//! All layers work without privileges, and none of them can be undone.

mod descriptors;
mod old_runtimes;
mod program;
pub mod syscalls;
mod unpacker;

pub use descriptors::{close_all_but, prepare};
pub use old_runtimes::adapt;
pub use program::{Rights, confine_program};
pub use unpacker::confine_unpacker;

use crate::limits::ConfineLevel;
use crate::vm::mode::Mode;
use anyhow::{Context, Result, bail, ensure};
use caps::{CapSet, Capability};
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{SFlag, fstat};
use seccompiler::BpfProgram;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use vm_memory::mmap::{MmapRegion, MmapRegionError};

/// A layer of confinement: a right that is given up, or the kernel's means to deny it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// There is no core dump, and no other process of this user may look inside.
    NoDump,
    /// No file may grow unless an output is one, no descriptor can be added, and memory is bounded.
    Limits,
    /// Nothing that is executed gains privileges.
    NoNewPrivileges,
    NoCapabilities,
    /// Files, TCP ports and signals to other processes are denied. The number is the version of the
    /// kernel's Landlock.
    Landlock(i32),
    /// Each thread has a list of system calls; any other call kills the process.
    Seccomp,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDump => write!(f, "no dumps"),
            Self::Limits => write!(f, "resource limits"),
            Self::NoNewPrivileges => write!(f, "no new privileges"),
            Self::NoCapabilities => write!(f, "no capabilities"),
            Self::Landlock(abi) => write!(f, "Landlock (ABI {abi})"),
            Self::Seccomp => write!(f, "seccomp"),
        }
    }
}

/// A layer that this kernel does not have, though all were required.
#[derive(Debug)]
pub struct Missing(pub &'static str);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "this kernel has no {}, without which a process is not fully confined",
            self.0
        )
    }
}

impl std::error::Error for Missing {}

/// Confines a process that writes files which a hostile guest sends. It may write below these
/// directories, and keeps the descriptors in `kept` beside them.
pub fn confine_writer(
    level: ConfineLevel,
    directories: &[BorrowedFd],
    kept: &[RawFd],
) -> Result<()> {
    /// The address space for the binary, a piece of a file, and as many directories as there may be
    /// in one run.
    const MEMORY: u64 = 1 << 30;
    if level == ConfineLevel::Off {
        return Ok(());
    }
    let below = directories.iter().map(AsRawFd::as_raw_fd);
    close_all_but(kept.iter().copied().chain(below).collect())?;
    set_dumpable(false).context("forbidding dumps")?;
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_AS, MEMORY)?;
    set_no_new_privs().context("giving up new privileges")?;
    // Root may write into directories of other users; it keeps no other capability.
    keep_capabilities(&[Capability::CAP_DAC_OVERRIDE])?;
    deny_files(directories)?;
    if syscalls::are_filtered() {
        install(Some(syscalls::writer()?))?;
    }
    Ok(())
}

/// The confinement of the process and of the threads that it starts from now on. The two threads of
/// a run have yet to [`Seal::split`] it.
pub struct Seal {
    pub layers: Vec<Layer>,
    filters: Option<Filters>,
}

struct Filters {
    main: BpfProgram,
    vcpu: BpfProgram,
}

impl Seal {
    /// Returns a seal that confines nothing, for a guest that is ours alone.
    pub fn none() -> Self {
        Self {
            layers: Vec::new(),
            filters: None,
        }
    }

    /// Confines the process. `memory` is the number of bytes that are mapped for the guest or needed
    /// for its output; `record` is an open output beside the standard ones.
    pub fn process(
        level: ConfineLevel,
        mode: Mode,
        memory: u64,
        record: Option<RawFd>,
    ) -> Result<Self> {
        let limits = || limit_resources(memory, record, 0, DESCRIPTORS);
        let both = || Ok([syscalls::main_thread()?, syscalls::vcpu_thread(mode)?]);
        Self::with(level, limits, both)
    }

    /// Confines a process that takes connections to a socket, beside running a guest, and saves its machine to
    /// files of at most `length` bytes that come over these. It may have so many descriptors.
    pub fn serving(
        level: ConfineLevel,
        mode: Mode,
        memory: u64,
        length: u64,
        descriptors: u64,
    ) -> Result<Self> {
        let limits = || limit_resources(memory, None, length, descriptors);
        Self::with(level, limits, || syscalls::serving_threads(mode))
    }

    /// Confines a process that saves its machine, when the guest has come to rest, to a file that is
    /// open and has its `length` already.
    pub fn saving(level: ConfineLevel, mode: Mode, memory: u64, length: u64) -> Result<Self> {
        let limits = || limit_resources(memory, None, length, DESCRIPTORS);
        let both = || Ok([syscalls::saving_thread(mode)?, syscalls::vcpu_thread(mode)?]);
        Self::with(level, limits, both)
    }

    fn with(
        level: ConfineLevel,
        limits: impl FnOnce() -> Result<()>,
        filters: impl FnOnce() -> Result<[BpfProgram; 2]>,
    ) -> Result<Self> {
        if level == ConfineLevel::Off {
            return Ok(Self::none());
        }
        let mut layers = Vec::new();
        // Nothing that follows needs a capability.
        set_dumpable(false).context("forbidding dumps")?;
        layers.push(Layer::NoDump);
        // This comes before Landlock and seccomp, which an unprivileged process gets only after it.
        set_no_new_privs().context("giving up new privileges")?;
        layers.push(Layer::NoNewPrivileges);
        keep_capabilities(&[])?;
        layers.push(Layer::NoCapabilities);
        match deny_files(&[])? {
            Some(abi) => layers.push(Layer::Landlock(abi)),
            None if level == ConfineLevel::Require => bail!(Missing("Landlock")),
            None => {}
        }
        // This comes after Landlock, which needs a descriptor for a moment.
        limits()?;
        layers.push(Layer::Limits);
        // Seccomp comes last, since all of the above are system calls.
        let filters = match syscalls::are_filtered() {
            true => {
                let [main, vcpu] = filters()?;
                Some(Filters { main, vcpu })
            }
            false if level == ConfineLevel::Require => bail!(Missing("seccomp")),
            false => None,
        };
        if filters.is_some() {
            layers.push(Layer::Seccomp);
        }
        Ok(Self { layers, filters })
    }

    /// Splits the seal into the halves of the main thread and of the vCPU thread.
    pub fn split(self) -> (ThreadSeal, ThreadSeal) {
        let both = Arc::new(Both {
            done: Barrier::new(2),
            failed: AtomicBool::new(false),
        });
        let (main, vcpu) = match self.filters {
            Some(filters) => (Some(filters.main), Some(filters.vcpu)),
            None => (None, None),
        };
        let half = |filter| ThreadSeal {
            filter,
            both: Arc::clone(&both),
        };
        (half(main), half(vcpu))
    }
}

/// One thread's half of the seal: that of the thread that waits, once it has started the other, or
/// that of the thread that enters the guest.
pub struct ThreadSeal {
    filter: Option<BpfProgram>,
    both: Arc<Both>,
}

struct Both {
    done: Barrier,
    failed: AtomicBool,
}

impl ThreadSeal {
    /// Confines this thread. Returns when both threads are confined, or with an error in both.
    pub fn apply(self) -> Result<()> {
        let installed = install(self.filter);
        self.both
            .failed
            .fetch_or(installed.is_err(), Ordering::AcqRel);
        self.both.done.wait();
        installed?;
        let failed = self.both.failed.load(Ordering::Acquire);
        ensure!(!failed, "the other thread could not be confined");
        Ok(())
    }
}

fn install(filter: Option<BpfProgram>) -> Result<()> {
    let installed = filter.map_or(Ok(()), |filter| seccompiler::apply_filter(&filter));
    installed.context("installing a seccomp filter")
}

/// poll(2) wants the limit on descriptors to be no lower than their number.
const DESCRIPTORS: u64 = 3;

/// Lowers the limits on resources. No file may grow beyond `length`, unless an output is a file, and no
/// descriptor has a number over `descriptors`.
fn limit_resources(
    memory: u64,
    record: Option<RawFd>,
    length: u64,
    descriptors: u64,
) -> Result<()> {
    /// The address space for ourselves: two stacks, allocations, a piece of output, the binary.
    const OWN_MEMORY: u64 = 1 << 30;
    let is_file = |fd: RawFd| {
        // SAFETY: the standard streams are open, and so is the other by the contract of the caller.
        let mode = fstat(unsafe { BorrowedFd::borrow_raw(fd) }).map_or(0, |status| status.st_mode);
        SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG
    };
    let standard = [libc::STDOUT_FILENO, libc::STDERR_FILENO];
    if !standard.into_iter().chain(record).any(is_file) {
        lower(Resource::RLIMIT_FSIZE, length)?;
    }
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_NOFILE, descriptors)?;
    lower(Resource::RLIMIT_AS, memory.saturating_add(OWN_MEMORY))?;
    find_room()
}

/// Checks that there is address space for the stack of a thread and for what both threads allocate
/// from here on. The process that started us may have left too little, which can be reported now.
fn find_room() -> Result<()> {
    const ROOM: usize = 16 << 20;
    let room = MmapRegion::<()>::new(ROOM).map_err(|error| match error {
        MmapRegionError::Mmap(error) => error,
        error => io::Error::other(error),
    });
    room.map(drop).context("finding memory for the run itself")
}

/// Lowers both the limit and the maximum to which it could be raised.
fn lower(resource: Resource, value: u64) -> Result<()> {
    let (soft, hard) = getrlimit(resource).context("reading a resource limit")?;
    let value = value.min(soft).min(hard);
    setrlimit(resource, value, value).with_context(|| format!("lowering {resource:?}"))
}

/// Drops all capabilities that we have but these.
fn keep_capabilities(kept: &[Capability]) -> Result<()> {
    let drop = || {
        let mut left = caps::read(None, CapSet::Permitted)?;
        left.retain(|capability| kept.contains(capability));
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &left)?;
        caps::set(None, CapSet::Permitted, &left)
    };
    drop().context("dropping capabilities")
}

/// Denies by Landlock all but writing below these directories. Returns the version of the kernel's
/// Landlock, if it has any.
fn deny_files(directories: &[BorrowedFd]) -> Result<Option<i32>> {
    /// The last version that denies more; a later one changes nothing here.
    const NEWEST: ABI = ABI::V6;
    let writing = AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::WriteFile
        | AccessFs::RemoveFile;
    let deny = || {
        let rule = |directory| Ok::<_, RulesetError>(PathBeneath::new(directory, writing));
        let status = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .add_rules(directories.iter().map(rule))?
            .restrict_self()?;
        anyhow::Ok(status)
    };
    let status = deny().context("denying files with Landlock")?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => None,
        (_, LandlockStatus::Available { effective_abi, .. }) => Some(effective_abi as i32),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork, getppid, truncate};
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::path::Path;
    use std::process::Command;

    /// Returns how a process ends that confines itself and then acts; it exits with 0 if both succeed.
    fn ends_confined(
        confine: impl FnOnce() -> Result<()>,
        act: impl FnOnce() -> bool,
    ) -> WaitStatus {
        // SAFETY: the child confines itself, acts, and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let status = i32::from(confine().is_err() || !act());
                // SAFETY: it ends the process, which has nothing to clean up.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        }
    }

    /// Returns how a writer ends that confines itself to a directory and then acts.
    fn ends(directory: &Path, act: impl FnOnce() -> bool) -> WaitStatus {
        let directory = File::open(directory).unwrap();
        let confine = || confine_writer(ConfineLevel::Require, &[directory.as_fd()], &[]);
        ends_confined(confine, act)
    }

    /// The attempts are calls that seccomp(2) would deny, but it is not in force yet.
    #[test]
    fn landlock_denies_a_run_files_ports_and_signals_beneath_seccomp() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "content").unwrap();
        let attempts: [(&str, &dyn Fn() -> io::Result<()>); 5] = [
            ("reading", &|| File::open(&file).map(drop)),
            ("writing", &|| Ok(truncate(&file, 1)?)),
            ("executing", &|| Err(Command::new("/bin/true").exec())),
            ("listening", &|| TcpListener::bind("127.0.0.1:0").map(drop)),
            ("signals", &|| Ok(kill(getppid(), None)?)),
        ];
        let seal =
            || Seal::process(ConfineLevel::Require, Mode::Emulated, u64::MAX, None).map(drop);
        for (what, attempt) in attempts {
            let as_it_was = ends_confined(|| Ok(()), || attempt().is_ok());
            let confined = ends_confined(seal, || {
                // This frees a descriptor: else the attempt would fail because there is none left.
                // SAFETY: nothing in this process uses it.
                unsafe { libc::close(libc::STDIN_FILENO) };
                attempt().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            });
            for status in [as_it_was, confined] {
                let ended = matches!(status, WaitStatus::Exited(_, 0));
                assert!(ended, "{what}: {as_it_was:?}, {confined:?}");
            }
        }
    }

    #[test]
    fn a_writer_writes_below_its_directory_and_opens_nothing_else() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let readable = outside.path().join("file");
        std::fs::write(&readable, "content").unwrap();
        let exited = |status, what| {
            assert!(
                matches!(status, WaitStatus::Exited(_, 0)),
                "{what}: {status:?}"
            );
        };
        let writes = |directory: &Path| {
            let mut options = File::options();
            let path = directory.join("new");
            options.write(true).create_new(true).open(path).is_ok()
        };
        let status = ends(inside.path(), || writes(inside.path()));
        exited(status, "inside");
        let status = ends(inside.path(), || !writes(outside.path()));
        exited(status, "outside");
        let status = ends(inside.path(), || File::open(&readable).is_err());
        exited(status, "reading");
    }

    #[test]
    fn any_call_that_writing_files_does_not_take_kills_the_writer() {
        let directory = tempfile::tempdir().unwrap();
        let allowed = syscalls::of_writer().unwrap();
        /// The kernel's own uretprobe and uprobe, which seccomp leaves alone.
        const PROBES: [i64; 2] = [335, 336];
        for number in (0..=500).filter(|n| !allowed.contains(n) && !PROBES.contains(n)) {
            let status = ends(directory.path(), || {
                // SAFETY: the filter keeps the call from being made.
                unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
                true
            });
            let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
            assert!(killed, "system call {number}: {status:?}");
        }
    }
}
