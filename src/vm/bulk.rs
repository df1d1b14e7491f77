//! Bulk memory work for a guest kernel whose own instructions are emulated one at a time.
//!
//! On a software KVM, clearing a page takes the guest thousands of times longer than us. Our
//! kernel patch asks for it with an `out` to [`BULK_MEMORY_PORT`]: AL = 0 fills RCX bytes at
//! RDI with AH; AL = 1 copies RCX bytes from RSI to RDI. As with a string instruction, RDI and
//! RSI advance and RCX counts down. At a page that the kernel may not access as it is mapped we
//! stop, and the kernel goes on by itself and takes the fault.
//!
//! [`BULK_MEMORY_PORT`]: crate::layout::BULK_MEMORY_PORT

use super::memory::Memory;
use super::paging::{Access, AddressSpace, PageFault};
use anyhow::{Context, Result};
use kvm_bindings::kvm_regs;
use kvm_ioctls::VcpuFd;

const FILL: u8 = 0;
const COPY: u8 = 1;
/// Bytes done in one request at most, so that a time limit is never far away.
const REQUEST_MAX: u64 = 16 << 20;

/// Does what the guest's registers ask for.
pub fn serve(vcpu: &VcpuFd, memory: &Memory) -> Result<()> {
    let mut regs = vcpu.get_regs().context("reading the registers")?;
    let sregs = vcpu.get_sregs().context("reading the system registers")?;
    let space = AddressSpace::new(memory, sregs.cr3);
    let wanted = regs.rcx.min(REQUEST_MAX);
    let mut done = 0;
    while done < wanted {
        match step(&space, &regs, done, wanted - done) {
            Ok(count) => done += count,
            Err(PageFault { .. }) => break,
        }
    }
    regs.rcx -= done;
    regs.rdi = regs.rdi.wrapping_add(done);
    if regs.rax as u8 == COPY {
        regs.rsi = regs.rsi.wrapping_add(done);
    }
    vcpu.set_regs(&regs).context("setting the registers")
}

/// Does what lies in one page, or one pair of pages.
fn step(space: &AddressSpace, regs: &kvm_regs, done: u64, left: u64) -> Result<u64, PageFault> {
    let target = space.slice(regs.rdi.wrapping_add(done), left, Access::Write)?;
    let length = target.len() as u64;
    match regs.rax as u8 {
        FILL => {
            let value = (regs.rax >> 8) as u8;
            // SAFETY: a VolatileSlice is valid for writes of its length, and guest memory
            // holds plain bytes.
            unsafe {
                target
                    .ptr_guard_mut()
                    .as_ptr()
                    .write_bytes(value, target.len())
            };
            Ok(length)
        }
        COPY => {
            let source = space.slice(regs.rsi.wrapping_add(done), length, Access::Read)?;
            source.copy_to_volatile_slice(target);
            Ok(source.len() as u64)
        }
        // No such request: none of it is done.
        _ => Err(PageFault {
            address: 0,
            error_code: 0,
        }),
    }
}
