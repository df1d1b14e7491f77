//! Processes of this very binary.

use crate::error::{Error, Kind};
use crate::record::Record;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, getpid, getppid};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};
use std::time::Duration;

/// A command that is this binary, whatever has become of its file. Its process dies with the
/// thread that starts it: prctl(2), PR_SET_PDEATHSIG.
pub fn command() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("sandbox");
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

/// Goes on in two processes, before there are other threads. `None`: in the new one, which dies
/// with the other.
pub fn fork() -> Result<Option<Pid>> {
    let parent = getpid();
    // SAFETY: there is no other thread that could hold a lock.
    match unsafe { nix::unistd::fork() }.context("starting a process")? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL).context("tying a process to its parent")?;
            // It may have died before.
            if getppid() != parent {
                exit(1);
            }
            Ok(None)
        }
    }
}

/// A descriptor that can be read from once the child has ended.
pub fn descriptor(child: Pid) -> Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = Errno::result(fd).context("watching a process")?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; the error: the signal that ended it.
    pub status: Result<i32, i32>,
    /// That it and its own children used, and their guests.
    pub processor_time: Duration,
}

impl Ended {
    /// What it told of its run, if it could; the error: what is known then.
    pub fn record(&self, told: &[u8]) -> std::result::Result<Record, Error> {
        let how = match self.status {
            Ok(_) => match serde_json::from_slice(told) {
                Ok(record) => return Ok(record),
                Err(_) => "did not tell how it went".into(),
            },
            Err(signal) => format!("was ended by {}", described(signal)),
        };
        Err(Error::new(
            Kind::Internal,
            format!("the process that ran the guest {how}"),
            "run it again; if that happens again, please report it",
        ))
    }
}

fn described(signal: i32) -> String {
    match Signal::try_from(signal) {
        Ok(Signal::SIGSYS) => "SIGSYS: it made a system call that it had given up".into(),
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {signal}"),
    }
}

/// Waits for the end of a child. It remains to be reaped, so that its number is no other's.
pub fn ended(child: Pid) -> Result<Ended> {
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
    Ok(Ended {
        status: match info.si_code {
            libc::CLD_EXITED => Ok(status),
            _ => Err(status),
        },
        processor_time: time(usage.ru_utime) + time(usage.ru_stime),
    })
}
