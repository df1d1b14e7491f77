//! The interrupt controllers, and the check of a vCPU's interrupt flag.

use crate::devices::ioapic::PINS;
use crate::vm::host::Family;
use crate::vm::memory::Memory;
use crate::vm::mode::Mode;
use crate::vm::native;
use anyhow::{Context, Result};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{VcpuFd, VmFd};

/// Makes KVM emulate the local APIC and leave the rest to us: a full irqchip makes memory slots or
/// teardown wait for a grace period, milliseconds each.
pub fn split_irqchip(vm: &VmFd) -> Result<()> {
    let mut capability = kvm_enable_cap {
        cap: KVM_CAP_SPLIT_IRQCHIP,
        ..Default::default()
    };
    capability.args[0] = PINS as u64;
    vm.enable_cap(&capability).context("making a split irqchip")
}

/// Checks whether the guest has interrupts on. On any software KVM it may have switched native mode
/// on, and then has its flag in memory.
pub fn are_on(vcpu: &VcpuFd, memory: &Memory, mode: Mode) -> Result<bool> {
    const RFLAGS_IF: u64 = 1 << 9;
    let cell = match mode.family() {
        Family::Software => native::cell(vcpu)?,
        Family::Hardware => None,
    };
    match cell {
        Some(address) => Ok(native::has_interrupts_on(memory, address)),
        None => {
            let regs = vcpu.get_regs().context("reading the registers")?;
            Ok(regs.rflags & RFLAGS_IF != 0)
        }
    }
}
