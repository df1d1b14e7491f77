//! Model-specific registers of a vCPU.

use anyhow::{Context, Result};
use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

pub fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

/// Reads an MSR, or returns `None` if the vCPU does not have it.
pub fn read_msr(vcpu: &VcpuFd, index: u32) -> Result<Option<u64>> {
    let mut msrs = Msrs::from_entries(&[entry(index, 0)]).context("listing MSRs")?;
    let count = vcpu
        .get_msrs(&mut msrs)
        .with_context(|| format!("reading MSR {index:#x}"))?;
    Ok((count == 1).then(|| msrs.as_slice()[0].data))
}

/// Sets MSRs; returns whether all of them could be set.
pub fn set_msrs(vcpu: &VcpuFd, entries: &[kvm_msr_entry]) -> Result<bool> {
    let msrs = Msrs::from_entries(entries).context("listing MSRs")?;
    let count = vcpu.set_msrs(&msrs).context("setting the MSRs")?;
    Ok(count == entries.len())
}
