//! Kicks: they make the vCPU thread return to its loop, from another thread and without a race.

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VcpuFd;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The signal that a kick sends: one that no other process has a reason to send.
pub const KICK: Signal = Signal::SIGURG;

/// Lets kicks interrupt system calls of this process. It must be called once, before any thread
/// starts.
pub fn allow_kicks() -> Result<()> {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, which is async-signal-safe.
    unsafe { sigaction(KICK, &action) }.context("installing a signal handler")?;
    // Only the vCPU thread takes them.
    SigSet::from(KICK).thread_block().context("blocking kicks")
}

/// Interrupts KVM_RUN and blocking writes of the vCPU thread.
pub struct Kicker {
    immediate_exit: *mut u8,
    kicked: Arc<AtomicBool>,
    thread: OnceLock<Pthread>,
}

// SAFETY: the pointer is to shared memory that lives as long as the vCPU, which outlives every
// kick by the contract of `Vm::kicker`; we access it atomically.
unsafe impl Send for Kicker {}
// SAFETY: as above.
unsafe impl Sync for Kicker {}

impl Kicker {
    /// Makes a kicker. `kicked` tells the vCPU thread of a kick that comes while it is outside the
    /// guest.
    pub(super) fn new(vcpu: &mut VcpuFd, kicked: Arc<AtomicBool>) -> Self {
        Self {
            immediate_exit: &raw mut vcpu.get_kvm_run().immediate_exit,
            kicked,
            thread: OnceLock::new(),
        }
    }

    /// Makes the calling thread the one that runs the vCPU. It unblocks the signal, which our
    /// parent process may have blocked, so that a kick comes through.
    pub fn enlist(&self) -> Result<()> {
        SigSet::from(KICK)
            .thread_unblock()
            .context("unblocking kicks")?;
        self.thread.get_or_init(pthread_self);
        Ok(())
    }

    /// Returns the processor time that the vCPU's thread has had, the guest's included.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut clock = 0;
        let thread = *self.thread.get().context("the vCPU thread has not begun")?;
        // SAFETY: the call writes one number, which outlives it; the thread is not joined yet.
        let failed = unsafe { libc::pthread_getcpuclockid(thread, &mut clock) };
        ensure!(failed == 0, "finding the clock of a thread");
        let time =
            clock_gettime(ClockId::from_raw(clock)).context("reading the clock of a thread")?;
        Ok(time.into())
    }

    /// Makes KVM_RUN return EINTR: at once if it is running, otherwise when it is entered next
    /// (Documentation/virt/kvm/api.rst, "immediate_exit"). This is harmless once the thread has
    /// ended but is not yet joined.
    pub fn kick(&self) {
        let Some(&thread) = self.thread.get() else {
            return;
        };
        self.kicked.store(true, Ordering::Release);
        // SAFETY: see the contract above; the byte is in the kvm_run page.
        let immediate_exit = unsafe { AtomicU8::from_ptr(self.immediate_exit) };
        immediate_exit.store(1, Ordering::Release);
        // ESRCH means that the thread has ended by itself, which is what a kick is for.
        pthread_kill(thread, KICK).unwrap_or_default();
    }
}
