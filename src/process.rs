//! Child processes that run this same binary.

use crate::error::{Error, Kind};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, getpid, getppid, pipe2, setsid, write};
use std::env;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// The path of this binary, whatever has become of its file.
pub const OURS: &str = "/proc/self/exe";

/// The exit code if the sandbox failed, not the program.
pub const EXIT_OURS: u8 = 125;
/// The number that, added to that of the signal, is the exit code of a program that a signal ended.
pub const EXIT_SIGNALED: u8 = 128;

/// Returns a command that runs this binary, without the environment variables that set options. Its
/// process dies with the thread that starts it (prctl(2), PR_SET_PDEATHSIG).
pub fn command(binary: &Path) -> Command {
    let mut command = without_options(binary);
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

/// Returns such a command whose process outlives this one, away from its terminal.
pub fn detached(binary: &Path) -> Command {
    let mut command = without_options(binary);
    // SAFETY: between fork and exec the closure only makes a system call.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    command
}

fn without_options(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg0("sandbox");
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"SANDBOX_")) {
        command.env_remove(name);
    }
    command
}

/// Returns a descriptor that becomes readable once the process has ended, which may be any.
pub fn pidfd(process: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    // SAFETY: the descriptor is new, and nobody else's.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Returns a descriptor that becomes readable once the child has ended.
pub fn descriptor(child: Pid) -> Result<OwnedFd> {
    match pidfd(child) {
        Ok(fd) => Ok(fd),
        // Linux before 5.3, or a container runtime before it.
        Err(Errno::ENOSYS | Errno::EPERM) => watched(child),
        Err(errno) => Err(errno).context("watching a process"),
    }
}

/// Returns the end of a pipe in which a thread puts a byte once the child has ended.
fn watched(child: Pid) -> Result<OwnedFd> {
    let doing = "watching a process";
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context(doing)?;
    let wait = move || {
        // A child that was reaped has ended too. Nobody may read any more.
        ended(child).map(drop).unwrap_or_default();
        write(&writer, b"!").map(drop).unwrap_or_default();
    };
    let thread = thread::Builder::new().name("watch".into());
    thread.spawn(wait).context(doing)?;
    Ok(reader)
}

/// Checks that there is a /proc, which names this binary and the host's processor.
pub fn require_proc() -> Result<(), Error> {
    if Path::new(OURS).exists() {
        return Ok(());
    }
    Err(Error::new(
        Kind::Host,
        "/proc is not mounted here",
        "mount it: mount -t proc proc /proc",
    ))
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; the error is the signal that ended the process.
    pub status: Result<i32, i32>,
    /// The processor time of the process, its own children and their guests.
    pub processor_time: Duration,
}

impl Exit {
    /// Returns the exit code, as the shells tell that of a process which a signal ended too.
    pub fn code(&self) -> i32 {
        self.status
            .unwrap_or_else(|signal| i32::from(EXIT_SIGNALED) + signal)
    }
}

/// Returns the processor time of a process, its guest's included; none of one that has ended.
pub fn processor_time(process: Option<Pid>) -> Duration {
    let clock = process.and_then(|process| clock_getcpuclockid(process).ok());
    let time = clock.and_then(|clock| clock_gettime(clock).ok());
    time.map_or(Duration::ZERO, Duration::from)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    #[test]
    fn a_child_is_watched_by_a_thread_where_there_is_no_pidfd() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watched = watched(Pid::from_raw(child.id() as i32)).unwrap();
        let ends = |timeout: PollTimeout| {
            let mut fds = [PollFd::new(watched.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, timeout).unwrap() > 0
        };
        assert!(!ends(PollTimeout::ZERO));
        drop(child.stdin.take());
        assert!(ends(PollTimeout::NONE));
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn a_process_dies_with_the_thread_that_started_it() {
        let starts = || command(Path::new("/bin/sleep")).arg("20").spawn().unwrap();
        let mut child = std::thread::spawn(starts).join().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }
}
