//! Native mode: a software KVM's mode in which a guest's kernel runs natively, and the state that
//! it adds.

use crate::vm::arch::x86_64::msr::read_msr;
use crate::vm::memory::Memory;
use anyhow::{Result, ensure};
use kvm_ioctls::VcpuFd;
use vm_memory::Bytes;

/// The MSR with flags and the page of the cell that holds the interrupt flag; writing it switches
/// the mode on. It is in no list of MSRs. It holds all that the mode adds to a vCPU's state.
pub const MSR_VIF: u32 = 0x4b56_4d10;
const PAGE: u64 = !0xfff;

/// Returns [`MSR_VIF`] of a guest that has switched the mode on.
pub fn state(vcpu: &VcpuFd) -> Result<u64> {
    let state = read_msr(vcpu, MSR_VIF)?.unwrap_or(0);
    ensure!(
        state & PAGE != 0,
        "the guest's kernel has not switched native mode on"
    );
    Ok(state)
}

/// Returns the guest-physical address of the cell if the guest has switched the mode on. The guest
/// may choose any address.
pub fn cell(vcpu: &VcpuFd) -> Result<Option<u64>> {
    let page = read_msr(vcpu, MSR_VIF)?.unwrap_or(0) & PAGE;
    Ok((page != 0).then_some(page))
}

/// Checks the interrupt flag, which is the cell's first byte. If there is no memory at the cell, no
/// interrupt comes any more.
pub fn has_interrupts_on(memory: &Memory, cell: u64) -> bool {
    let flag = memory.slice(cell, 1, false);
    let flag = flag.and_then(|slice| slice.read_obj::<u8>(0).ok());
    flag.is_some_and(|flag| flag != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::layout::{LOW_RAM_END, RUNTIME, RUNTIME_ALIGNMENT};
    use vm_memory::GuestAddress;

    #[test]
    fn the_flag_is_read_where_the_guest_says_and_is_off_where_nothing_is() {
        const SIZE: u64 = 2 << 20;
        let runtime = tempfile::tempfile().unwrap();
        runtime.set_len(RUNTIME_ALIGNMENT).unwrap();
        let memory = Memory::new(SIZE, runtime, Vec::new()).unwrap();
        let last = SIZE - 0x1000;
        assert!(!has_interrupts_on(&memory, last));
        memory.ram().write_obj(1u8, GuestAddress(last)).unwrap();
        assert!(has_interrupts_on(&memory, last));
        let end = RUNTIME + RUNTIME_ALIGNMENT;
        for nowhere in [SIZE, LOW_RAM_END, RUNTIME - 0x1000, RUNTIME, end, PAGE] {
            assert!(!has_interrupts_on(&memory, nowhere), "{nowhere:#x}");
        }
    }
}
