//! Signals that ask this process to stop.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use std::os::fd::{AsFd, BorrowedFd};

/// A descriptor for the signals that ask this process to stop. They are watched until it is
/// dropped.
pub struct Signals {
    fd: SignalFd,
    mask: SigSet,
}

impl Signals {
    /// Watches the signals. It must be called before any thread starts, so that all threads leave
    /// them to this descriptor. A signal that our parent ignores, as nohup(1) does, stays ignored.
    pub fn watch() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            if !is_ignored(signal)? {
                mask.add(signal);
            }
        }
        mask.thread_block().context("blocking signals")?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("making a signalfd")?;
        Ok(Self { fd, mask })
    }

    /// Returns the signal that came, if one did.
    pub fn take(&self) -> Result<Option<u8>> {
        Ok(self.read()?.map(|signal| signal.ssi_signo as u8))
    }

    /// Returns the signal that came, if one did, and whether a process sent it: a signal from the
    /// terminal has reached all of its processes.
    pub fn take_with_sender(&self) -> Result<Option<(Signal, bool)>> {
        let signal = self.read()?.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
            Some((signal, info.ssi_code <= 0))
        });
        Ok(signal)
    }

    /// Waits until the descriptor can be written to. Signals that are waiting if it is writable at
    /// once have been obeyed already and were sent again (timeout(1) sends two). One that comes
    /// while nobody reads is obeyed as if it were not watched.
    pub fn until_writable(&self, fd: BorrowedFd) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(fd, PollFlags::POLLOUT),
                PollFd::new(self.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for a reader")?,
            };
            let [writable, signal] =
                fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            match (writable, signal) {
                (true, true) => drop(self.take()?),
                (true, false) => return Ok(()),
                (false, _) => self.mask.thread_unblock().context("unblocking signals")?,
            }
        }
    }

    fn read(&self) -> Result<Option<siginfo>> {
        match self.fd.read_signal() {
            Err(Errno::EINTR) => Ok(None),
            result => result.context("reading signals"),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // This fails only for an invalid set.
        self.mask.thread_unblock().unwrap_or_default();
    }
}

/// Checks whether a signal is ignored. Nobody but our parent process can have set that.
pub fn is_ignored(signal: Signal) -> Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction(2) only writes the present one, which has room.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    Errno::result(result).context("looking at a signal's disposition")?;
    // SAFETY: all zeroes is a valid sigaction, and the call wrote one.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}
