//! Processes of this very binary.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use std::env;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Where this binary is, whatever has become of its file.
pub const OURS: &str = "/proc/self/exe";

/// Returns a command that is this binary, without the variables that are options of ours. Its process
/// dies with the thread that starts it: prctl(2), PR_SET_PDEATHSIG.
pub fn command(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg0("sandbox");
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"SANDBOX_")) {
        command.env_remove(name);
    }
    let parent = getpid();
    let tie = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // It may have died before.
        match getppid() == parent {
            true => Ok(()),
            false => Err(Errno::ESRCH.into()),
        }
    };
    // SAFETY: between fork and exec it makes two system calls.
    unsafe { command.pre_exec(tie) };
    command
}

/// A descriptor that can be read from once the child has ended.
pub fn descriptor(child: Pid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = Errno::result(fd).context("watching a process")?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; the error: the signal that ended it.
    pub status: Result<i32, i32>,
    /// That it and its own children used, and their guests.
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

/// Waits for the end of a child. It remains to be reaped, so that its number is no other's.
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
    // SAFETY: it is about a child that ended, so there is a status.
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
