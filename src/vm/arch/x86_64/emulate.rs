//! Completes the instructions that a software KVM cannot emulate in kernel mode. In native mode,
//! none of them comes before the mode is on.
//!
//! A hostile guest can raise these at will: each costs it an exit, and touches nothing but the
//! guest's own memory and registers.

use crate::outcome::Crash;
use crate::vm::arch::x86_64::exception::Exception;
use crate::vm::arch::x86_64::instruction::{Instruction, LENGTH_MAX, decode};
use crate::vm::arch::x86_64::paging::AddressSpace;
use crate::vm::arch::x86_64::xsave;
use crate::vm::end::RunError;
use crate::vm::memory::Memory;
use anyhow::{Context, Result};
use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, kvm_regs};
use kvm_ioctls::VcpuFd;

const USER: u8 = 3;
const BREAKPOINT: u8 = 3;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;

/// Completes the instruction at RIP. It is a crash if that cannot be completed.
pub fn complete(vcpu: &VcpuFd, memory: &Memory) -> Result<(), RunError> {
    let mut regs = vcpu.get_regs().context("reading the registers")?;
    let sregs = vcpu.get_sregs().context("reading the system registers")?;
    let space = AddressSpace::new(memory, sregs.cr3);
    let bytes = fetch(&space, regs.rip);
    let mask = regs.rdx << 32 | regs.rax & 0xffff_ffff;
    // User mode is native: an instruction that fails there is not for us, and must not write as the
    // kernel.
    let instruction = match sregs.cs.dpl {
        USER => None,
        _ => decode(&bytes, &regs),
    };
    let (length, done) = match instruction {
        Some(Instruction::Breakpoint { length }) => {
            inject(vcpu, BREAKPOINT, None)?;
            (length, Ok(()))
        }
        Some(Instruction::Wait { length }) => (length, Ok(())),
        Some(Instruction::Xsave { address, length }) => {
            (length, xsave::save(vcpu, &space, address, mask)?)
        }
        Some(Instruction::Xrstor { address, length }) => {
            (length, xsave::restore(vcpu, &space, address, mask)?)
        }
        None => return Err(crash(&regs, bytes).into()),
    };
    match done {
        Ok(()) => {
            regs.rip = regs.rip.wrapping_add(length);
            vcpu.set_regs(&regs).context("setting the registers")?;
        }
        Err(exception) => raise(vcpu, exception)?,
    }
    Ok(())
}

/// Explains an internal error of KVM's: usually it is the instruction at RIP, which neither KVM nor
/// this module can run.
pub fn explain(vcpu: &mut VcpuFd, memory: &Memory) -> Result<Crash> {
    let run = vcpu.get_kvm_run();
    // SAFETY: the vCPU came back for an internal error, with which KVM fills this member.
    let kind = unsafe { run.__bindgen_anon_1.internal.suberror };
    if kind != KVM_INTERNAL_ERROR_EMULATION {
        return Ok(Crash::Exit(format!("KVM internal error {kind}")));
    }
    let regs = vcpu.get_regs().context("reading the registers")?;
    let sregs = vcpu.get_sregs().context("reading the system registers")?;
    let space = AddressSpace::new(memory, sregs.cr3);
    let bytes = fetch(&space, regs.rip);
    Ok(crash(&regs, bytes))
}

fn crash(regs: &kvm_regs, instruction: Vec<u8>) -> Crash {
    Crash::Unsupported {
        rip: regs.rip,
        instruction,
    }
}

/// Reads the bytes at RIP, up to the greatest length of an instruction or the first unreadable
/// byte.
fn fetch(space: &AddressSpace, rip: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in (0..LENGTH_MAX as u64).map(|offset| rip.wrapping_add(offset)) {
        let mut byte = [0];
        if space.read(address, &mut byte).is_err() {
            break;
        }
        bytes.extend(byte);
    }
    bytes
}

fn raise(vcpu: &VcpuFd, exception: Exception) -> Result<()> {
    match exception {
        Exception::GeneralProtection => inject(vcpu, GENERAL_PROTECTION, Some(0)),
        Exception::Page(fault) => {
            let mut sregs = vcpu.get_sregs().context("reading the system registers")?;
            sregs.cr2 = fault.address;
            vcpu.set_sregs(&sregs)
                .context("setting the system registers")?;
            inject(vcpu, PAGE_FAULT, Some(fault.error_code))
        }
    }
}

fn inject(vcpu: &VcpuFd, vector: u8, error_code: Option<u32>) -> Result<()> {
    let mut events = vcpu.get_vcpu_events().context("reading the events")?;
    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = error_code.is_some().into();
    events.exception.error_code = error_code.unwrap_or(0);
    vcpu.set_vcpu_events(&events)
        .context("injecting an exception")
}
