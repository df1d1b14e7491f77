//! The process that puts the terminal's modes back when a run is over, or its process was killed.

use crate::confine::close_all_but;
use crate::terminal::modes::{Modes, Shown};
use anyhow::{Context, Result};
use guest::{Terminal, stream};
use nix::sys::signal::SigSet;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe, stdin, stdout};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

/// A terminal in a program's hands. When it is dropped, the terminal is as it was before.
pub struct Keeper {
    process: Pid,
    /// The process waits until nobody has this any more.
    lease: Option<PipeWriter>,
    shown: Arc<Shown>,
}

impl Keeper {
    /// Starts the process; has the terminal pass on all that is typed, unless nothing of that is for the
    /// program. No other thread may have started yet. The process keeps `held` open: whoever waits until
    /// nobody has that finds the terminal as it was.
    pub fn start(terminal: Terminal, held: Option<RawFd>) -> Result<Self> {
        let typed = match terminal.has(stream::STDIN) {
            true => Some(tcgetattr(stdin()).context("reading the terminal's modes")?),
            false => None,
        };
        let shown = Arc::new(Shown::new()?);
        let (end, lease) = pipe().context("making a pipe")?;
        // SAFETY: there is no other thread that could hold a lock.
        let process = match unsafe { fork() }.context("starting a process")? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(lease);
                let status = i32::from(keep(end, held, typed, &shown).is_err());
                // SAFETY: _exit(2) ends the process, without the handlers that its parent
                // registered for its own end.
                unsafe { libc::_exit(status) }
            }
        };
        let keeper = Self {
            process,
            lease: Some(lease),
            shown,
        };
        if let Some(mut modes) = typed {
            cfmakeraw(&mut modes);
            tcsetattr(stdin(), SetArg::TCSADRAIN, &modes)
                .context("setting the terminal's modes")?;
        }
        Ok(keeper)
    }

    /// Returns a watch over what the program makes of the terminal by what it writes.
    pub fn modes(&self) -> Modes {
        Modes::new(Arc::clone(&self.shown))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.lease = None;
        // There is nobody to tell if it cannot be waited for.
        waitpid(self.process, None).map(drop).unwrap_or_default();
    }
}

/// Waits for the end of the lease and puts the terminal's modes back.
fn keep(
    mut end: PipeReader,
    held: Option<RawFd>,
    typed: Option<Termios>,
    shown: &Shown,
) -> Result<()> {
    // No signal ends this process, and none stops it, which may be in the background by then.
    SigSet::all().thread_block().context("blocking signals")?;
    close_all_but(held.into_iter().chain([end.as_raw_fd()]).collect())?;
    end.read_to_end(&mut Vec::new())
        .context("waiting for the end of a run")?;
    if let Some(modes) = typed {
        tcsetattr(stdin(), SetArg::TCSANOW, &modes).context("setting the terminal's modes")?;
    }
    let mut stdout = stdout();
    stdout
        .write_all(shown.back().as_bytes())
        .and_then(|()| stdout.flush())
        .context("writing to the terminal")
}
