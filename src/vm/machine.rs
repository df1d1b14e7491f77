//! A machine without its vCPU: the memory, the devices, and the interrupts between them and the
//! vCPU.

use crate::devices::Violation;
use crate::vm::buffer::Buffer;
use crate::vm::bus::Bus;
use crate::vm::hypercall::HypercallHandler;
use crate::vm::memory::Memory;
use anyhow::{Context, Result};
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

/// The machine that a vCPU runs in.
///
/// Fields drop in this order: the memory must outlive the VM that maps it into the guest.
pub struct Machine {
    pub fd: VmFd,
    pub memory: Memory,
    pub bus: Bus,
    /// The guest's output buffer.
    pub buffer: Buffer,
}

impl Machine {
    pub fn new(fd: VmFd, memory: Memory, bus: Bus) -> Self {
        Self {
            fd,
            memory,
            bus,
            buffer: Buffer::default(),
        }
    }

    /// Takes the program's output that the guest's kernel still holds.
    pub fn flush(&self, handler: &mut impl HypercallHandler) -> Result<(), Violation> {
        match self.buffer.take(&self.memory) {
            Some((stream, bytes)) if !self.memory.has_seen_loss() => handler.output(stream, &bytes),
            _ => Ok(()),
        }
    }

    /// Delivers the interrupts that the devices raised to the vCPU.
    pub fn deliver_interrupts(&mut self) -> Result<()> {
        let raised = self.bus.irqs.take_raised();
        for message in self.bus.ioapic.route(raised) {
            let delivered = self.fd.signal_msi(kvm_msi {
                address_lo: message.address,
                data: message.data,
                ..Default::default()
            });
            match delivered {
                Ok(_) => {}
                // The guest named a processor that it does not have.
                Err(error) if error.errno() == libc::EPERM => {}
                Err(error) => return Err(error).context("delivering an interrupt"),
            }
        }
        Ok(())
    }
}
