//! Child processes that run this same binary.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use std::env;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The path of this binary, whatever has become of its file.
pub const OURS: &str = "/proc/self/exe";

/// Returns a command that runs this binary, without the environment variables that set options. Its
/// process dies with the thread that starts it (prctl(2), PR_SET_PDEATHSIG).
pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg0("sandbox");
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"SANDBOX_")) {
        command.env_remove(name);
    }
    let parent = getpid();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before.
        match getppid() == parent {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()),
        }
    };
    // SAFETY: between fork and exec the closure only makes two system calls.
    unsafe { command.pre_exec(tie) };
    command
}

/// Returns a descriptor that becomes readable once the child has ended.
pub fn descriptor(child: Pid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = Errno::result(fd).context("watching a process")?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; the error is the signal that ended the process.
    pub status: Result<i32, i32>,
    /// The processor time of the process, its own children and their guests.
    pub processor_time: Duration,
}

/// Names the signal that ended a process.
pub fn described(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(Signal::SIGSYS) => "SIGSYS: it made a system call that it had given up".into(),
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {signal}"),
    }
}

/// Waits for the end of a child. The child is not reaped yet, so that its PID is not reused.
pub fn ended(child: Pid) -> Result<Exit> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: waitid(2) of the kernel's, which has a fifth argument, writes to both, which
        // have room for it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PID,
                child.as_raw(),
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOWAIT,
                usage.as_mut_ptr(),
            )
        };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            result => {
                result.context("waiting for a process")?;
                break;
            }
        }
    }
    // SAFETY: all zeroes are valid values of both, and the call wrote them.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: the siginfo is about a child that ended, so it has a status.
    let status = unsafe { info.si_status() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(Exit {
        status: match info.si_code {
            libc::CLD_EXITED => Ok(status),
            _ => Err(status),
        },
        processor_time: time(usage.ru_utime) + time(usage.ru_stime),
    })
}

/// Waits until a child has ended, for so long at most. Returns whether it has.
pub fn ends_within(child: Pid, timeout: Duration) -> Result<bool> {
    let descriptor = descriptor(child)?;
    let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
    let count = poll(
        &mut fds,
        PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
    );
    Ok(count.context("waiting for a process")? > 0)
}
