//! Confinement of a process that unpacks an archive which may be hostile: between files that are open.

use crate::confine::{
    Missing, close_all_but, deny_files, install, keep_capabilities, lower, syscalls,
};
use crate::limits::ConfineLevel;
use anyhow::{Context, Result, bail};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::Resource;
use std::os::fd::RawFd;

/// Bytes of its address space: names and places of a million files, twice.
const MEMORY: u64 = 4 << 30;
/// Bytes of the largest file that it may write.
const FILE_MAX: u64 = 32 << 30;
/// Seconds of processor time.
const TIME_MAX: u64 = 3600;

/// Confines a process that unpacks an archive. It keeps these descriptors alone, and opens nothing more.
pub fn confine_unpacker(level: ConfineLevel, kept: &[RawFd]) -> Result<()> {
    if level == ConfineLevel::Off {
        return Ok(());
    }
    keep_heap();
    close_all_but(kept.to_vec())?;
    set_dumpable(false).context("forbidding dumps")?;
    lower(Resource::RLIMIT_CORE, 0)?;
    lower(Resource::RLIMIT_AS, MEMORY)?;
    lower(Resource::RLIMIT_FSIZE, FILE_MAX)?;
    lower(Resource::RLIMIT_CPU, TIME_MAX)?;
    set_no_new_privs().context("giving up new privileges")?;
    keep_capabilities(&[])?;
    if deny_files(&[])?.is_none() && level == ConfineLevel::Require {
        bail!(Missing("Landlock"));
    }
    match syscalls::are_filtered() {
        true => install(Some(syscalls::unpacker()?)),
        false if level == ConfineLevel::Require => bail!(Missing("seccomp")),
        false => Ok(()),
    }
}

/// Has the allocator keep what it has: before the C library gives back memory of a heap that is not the
/// first, it opens a file.
fn keep_heap() {
    // SAFETY: the call changes a setting of the allocator. It does not fail for this number.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    /// Returns how a process ends that confines itself and then acts; it exits with 0 if both succeed.
    fn ends(kept: &File, act: impl FnOnce() -> bool) -> WaitStatus {
        // SAFETY: the child confines itself, acts, and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let confined = confine_unpacker(ConfineLevel::Require, &[kept.as_raw_fd()]);
                let status = i32::from(confined.is_err() || !act());
                // SAFETY: it ends the process, which has nothing to clean up.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        }
    }

    #[test]
    fn an_unpacker_reads_and_writes_what_is_open() {
        let file = tempfile::tempfile().unwrap();
        let status = ends(&file, || {
            file.write_all_at(b"abc", 7).is_ok()
                && file.set_len(9).is_ok()
                && file.read_exact_at(&mut [0; 9], 0).is_ok()
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    #[test]
    fn an_unpacker_may_make_errors_with_backtraces() {
        const WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        let file = tempfile::tempfile().unwrap();
        let status = ends(&file, || {
            let backtrace = std::backtrace::Backtrace::force_capture();
            // SAFETY: the kernel looks for who waits at an address, and nobody does.
            let woken = unsafe { libc::syscall(libc::SYS_futex, &0, WAKE, 1) };
            backtrace.status() == std::backtrace::BacktraceStatus::Captured && woken == 0
        });
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
        let status = ends(&file, || {
            // SAFETY: the filter keeps the call from being made.
            unsafe { libc::syscall(libc::SYS_futex, &0, libc::FUTEX_WAIT, 0, 0) };
            true
        });
        let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
        assert!(killed, "{status:?}");
    }

    #[test]
    fn any_call_that_unpacking_does_not_take_kills_the_unpacker() {
        let file = tempfile::tempfile().unwrap();
        let allowed = syscalls::of_unpacker().unwrap();
        /// The kernel's own uretprobe and uprobe, which seccomp leaves alone.
        const PROBES: [i64; 2] = [335, 336];
        for number in (0..=500).filter(|n| !allowed.contains(n) && !PROBES.contains(n)) {
            let status = ends(&file, || {
                // SAFETY: the filter keeps the call from being made.
                unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) };
                true
            });
            let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _));
            assert!(killed, "system call {number}: {status:?}");
        }
    }
}
