//! Port I/O and memory-mapped I/O: the dispatch of an access to the device at its address.

use crate::devices::Violation;
use crate::devices::ioapic::Ioapic;
use crate::devices::irq::IrqLines;
use crate::devices::serial::{Serial, SerialState};
use crate::devices::virtio_mmio::{VirtioMmio, VirtioMmioState};
use crate::devices::vsock::{Peer, Vsock};
use crate::vm::layout::*;
use anyhow::{Context, Result};
use guest::hypercall::FLUSH;
use serde::{Deserialize, Serialize};
use std::io::Write;
use vm_memory::GuestMemoryMmap;

const SERIAL_LAST: u16 = SERIAL_PORT + SERIAL_PORTS - 1;
const IOAPIC_LAST: u64 = IOAPIC + IOAPIC_SIZE - 1;
const VSOCK_LAST: u64 = VSOCK_MMIO + VSOCK_MMIO_SIZE - 1;

/// All devices of the machine.
pub struct Bus {
    pub irqs: IrqLines,
    pub ioapic: Ioapic,
    pub serial: Serial,
    pub vsock: VirtioMmio,
    pub unknown: Unknown,
}

/// Counts of the guest's accesses to ports, addresses and services that do not exist.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Unknown {
    pub ports: u64,
    pub addresses: u64,
    pub services: u64,
}

/// The saved state of the devices.
#[derive(Clone, Serialize, Deserialize)]
pub struct BusState {
    raised: u32,
    ioapic: Ioapic,
    serial: SerialState,
    vsock: VirtioMmioState,
}

/// The action that an access requires of the vCPU thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    None,
    /// The guest asked for a reset.
    Reset,
    /// The guest made a hypercall, which its registers describe.
    Hypercall,
    /// The guest made the one hypercall that uses no registers: take the output in the buffer.
    Flush,
}

impl Bus {
    pub fn new(console: Option<Box<dyn Write + Send>>) -> Result<Self> {
        let irqs = IrqLines::default();
        let serial = Serial::new(irqs.line(SERIAL_IRQ), console);
        let vsock = VirtioMmio::new(Vsock::new(GUEST_CID), irqs.line(VSOCK_IRQ))
            .context("making the vsock device")?;
        Ok(Self {
            irqs,
            ioapic: Ioapic::default(),
            serial,
            vsock,
            unknown: Unknown::default(),
        })
    }

    /// Makes devices that go on from a saved state.
    pub fn from_state(state: BusState) -> Result<Self> {
        let irqs = IrqLines::default();
        irqs.raise_all(state.raised);
        let serial = Serial::from_state(&state.serial, irqs.line(SERIAL_IRQ))
            .context("restoring the serial console")?;
        let device = Vsock::new(GUEST_CID);
        let vsock = VirtioMmio::from_state(state.vsock, device, irqs.line(VSOCK_IRQ))
            .context("restoring the vsock device")?;
        Ok(Self {
            irqs,
            ioapic: state.ioapic,
            serial,
            vsock,
            unknown: Unknown::default(),
        })
    }

    /// Returns the state of all devices if they are at rest.
    pub fn state(&self) -> Option<BusState> {
        let vsock = self.vsock.state()?;
        let raised = self.irqs.take_raised();
        self.irqs.raise_all(raised);
        Some(BusState {
            raised,
            ioapic: self.ioapic.clone(),
            serial: self.serial.state(),
            vsock,
        })
    }

    /// Reads a port. One without a device reads as all ones, like an empty ISA bus.
    pub fn read_port(&mut self, port: u16, data: &mut [u8]) {
        match (port, data) {
            (SERIAL_PORT..=SERIAL_LAST, [byte]) => {
                *byte = self.serial.read((port - SERIAL_PORT) as u8);
            }
            // The keyboard controller is always ready for a command.
            (I8042_COMMAND, [byte]) => *byte = 0,
            (_, data) => {
                data.fill(0xff);
                self.unknown.ports += 1;
            }
        }
    }

    pub fn write_port(&mut self, port: u16, data: &[u8]) -> Result<Effect, Violation> {
        match (port, data) {
            (SERIAL_PORT..=SERIAL_LAST, &[byte]) => {
                self.serial.write((port - SERIAL_PORT) as u8, byte)?;
                Ok(Effect::None)
            }
            (I8042_COMMAND, &[I8042_RESET]) => Ok(Effect::Reset),
            (HYPERCALL_PORT, &[FLUSH, ..]) => Ok(Effect::Flush),
            (HYPERCALL_PORT, _) => Ok(Effect::Hypercall),
            _ => {
                self.unknown.ports += 1;
                Ok(Effect::None)
            }
        }
    }

    /// Reads an address. One without a device reads as all ones.
    pub fn read_memory(&mut self, address: u64, data: &mut [u8]) {
        match address {
            VSOCK_MMIO..=VSOCK_LAST => self.vsock.read(address - VSOCK_MMIO, data),
            IOAPIC..=IOAPIC_LAST => {
                let value = self.ioapic.read(address - IOAPIC).to_le_bytes();
                for (byte, value) in data.iter_mut().zip(value) {
                    *byte = value;
                }
            }
            _ => {
                data.fill(0xff);
                self.unknown.addresses += 1;
            }
        }
    }

    pub fn write_memory(
        &mut self,
        address: u64,
        data: &[u8],
        ram: &GuestMemoryMmap,
        peer: &mut impl Peer,
    ) -> Result<(), Violation> {
        match (address, data.try_into()) {
            (VSOCK_MMIO..=VSOCK_LAST, _) => {
                let kicked = self.vsock.write(address - VSOCK_MMIO, data, peer);
                return if kicked {
                    self.vsock.process(ram, peer)
                } else {
                    Ok(())
                };
            }
            (IOAPIC..=IOAPIC_LAST, Ok(bytes)) => {
                self.ioapic
                    .write(address - IOAPIC, u32::from_le_bytes(bytes));
            }
            _ => self.unknown.addresses += 1,
        }
        Ok(())
    }
}
