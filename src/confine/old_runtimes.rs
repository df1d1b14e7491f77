//! Container runtimes that are older than a system call answer it with EPERM. What falls back to
//! another call does so at ENOSYS, which is the answer of a kernel without it.

use crate::error::{Error, Kind};
use libc::{EPERM, SYS_clone3};
use nix::errno::Errno;
use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// Has clone3(2) answer ENOSYS where a runtime answers EPERM, so that the C library starts threads
/// and processes with clone(2). Of two filters that answer an error, the later one counts
/// (seccomp(2)).
pub fn adapt() -> Result<(), Error> {
    // SAFETY: without arguments it starts nothing.
    let result = unsafe { libc::syscall(SYS_clone3, 0, 0) };
    if result != -1 || Errno::last_raw() != EPERM {
        return Ok(());
    }
    let filter = SeccompFilter::new(
        [(SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::x86_64,
    );
    let installed = filter
        .and_then(TryInto::try_into)
        .map_err(seccompiler::Error::Backend)
        .and_then(|filter: seccompiler::BpfProgram| apply_filter(&filter));
    installed.map_err(|error| {
        Error::new(
            Kind::Host,
            format!("no thread can be started here: clone3(2) is forbidden, and {error}"),
            "allow clone3 in the container's seccomp profile, or use a newer container runtime",
        )
    })
}
