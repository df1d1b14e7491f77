//! The start of a program: its limits, its identity and its standard streams.

use crate::machine::{CGROUP, JOB_CGROUP};
use crate::pipes::pipe;
use crate::process::{become_user, command_of, enter};
use crate::pty::{self, Pty};
use anyhow::{Context, Result};
use guest::hypercall::prctl;
use guest::{JobFrame, STDIN_WINDOW, Terminal, USER, stream};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Pid, chdir};
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

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
    // Whom root becomes may open them again.
    let owner = if job.is_root() { USER } else { job.user };
    let (child_stdin, stdin) = pipe(owner)?;
    // It holds as much as the host reads ahead.
    fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(STDIN_WINDOW as i32)).context("enlarging a pipe")?;
    let (stdout, child_stdout) = pipe(owner)?;
    let (stderr, child_stderr) = pipe(owner)?;
    for (pipe, number) in [
        (&child_stdin, stream::STDIN),
        (&child_stdout, stream::STDOUT),
        (&child_stderr, stream::STDERR),
    ] {
        host_services(prctl::STREAM, pipe.as_raw_fd() as u32, number)
            .context("making a standard stream the host's")?;
    }
    let shown = child_stdout.try_clone().context("duplicating a pipe")?;
    let pty = Pty::open(shown, owner)?;
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

fn command(job: &JobFrame) -> Result<Command> {
    let mut command = command_of(&job.argv, &job.env)?;
    let workdir = CString::new(job.workdir.clone()).context("naming the working directory")?;
    // SAFETY: the closure runs between fork and exec in a single-threaded process
    // and makes only system calls.
    unsafe {
        command.pre_exec(become_the_program(
            (job.user, job.group),
            workdir,
            job.terminal,
        ))
    };
    Ok(command)
}

/// Returns the steps of the child: it enters the cgroup, then becomes an unprivileged user in a
/// session of its own. Leaving uid 0 drops all capabilities (capabilities(7)).
fn become_the_program(
    (user, group): (u32, u32),
    workdir: CString,
    terminal: Option<Terminal>,
) -> impl FnMut() -> std::io::Result<()> {
    move || {
        enter(JOB_CGROUP)?;
        if let Some(terminal) = terminal {
            pty::take_control(terminal)?;
        }
        host_services(prctl::PROGRAM, user, 0)?;
        become_user(user, group)?;
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
