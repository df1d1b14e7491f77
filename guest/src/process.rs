//! What every process that the agent starts has in common, from its start to its end.

use crate::machine::JOB_CGROUP;
use anyhow::{Context, Result, bail};
use guest::Exit;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setsid, setuid};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// How often it is looked whether processes that were killed are gone.
const INTERVAL: Duration = Duration::from_millis(1);

/// A process that has ended, and its wait(2) status.
pub type Ended = (Pid, i32);

/// Returns a command with these words and this environment.
pub fn command_of(argv: &[Vec<u8>], env: &[Vec<u8>]) -> Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        bail!("the job names no program");
    };
    let mut command = Command::new(OsStr::from_bytes(program));
    command
        .args(arguments.iter().map(|bytes| OsStr::from_bytes(bytes)))
        .env_clear()
        .stdin(Stdio::null());
    for variable in env {
        let Some(equals) = variable.iter().position(|&byte| byte == b'=') else {
            bail!("a variable of the environment has no value");
        };
        let (name, value) = (&variable[..equals], &variable[equals + 1..]);
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    Ok(command)
}

/// Makes the calling process one of this cgroup, in a session of its own. It makes only system calls.
pub fn enter(cgroup: &str) -> io::Result<()> {
    fs::write(format!("{cgroup}/cgroup.procs"), "0")?;
    fs::write("/proc/self/oom_score_adj", "1000")?;
    SigSet::empty().thread_set_mask()?;
    setsid()?;
    Ok(())
}

/// Makes the calling process that of a user. Leaving uid 0 drops all capabilities (capabilities(7)).
pub fn become_user(user: u32, group: u32) -> nix::Result<()> {
    if user == 0 {
        return Ok(());
    }
    setgroups(&[])?;
    setgid(Gid::from_raw(group))?;
    setuid(Uid::from_raw(user))?;
    nix::sys::prctl::set_no_new_privs()
}

/// Ends all processes but this one: processes that the program started may have outlived it.
pub fn end_all() -> Result<()> {
    const ALL: Pid = Pid::from_raw(-1);
    match kill(ALL, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno).context("ending all processes"),
    }
    loop {
        // nix's waitpid knows no real-time signals.
        // SAFETY: waitpid(2) may be told to write no status.
        match Errno::result(unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) }) {
            Err(Errno::ECHILD) => return Ok(()),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for a child"),
        }
    }
}

/// Ends the processes of the program, but not those of commands beside it. Returns the children that have
/// ended meanwhile.
pub fn end_program() -> Result<Vec<Ended>> {
    fs::write(format!("{JOB_CGROUP}/cgroup.kill"), "1")
        .context("ending the program's processes")?;
    let mut ended = Vec::new();
    loop {
        ended.extend(reap()?);
        let events = fs::read_to_string(format!("{JOB_CGROUP}/cgroup.events"));
        let events = events.context("looking for the program's processes")?;
        if events.contains("populated 0") {
            return Ok(ended);
        }
        sleep(INTERVAL);
    }
}

/// Reaps every child that has ended.
pub fn reap() -> Result<Vec<Ended>> {
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // nix's waitpid knows no real-time signals.
        // SAFETY: waitpid(2) writes one integer, which outlives the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        match Errno::result(pid) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(pid) => ended.push((Pid::from_raw(pid), status)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for a child"),
        }
    }
}

/// Sends a signal to the program, or to its process group, which it leads. It is not reaped yet, so its
/// number is still its own.
pub fn pass_on(signal: guest::Signal, program: Pid) -> Result<()> {
    let target = match signal.is_for_group {
        true => -program.as_raw(),
        false => program.as_raw(),
    };
    // nix's kill knows no real-time signals.
    // SAFETY: kill(2) takes numbers only.
    match Errno::result(unsafe { libc::kill(target, signal.number.into()) }) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context("sending a signal to the program"),
    }
}

/// Returns the exit of a program that has ended with this wait(2) status.
pub fn exit_of(status: i32, memory_kills_before: u64) -> Result<Exit> {
    if libc::WIFEXITED(status) {
        return Ok(Exit::Exited(libc::WEXITSTATUS(status) as u8));
    }
    let signal = libc::WTERMSIG(status);
    Ok(Exit::Signaled {
        signal: signal as u8,
        out_of_memory: signal == libc::SIGKILL && memory_kills()? > memory_kills_before,
    })
}

/// Returns how many processes the kernel has killed because memory ran out.
pub fn memory_kills() -> Result<u64> {
    let counters = fs::read_to_string("/proc/vmstat").context("reading /proc/vmstat")?;
    let mut lines = counters.lines();
    let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
    let count = count.context("/proc/vmstat has no oom_kill")?;
    count.parse().context("reading the count of oom_kill")
}
