//! The start of a command beside the program.

use crate::machine::COMMANDS_CGROUP;
use crate::mover;
use crate::pipes::{pipe, set_nonblocking};
use crate::process::{become_user, command_of, enter, memory_kills};
use crate::pty::{open_pair, resize, take_control};
use anyhow::{Context, Result};
use guest::channel::{Command, files};
use guest::{CHANNEL_WINDOW, Terminal, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Pid, Uid, User, chdir};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// A command that was started, and our ends of its standard streams.
pub struct Started {
    pub pid: Pid,
    pub memory_kills: u64,
    pub stdin: OwnedFd,
    /// Standard output and standard error, or what its terminal shows; and its reports.
    pub outputs: [Option<OwnedFd>; 3],
    pub terminal: bool,
}

/// Why a command was not started, and its exit status.
pub type NotStarted = (String, u8);

/// The exit statuses of shells for what cannot be run, and what is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The descriptor of reports. In the agent it is the connection to the host, its first.
const REPORTS: i32 = 3;

/// A user, and its group.
struct Identity {
    user: u32,
    group: u32,
}

/// The ends of a command's standard streams.
struct Streams {
    stdin: OwnedFd,
    outputs: [Option<OwnedFd>; 2],
    theirs: [OwnedFd; 3],
}

/// Starts a command.
pub fn start(command: &Command) -> Result<Result<Started, NotStarted>> {
    let identity = match identity(command) {
        Ok(identity) => identity,
        Err(why) => return Ok(Err((why, CANNOT_RUN))),
    };
    let Streams {
        stdin,
        outputs: [stdout, stderr],
        theirs,
    } = streams(command.terminal, identity.user)?;
    let reports = command.reports.then(|| pipe(identity.user)).transpose()?;
    let (reports, their_reports) = reports.unzip();
    reports.as_ref().map_or(Ok(()), set_nonblocking)?;
    let memory_kills = memory_kills()?;
    let workdir = CString::new(&command.workdir[..]).context("naming the working directory")?;
    let steps = become_the_command(identity, workdir, command.terminal, their_reports);
    Ok(spawn(command, theirs, steps)?.map(|pid| Started {
        pid,
        memory_kills,
        stdin,
        outputs: [stdout, stderr, reports],
        terminal: command.terminal.is_some(),
    }))
}

/// Starts the process, which takes these steps first.
fn spawn(
    command: &Command,
    streams: [OwnedFd; 3],
    steps: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> Result<Result<Pid, NotStarted>> {
    if let Some((word, rest)) = command.argv.split_first()
        && word == files::MOVE
    {
        return mover::start(rest, streams, steps).map(Ok);
    }
    let mut process = command_of(&command.argv, &command.env)?;
    let [stdin, stdout, stderr] = streams;
    process.stdin(stdin).stdout(stdout).stderr(stderr);
    // SAFETY: the closure runs between fork and exec in a single-threaded process
    // and makes only system calls.
    unsafe { process.pre_exec(steps) };
    match process.spawn() {
        Ok(child) => Ok(Ok(Pid::from_raw(child.id() as i32))),
        Err(error) => match error.raw_os_error() {
            Some(errno) => Ok(Err(not_started(command, Errno::from_raw(errno)))),
            None => Err(error).context("starting a command"),
        },
    }
}

/// Finds the user of a command.
fn identity(command: &Command) -> Result<Identity, String> {
    let name = String::from_utf8_lossy(&command.user);
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number))
            .map(|found| found.map_or((number, number), |found| (number, found.gid.as_raw())))
            .map(Some),
        Err(_) => User::from_name(&name)
            .map(|found| found.map(|found| (found.uid.as_raw(), found.gid.as_raw()))),
    };
    match found {
        Ok(Some((0, _))) if !command.root => Err(format!("{name}: the session has no root")),
        Ok(Some((user, group))) => Ok(Identity { user, group }),
        Ok(None) | Err(_) => Err(format!("{name}: no such user")),
    }
}

/// Makes the standard streams of a command of this user.
fn streams(terminal: Option<WindowSize>, user: u32) -> Result<Streams> {
    if let Some(size) = terminal {
        let (master, slave) = open_pair(user)?;
        resize(&master, size)?;
        let duplicate = |end: &dyn AsFd| {
            let end = end.as_fd().try_clone_to_owned();
            end.context("duplicating a terminal")
        };
        return Ok(Streams {
            stdin: duplicate(&master)?,
            outputs: [Some(duplicate(&master)?), None],
            theirs: [duplicate(&slave)?, duplicate(&slave)?, slave],
        });
    }
    let (their_stdin, stdin) = pipe(user)?;
    let (stdout, their_stdout) = pipe(user)?;
    let (stderr, their_stderr) = pipe(user)?;
    for ours in [&stdin, &stdout, &stderr] {
        set_nonblocking(ours)?;
    }
    // They hold as much as may be under way, so that there are fewer turns.
    for bulk in [&stdin, &stdout] {
        fcntl(bulk, FcntlArg::F_SETPIPE_SZ(CHANNEL_WINDOW as i32)).context("enlarging a pipe")?;
    }
    Ok(Streams {
        stdin,
        outputs: [Some(stdout), Some(stderr)],
        theirs: [their_stdin, their_stdout, their_stderr],
    })
}

/// Returns the steps of the child: it enters the cgroup, then becomes the user in a session of its own.
fn become_the_command(
    identity: Identity,
    workdir: CString,
    terminal: Option<WindowSize>,
    reports: Option<OwnedFd>,
) -> impl FnMut() -> io::Result<()> {
    move || {
        enter(COMMANDS_CGROUP)?;
        if let Some(reports) = &reports {
            give_reports(reports)?;
        }
        if let Some(size) = terminal {
            take_control(Terminal { streams: 1, size })?;
        }
        become_user(identity.user, identity.group)?;
        chdir(workdir.as_c_str())?;
        Ok(())
    }
}

/// Makes the stream of reports the descriptor 3 of the calling process, in place of the agent's own.
fn give_reports(reports: &OwnedFd) -> nix::Result<()> {
    // SAFETY: dup2(2) takes numbers only, and between fork and exec nobody uses the descriptor.
    Errno::result(unsafe { libc::dup2(reports.as_raw_fd(), REPORTS) }).map(drop)
}

/// Says why a command was not started.
fn not_started(command: &Command, errno: Errno) -> NotStarted {
    let workdir = &command.workdir;
    let is_there = Path::new(OsStr::from_bytes(workdir)).is_dir();
    let (what, status) = match (is_there, errno) {
        (false, _) => (workdir, CANNOT_RUN),
        (true, Errno::ENOENT) => (&command.argv[0], NOT_FOUND),
        (true, _) => (&command.argv[0], CANNOT_RUN),
    };
    let what = String::from_utf8_lossy(what);
    (format!("{what}: {}", errno.desc()), status)
}
