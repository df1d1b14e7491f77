//! The start of a program: its limits, its identity and its standard streams.

use crate::machine::{CGROUP, USER};
use crate::pty::{self, Pty};
use anyhow::{Context, Result, bail};
use guest::hypercall::prctl;
use guest::{JobFrame, STDIN_WINDOW, Terminal, stream};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Gid, Pid, Uid, chdir, fchown, pipe2, setgid, setgroups, setsid, setuid};
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A running program: its process, and our ends of its standard streams.
pub struct Program {
    pub pid: Pid,
    pub stdin: OwnedFd,
    pub pty: Pty,
    /// The read ends of its output. Nobody reads them, since the kernel gives the host what is
    /// written, but a pipe without a reader takes nothing.
    pub outputs: [OwnedFd; 2],
}

/// Starts the job's program; the kernel makes its files. The inner error is the errno of execve(2).
pub fn start(job: &JobFrame) -> Result<Result<Program, Errno>> {
    fs::write(format!("{CGROUP}/pids.max"), job.pids_limit.to_string())
        .context("limiting processes")?;
    let (child_stdin, stdin) = pipe()?;
    // It holds as much as the host sends ahead.
    fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(STDIN_WINDOW as i32)).context("enlarging a pipe")?;
    let (stdout, child_stdout) = pipe()?;
    let (stderr, child_stderr) = pipe()?;
    for (pipe, number) in [
        (&child_stdin, stream::STDIN),
        (&child_stdout, stream::STDOUT),
        (&child_stderr, stream::STDERR),
    ] {
        host_services(prctl::STREAM, pipe.as_raw_fd() as u32, number)
            .context("making a standard stream the host's")?;
    }
    let shown = child_stdout.try_clone().context("duplicating a pipe")?;
    let pty = Pty::open(shown)?;
    let mut command = command(job)?;
    let on_terminal = |stream: u8| job.terminal.is_some_and(|terminal| terminal.has(stream));
    let place = |pipe: OwnedFd, stream: u8| match on_terminal(stream) {
        true => pty.slave().try_clone().context("duplicating a terminal"),
        false => Ok(pipe),
    };
    command
        .stdin(place(child_stdin, stream::STDIN)?)
        .stdout(place(child_stdout, stream::STDOUT)?)
        .stderr(place(child_stderr, stream::STDERR)?);
    if let Some(terminal) = job.terminal {
        pty.prepare(terminal)?;
    }
    match command.spawn() {
        Ok(child) => Ok(Ok(Program {
            pid: Pid::from_raw(child.id() as i32),
            stdin,
            pty,
            outputs: [stdout, stderr],
        })),
        Err(error) => match error.raw_os_error() {
            Some(errno) => Ok(Err(Errno::from_raw(errno))),
            None => Err(error).context("starting the program"),
        },
    }
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

fn command(job: &JobFrame) -> Result<Command> {
    let Some((program, arguments)) = job.argv.split_first() else {
        bail!("the job names no program");
    };
    let mut command = Command::new(OsStr::from_bytes(program));
    command
        .args(arguments.iter().map(|bytes| OsStr::from_bytes(bytes)))
        .env_clear()
        .stdin(Stdio::null());
    for variable in &job.env {
        let Some(equals) = variable.iter().position(|&byte| byte == b'=') else {
            bail!("a variable of the environment has no value");
        };
        let (name, value) = (&variable[..equals], &variable[equals + 1..]);
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    let workdir = CString::new(job.workdir.clone()).context("naming the working directory")?;
    // SAFETY: the closure runs between fork and exec in a single-threaded process
    // and makes only system calls.
    unsafe { command.pre_exec(become_the_program(job.root, workdir, job.terminal)) };
    Ok(command)
}

/// Returns the steps of the child: it enters the cgroup, then becomes an unprivileged user in a
/// session of its own. Leaving uid 0 drops all capabilities (capabilities(7)).
fn become_the_program(
    root: bool,
    workdir: CString,
    terminal: Option<Terminal>,
) -> impl FnMut() -> std::io::Result<()> {
    move || {
        fs::write(format!("{CGROUP}/cgroup.procs"), "0")?;
        fs::write("/proc/self/oom_score_adj", "1000")?;
        SigSet::empty().thread_set_mask()?;
        setsid()?;
        if let Some(terminal) = terminal {
            pty::take_control(terminal)?;
        }
        let owner = if root { 0 } else { USER };
        host_services(prctl::PROGRAM, owner, 0)?;
        if !root {
            setgroups(&[])?;
            setgid(Gid::from_raw(USER))?;
            setuid(Uid::from_raw(USER))?;
            nix::sys::prctl::set_no_new_privs()?;
        }
        // This comes last: it is the program's first look at a path, and so makes its files.
        chdir(workdir.as_c_str())?;
        Ok(())
    }
}

/// Makes one of the prctl(2) calls of our kernel ([`prctl`]).
pub fn host_services(option: i32, number: u32, stream: u8) -> nix::Result<()> {
    let (number, stream) = (libc::c_ulong::from(number), libc::c_ulong::from(stream));
    // SAFETY: these options take numbers only.
    let result = unsafe { libc::prctl(option, number, stream, 0, 0) };
    Errno::result(result).map(drop)
}

/// Makes a pipe that the program may also open by name (`/dev/stdout`). The read end comes first.
fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    fchown(&reader, Some(user), Some(group)).context("giving a pipe to the program")?;
    Ok((reader, writer))
}
