//! The devices: a serial console, a virtio-vsock, and the interrupt controller between them
//! and the vCPU. Each gets an interrupt line and a byte sink; none knows KVM.
//!
//! The guest chooses most of the numbers here: arithmetic on them says what happens at its end,
//! and an index is checked.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

pub mod ioapic;
pub mod irq;
pub mod serial;
pub mod virtio_mmio;
pub mod vsock;

/// The guest broke a device's rules; the text says which. It ends the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(pub String);

impl<T: std::fmt::Display> From<T> for Violation {
    fn from(error: T) -> Self {
        Self(error.to_string())
    }
}
