//! The terminal of a program. The agent holds its other end: it passes on what is typed, and what is
//! shown. Each program has one before it is known whether it will use it, since an interpreter may be
//! saved before it has a program.

use anyhow::{Context, Result};
use guest::{Terminal, WindowSize, stream};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{InputFlags, OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown, read, write};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Both ends of a terminal, and the stream on which it is shown.
pub struct Pty {
    master: PtyMaster,
    /// The program's end: while we have it, ours does not hang up.
    slave: OwnedFd,
    shown: File,
}

impl Pty {
    /// Opens a terminal that is shown on this stream, for a program of this user or root.
    pub fn open(shown: OwnedFd, user: u32) -> Result<Self> {
        let (master, slave) = open_pair(user)?;
        Ok(Self {
            master,
            slave,
            shown: shown.into(),
        })
    }

    /// Returns the program's end.
    pub fn slave(&self) -> &OwnedFd {
        &self.slave
    }

    pub fn resize(&self, size: WindowSize) -> Result<()> {
        resize(&self.master, size)
    }

    /// Prepares the terminal for a program that uses it.
    pub fn prepare(&self, terminal: Terminal) -> Result<()> {
        if !terminal.has(stream::STDIN) {
            // The host's terminal still adds the carriage returns itself.
            let mut modes = tcgetattr(&self.slave).context("reading a terminal's modes")?;
            modes.output_flags.remove(OutputFlags::OPOST);
            tcsetattr(&self.slave, SetArg::TCSANOW, &modes)
                .context("setting a terminal's modes")?;
        }
        self.resize(terminal.size)
    }

    /// Types some of these bytes; returns how many.
    pub fn type_in(&self, bytes: &[u8]) -> nix::Result<usize> {
        write(&self.master, bytes)
    }

    /// Passes on what a process wrote that is no program's.
    pub fn show_other(&mut self, bytes: &[u8]) -> Result<()> {
        self.shown.write_all(bytes).context("showing output")
    }

    /// Passes on what was written to the terminal, but not without end.
    pub fn show(&mut self) -> Result<()> {
        const MOST: usize = 1 << 20;
        let mut bytes = [0; 16 << 10];
        let mut shown = 0;
        while shown < MOST {
            match read(&self.master, &mut bytes) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(count) => {
                    self.shown
                        .write_all(&bytes[..count])
                        .context("showing what is on a terminal")?;
                    shown += count;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("reading a terminal"),
            }
        }
        Ok(())
    }
}

/// Opens a terminal for a process of this user; its own end comes second.
pub fn open_pair(user: u32) -> Result<(PtyMaster, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags | OFlag::O_NONBLOCK).context("making a terminal")?;
    grantpt(&master).context("making a terminal")?;
    unlockpt(&master).context("making a terminal")?;
    let name = ptsname_r(&master).context("naming a terminal")?;
    let slave = open(name.as_str(), flags, Mode::empty()).context("opening a terminal")?;
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    fchown(&slave, Some(user), Some(group)).context("giving a terminal to a user")?;
    let mut modes = tcgetattr(&slave).context("reading a terminal's modes")?;
    modes.input_flags |= InputFlags::IUTF8;
    tcsetattr(&slave, SetArg::TCSANOW, &modes).context("setting a terminal's modes")?;
    Ok((master, slave))
}

pub fn resize(terminal: &impl AsRawFd, size: WindowSize) -> Result<()> {
    let size = libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    Errno::result(result)
        .map(drop)
        .context("resizing a terminal")
}

/// Makes the terminal that of the calling process, which leads a session and has it as a standard
/// stream.
pub fn take_control(terminal: Terminal) -> nix::Result<()> {
    let stream = (stream::STDIN..=stream::STDERR).find(|&stream| terminal.has(stream));
    let Some(stream) = stream else { return Ok(()) };
    // SAFETY: TIOCSCTTY takes numbers only.
    let result = unsafe { libc::ioctl(stream.into(), libc::TIOCSCTTY, 0) };
    Errno::result(result).map(drop)
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
