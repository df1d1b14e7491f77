//! The terminal of this process: what of it a program gets, and its modes, which are put back however
//! the run ends.

mod keeper;
mod modes;

pub use keeper::Keeper;
pub use modes::Modes;

use anyhow::{Context, Result};
use guest::{Terminal, WindowSize, stream};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd};

/// Returns the terminal on which this process shows its output, if there is one. Standard input is on it
/// only if what is typed there is meant for this process, and for no other that has its modes changed.
pub fn of_this_process() -> Result<Option<Terminal>> {
    if !stdout().is_terminal() {
        return Ok(None);
    }
    let size = window_size().context("reading the size of the terminal")?;
    let is_typed =
        is_the_same(stdin())? && tcgetpgrp(stdin()) == Ok(getpgrp()) && has_lines(stdin());
    let streams = [
        (stream::STDIN, is_typed),
        (stream::STDOUT, true),
        (stream::STDERR, is_the_same(stderr())?),
    ];
    let streams = streams.into_iter().filter(|(_, is_on_it)| *is_on_it);
    Ok(Some(Terminal {
        streams: streams.fold(0, |streams, (stream, _)| streams | 1 << stream),
        size,
    }))
}

/// Returns whether a stream is the terminal of standard output.
fn is_the_same(other: impl IsTerminal + AsFd) -> Result<bool> {
    if !other.is_terminal() {
        return Ok(false);
    }
    let shown = fstat(stdout()).context("looking at standard output")?;
    let other = fstat(other).context("looking at a standard stream")?;
    Ok(other.st_rdev == shown.st_rdev)
}

/// Returns whether the terminal gives what is typed line by line. Otherwise another program has it, such as
/// another run beside this one, whose modes are not ours to put back.
fn has_lines(terminal: impl AsFd) -> bool {
    tcgetattr(terminal).is_ok_and(|modes| modes.local_flags.contains(LocalFlags::ICANON))
}

/// Returns the size of the window of the terminal that standard output is.
pub fn window_size() -> nix::Result<WindowSize> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(stdout().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    Errno::result(result)?;
    Ok(WindowSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
