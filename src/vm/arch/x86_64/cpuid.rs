//! The CPUID of a guest's processor.

use anyhow::{Context, Result};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;

/// Returns what the host supports, as one processor with APIC ID 0 under a hypervisor.
pub fn guest_cpuid(kvm: &Kvm) -> Result<CpuId> {
    const HYPERVISOR: u32 = 1 << 31;
    const TSC_DEADLINE: u32 = 1 << 24;
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("reading the supported CPUID")?;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ecx |= HYPERVISOR | TSC_DEADLINE;
                // The initial APIC ID is 0, and there is one logical processor.
                entry.ebx = entry.ebx & 0x0000_ffff | 1 << 16;
            }
            0xb | 0x1f => entry.edx = 0,
            _ => {}
        }
    }
    Ok(cpuid)
}
