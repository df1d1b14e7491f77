//! Interrupt lines: devices raise them, the vCPU thread delivers them before it re-enters the guest.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// All lines of the machine, edge-triggered.
#[derive(Debug, Clone, Default)]
pub struct IrqLines(Arc<AtomicU32>);

impl IrqLines {
    /// Returns the line with this number (0 to 23).
    pub fn line(&self, number: u32) -> IrqLine {
        IrqLine {
            lines: self.clone(),
            bit: 1 << number,
        }
    }

    /// Raises the lines of this bit mask.
    pub fn raise_all(&self, mask: u32) {
        self.0.fetch_or(mask, Ordering::Relaxed);
    }

    /// Takes the lines that were raised since the last call, as a bit mask.
    pub fn take_raised(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// One device's interrupt line.
#[derive(Debug, Clone)]
pub struct IrqLine {
    lines: IrqLines,
    bit: u32,
}

impl IrqLine {
    pub fn raise(&self) {
        self.lines.raise_all(self.bit);
    }
}

impl vm_superio::Trigger for IrqLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.raise();
        Ok(())
    }
}
