//! XSAVE64 and XRSTOR64 of the vCPU's state, in the standard format (Intel SDM 1, chapter 13).

use crate::vm::arch::x86_64::exception::Exception;
use crate::vm::arch::x86_64::paging::AddressSpace;
use anyhow::{Context, Result};
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;
use std::arch::x86_64::__cpuid_count;
use std::ops::Range;

/// The bytes of `struct kvm_xsave`, the largest area that this module handles.
const AREA: usize = 4096;
const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
/// The bytes of MXCSR and its mask.
const MXCSR: Range<usize> = 24..32;
const MXCSR_INITIAL: [u8; 4] = 0x1f80_u32.to_le_bytes();
const HEADER: Range<usize> = 512..576;
const XSTATE_BV: Range<usize> = 512..520;

/// Writes the components in `mask` to `address`.
pub fn save(
    vcpu: &VcpuFd,
    space: &AddressSpace,
    address: u64,
    mask: u64,
) -> Result<Result<(), Exception>> {
    let mask = mask & enabled(vcpu)?;
    let state = read_state(vcpu)?;
    let mut header = [0; 8];
    if let Err(fault) = space.read(address.wrapping_add(XSTATE_BV.start as u64), &mut header) {
        return Ok(Err(fault.into()));
    }
    let present = u64::from_le_bytes(header) & !mask | xstate_bv(&state) & mask;
    let mut parts: Vec<(Range<usize>, &[u8])> = regions(mask)
        .into_iter()
        .map(|range| (range.clone(), &state[range]))
        .collect();
    let present = present.to_le_bytes();
    parts.push((XSTATE_BV, &present));
    for (range, bytes) in parts {
        if let Err(fault) = space.write(address.wrapping_add(range.start as u64), bytes) {
            return Ok(Err(fault.into()));
        }
    }
    Ok(Ok(()))
}

/// Loads the components in `mask` from `address`; those that the header marks as absent get their
/// initial values.
pub fn restore(
    vcpu: &VcpuFd,
    space: &AddressSpace,
    address: u64,
    mask: u64,
) -> Result<Result<(), Exception>> {
    let mask = mask & enabled(vcpu)?;
    let mut state = read_state(vcpu)?;
    let mut header = [0; 8];
    if let Err(fault) = space.read(address.wrapping_add(XSTATE_BV.start as u64), &mut header) {
        return Ok(Err(fault.into()));
    }
    let wanted = u64::from_le_bytes(header);
    for range in regions(mask & wanted) {
        if let Err(fault) = space.read(address.wrapping_add(range.start as u64), &mut state[range])
        {
            return Ok(Err(fault.into()));
        }
    }
    initialize(&mut state, mask & !wanted);
    if mask & (SSE | AVX) != 0
        && let Err(fault) = space.read(address.wrapping_add(MXCSR.start as u64), &mut state[MXCSR])
    {
        return Ok(Err(fault.into()));
    }
    let mut present = xstate_bv(&state) & !mask | wanted & mask;
    if state[24..28] != MXCSR_INITIAL {
        // KVM takes MXCSR only together with the SSE registers; absent ones hold zeroes.
        present |= SSE;
    }
    state[HEADER].fill(0);
    state[XSTATE_BV].copy_from_slice(&present.to_le_bytes());
    if has_reserved_mxcsr(&state) {
        return Ok(Err(Exception::GeneralProtection));
    }
    write_state(vcpu, &state)?;
    Ok(Ok(()))
}

/// Checks the reserved bits of MXCSR: loading them is a general-protection fault (13.8.1), and KVM
/// refuses it.
fn has_reserved_mxcsr(state: &[u8; AREA]) -> bool {
    const MXCSR_MASK: u32 = 0xffff;
    let mxcsr = [state[24], state[25], state[26], state[27]];
    u32::from_le_bytes(mxcsr) & !MXCSR_MASK != 0
}

/// Sets the initial configuration of the legacy components (13.6); KVM knows that of the others.
fn initialize(state: &mut [u8; AREA], components: u64) {
    const FCW: u16 = 0x37f;
    for range in regions(components) {
        state[range].fill(0);
    }
    if components & X87 != 0 {
        state[..2].copy_from_slice(&FCW.to_le_bytes());
    }
}

/// Returns the bytes of the area that the components occupy, without the header.
fn regions(components: u64) -> Vec<Range<usize>> {
    let mut regions = Vec::new();
    if components & X87 != 0 {
        regions.extend([0..24, 32..160]);
    }
    if components & SSE != 0 {
        regions.push(160..416);
    }
    if components & (SSE | AVX) != 0 {
        regions.push(MXCSR);
    }
    for component in (2..63).filter(|bit| components & 1 << bit != 0) {
        // CPUID.(EAX=0DH, ECX=i): size in EAX, offset in EBX.
        let layout = __cpuid_count(0xd, component);
        let (start, size) = (layout.ebx as usize, layout.eax as usize);
        if start >= HEADER.end && start + size <= AREA {
            regions.push(start..start + size);
        }
    }
    regions
}

/// Returns XCR0, which has the enabled components.
fn enabled(vcpu: &VcpuFd) -> Result<u64> {
    let xcrs = vcpu.get_xcrs().context("reading XCR0")?;
    Ok(xcrs.xcrs[0].value)
}

fn xstate_bv(state: &[u8; AREA]) -> u64 {
    state[XSTATE_BV]
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn read_state(vcpu: &VcpuFd) -> Result<[u8; AREA]> {
    let xsave = vcpu.get_xsave().context("reading the FPU state")?;
    let mut bytes = [0; AREA];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(xsave.region) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Ok(bytes)
}

fn write_state(vcpu: &VcpuFd, bytes: &[u8; AREA]) -> Result<()> {
    let mut xsave = kvm_xsave::default();
    for (word, chunk) in xsave.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    // SAFETY: the area is 4096 bytes, all that KVM_SET_XSAVE reads unless a feature that needs
    // more was enabled with arch_prctl(2); we enable none.
    unsafe { vcpu.set_xsave(&xsave) }.context("setting the FPU state")
}
