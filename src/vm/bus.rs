//! Port I/O and memory-mapped I/O: which device answers at which address.

use crate::devices::Violation;
use crate::devices::ioapic::Ioapic;
use crate::devices::irq::IrqLines;
use crate::devices::serial::Serial;
use crate::devices::virtio_mmio::VirtioMmio;
use crate::devices::vsock::{Peer, Vsock};
use crate::layout::*;
use anyhow::{Context, Result};
use std::io::Write;
use vm_memory::GuestMemoryMmap;

const SERIAL_LAST: u16 = SERIAL_PORT + SERIAL_PORTS - 1;
const IOAPIC_LAST: u64 = IOAPIC + IOAPIC_SIZE - 1;
const VSOCK_LAST: u64 = VSOCK_MMIO + VSOCK_MMIO_SIZE - 1;

/// All devices of the machine.
pub struct Bus<P> {
    pub irqs: IrqLines,
    pub ioapic: Ioapic,
    pub serial: Serial,
    pub vsock: VirtioMmio<P>,
}

/// What the vCPU thread must do about an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    None,
    /// The guest asked for a reset.
    Reset,
    /// The guest asked for bulk memory work.
    BulkMemory,
}

impl<P: Peer> Bus<P> {
    pub fn new(peer: P, console: Option<Box<dyn Write + Send>>) -> Result<Self> {
        let irqs = IrqLines::default();
        let serial = Serial::new(irqs.line(SERIAL_IRQ), console);
        let vsock = VirtioMmio::new(Vsock::new(GUEST_CID, peer), irqs.line(VSOCK_IRQ))
            .context("making the vsock device")?;
        Ok(Self {
            irqs,
            ioapic: Ioapic::default(),
            serial,
            vsock,
        })
    }

    /// A port that nothing answers reads as all ones, like an empty ISA bus.
    pub fn read_port(&mut self, port: u16, data: &mut [u8]) {
        match (port, data) {
            (SERIAL_PORT..=SERIAL_LAST, [byte]) => {
                *byte = self.serial.read((port - SERIAL_PORT) as u8);
            }
            // The keyboard controller is always ready for a command.
            (I8042_COMMAND, [byte]) => *byte = 0,
            (_, data) => data.fill(0xff),
        }
    }

    pub fn write_port(&mut self, port: u16, data: &[u8]) -> Result<Effect, Violation> {
        match (port, data) {
            (SERIAL_PORT..=SERIAL_LAST, &[byte]) => {
                self.serial.write((port - SERIAL_PORT) as u8, byte)?;
                Ok(Effect::None)
            }
            (I8042_COMMAND, &[I8042_RESET]) => Ok(Effect::Reset),
            (BULK_MEMORY_PORT, _) => Ok(Effect::BulkMemory),
            _ => Ok(Effect::None),
        }
    }

    /// An address that nothing answers reads as all ones.
    pub fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        match address {
            VSOCK_MMIO..=VSOCK_LAST => self.vsock.read(address - VSOCK_MMIO, data),
            IOAPIC..=IOAPIC_LAST => {
                let value = self.ioapic.read(address - IOAPIC).to_le_bytes();
                for (byte, value) in data.iter_mut().zip(value) {
                    *byte = value;
                }
            }
            _ => data.fill(0xff),
        }
    }

    pub fn write_memory(
        &mut self,
        address: u64,
        data: &[u8],
        ram: &GuestMemoryMmap,
    ) -> Result<(), Violation> {
        match (address, data.try_into()) {
            (VSOCK_MMIO..=VSOCK_LAST, _) => {
                let kicked = self.vsock.write(address - VSOCK_MMIO, data);
                return if kicked {
                    self.vsock.process(ram)
                } else {
                    Ok(())
                };
            }
            (IOAPIC..=IOAPIC_LAST, Ok(bytes)) => {
                self.ioapic
                    .write(address - IOAPIC, u32::from_le_bytes(bytes));
            }
            _ => {}
        }
        Ok(())
    }
}
