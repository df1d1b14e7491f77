//! The way from a session's main thread to its guest.

use crate::agent::{CellRun, Shared};
use crate::watchdog::Watchdog;
use guest::{Frame, Signal};

/// The way to the guest: frames, which wait in `shared`, and the vCPU thread that takes them.
pub struct Guest<'a> {
    pub shared: &'a Shared,
    pub watchdog: &'a Watchdog<CellRun>,
}

impl Guest<'_> {
    /// Sends the interpreter a signal, or its process group.
    pub fn signal(&self, number: u8, is_for_group: bool) {
        self.shared.give_signal(Signal {
            number,
            is_for_group,
        });
        self.watchdog.kick();
    }

    /// Sends the agent a frame.
    pub fn send(&self, frame: Frame) {
        self.shared.give(frame);
        self.watchdog.kick();
    }
}
