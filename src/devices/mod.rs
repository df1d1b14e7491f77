//! The devices: a serial console, a virtio-vsock, and the interrupt controller between them
//! and the vCPU. Each gets an interrupt line and a byte sink; none knows KVM.
//!
//! The guest chooses most of the numbers here, so arithmetic on them says how overflow is handled, and
//! each index is checked.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod ioapic;
pub mod irq;
pub mod serial;
pub mod virtio_mmio;
pub mod vsock;

/// A violation of a device's rules by the guest, which ends the VM. The text says which rule it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl<T: std::fmt::Display> From<T> for Violation {
    fn from(error: T) -> Self {
        Self(error.to_string())
    }
}
