//! The serial console: a 16550A whose output is kept for diagnosis, and shown on request.

use crate::devices::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Write};
use vm_superio::serial::{NoEvents, Serial as Uart};

/// How many bytes of console output are kept: the most recent ones.
const KEPT: usize = 64 << 10;

pub struct Serial(Uart<IrqLine, NoEvents, Console>);

impl Serial {
    /// Makes a console whose output also goes to `copy`, until a write to that fails.
    pub fn new(irq: IrqLine, copy: Option<Box<dyn Write + Send>>) -> Self {
        Self(Uart::new(irq, Console::new(copy)))
    }

    /// Makes a console that goes on from a saved state, with nothing kept of its output.
    pub fn from_state(state: &SerialState, irq: IrqLine) -> io::Result<Self> {
        Uart::from_state(&state.0, irq, NoEvents, Console::new(None))
            .map(Self)
            .map_err(io::Error::other)
    }

    pub fn state(&self) -> SerialState {
        SerialState(self.0.state())
    }

    /// Reads the register at this offset (0 to 7).
    pub fn read(&mut self, offset: u8) -> u8 {
        self.0.read(offset)
    }

    /// Writes the register at this offset (0 to 7).
    pub fn write(&mut self, offset: u8, value: u8) -> io::Result<()> {
        self.0.write(offset, value).map_err(io::Error::other)
    }

    /// Returns the end of the guest's output.
    pub fn log(&self) -> Vec<u8> {
        self.0.writer().kept.iter().copied().collect()
    }
}

/// The registers, to be saved.
#[derive(Clone, Serialize, Deserialize)]
pub struct SerialState(#[serde(with = "UartState")] vm_superio::SerialState);

#[derive(Serialize, Deserialize)]
#[serde(remote = "vm_superio::SerialState")]
struct UartState {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    in_buffer: Vec<u8>,
}

struct Console {
    kept: VecDeque<u8>,
    copy: Option<Box<dyn Write + Send>>,
    /// Nobody reads the copy any more. It stays open: a confined thread closes nothing.
    is_unread: bool,
}

impl Console {
    fn new(copy: Option<Box<dyn Write + Send>>) -> Self {
        Self {
            kept: VecDeque::new(),
            copy,
            is_unread: false,
        }
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.kept.extend(bytes);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
        if let Some(copy) = &mut self.copy
            && !self.is_unread
        {
            // It is not the guest's fault.
            self.is_unread = copy.write_all(bytes).is_err();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::irq::IrqLines;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_flood_keeps_only_the_end() {
        let mut serial = Serial::new(IrqLines::default().line(4), None);
        for number in 0..3 * KEPT {
            serial.write(0, (number % 251) as u8).unwrap();
        }
        let log = serial.log();
        assert_eq!(log.len(), KEPT);
        assert_eq!(log[KEPT - 1], ((3 * KEPT - 1) % 251) as u8);
    }

    proptest! {
        /// Makes any accesses, and saves and restores the console at any time (in loop mode it
        /// holds bytes).
        #[test]
        fn any_register_access_leaves_a_console_that_can_be_restored(
            accesses in vec((any::<u8>(), any::<u8>(), 0..4u8), 1..300),
        ) {
            let line = || IrqLines::default().line(4);
            let mut serial = Serial::new(line(), None);
            for (offset, value, kind) in accesses {
                match kind {
                    0 => serial = Serial::from_state(&serial.state(), line()).unwrap(),
                    1 => serial.write(offset % 8, value).unwrap(),
                    2 => serial.write(0, value).unwrap(),
                    _ => drop(serial.read(offset)),
                }
            }
        }
    }
}
