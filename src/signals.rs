//! Signals to this process: those that ask it to stop, and those that only a program gives a meaning.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that ask a process to stop.
const STOPPING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// The signals that mean what a program makes of them.
const OTHERS: [Signal; 3] = [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH];

/// A signal that has come.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub signal: Signal,
    /// Whether a process sent it. A signal from the terminal has reached all of its processes.
    pub is_sent: bool,
}

impl Received {
    /// Returns whether it asks this process to stop.
    pub fn asks_to_stop(self) -> bool {
        STOPPING.contains(&self.signal)
    }
}

/// A descriptor for signals to this process. They are watched until it is dropped.
pub struct Signals {
    fd: SignalFd,
    mask: SigSet,
}

impl Signals {
    /// Watches the signals. It must be called before any thread starts, so that all threads leave
    /// them to this descriptor. A signal that our parent ignores, as nohup(1) does, stays ignored.
    pub fn watch() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in STOPPING.into_iter().chain(OTHERS) {
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
    pub fn take(&self) -> Result<Option<Received>> {
        let received = self.read()?.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
            Some(Received {
                signal,
                is_sent: info.ssi_code <= 0,
            })
        });
        Ok(received)
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
