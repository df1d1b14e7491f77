//! The services that a guest kernel gets from the host by hypercall ([`guest::hypercall`] has the
//! ABI).
//!
//! A byte of output that goes through a pipe, an agent and a socket takes the guest several
//! wake-ups, which are milliseconds where its kernel is emulated; a hypercall is as quick as any
//! exit.

use crate::clock::since_1970;
use crate::devices::Violation;
use crate::random;
use crate::vm::arch::x86_64::paging::{Access, AddressSpace, PageFault};
use crate::vm::buffer::Buffer;
use crate::vm::end::RunError;
use crate::vm::memory::Memory;
use guest::hypercall::{EXIT, FILES, INPUT, JOB, NO_FILES, RANDOM, STDIN, WRITE};
use kvm_bindings::{kvm_regs, kvm_sregs};
use vm_memory::VolatileSlice;

/// The most bytes handled in one request: the host holds them meanwhile, and a time limit must not
/// have to wait for long.
const HELD_MAX: u64 = 1 << 20;

/// The limits that the guest's kernel puts on the program when it gets the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// The bytes of the machine's memory that the program may not have.
    pub withheld: u64,
    /// The most processes and threads at once.
    pub pids: u32,
}

/// The host's side of the hypercalls that concern the program.
pub trait HypercallHandler {
    /// Takes bytes that were written to a standard stream, or to another stream of
    /// [`guest::stream`].
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation>;
    /// Returns the next piece of the job, at most `room` bytes and empty at its end. `None` means
    /// that there is no job yet, and the guest must be left as it is, asking for one.
    fn job(&mut self, room: usize) -> Option<Vec<u8>>;
    /// Returns the limits that come with the job.
    fn limits(&self) -> JobLimits;
    /// Returns the next piece of the program's files, at most `room` bytes and empty at their end.
    fn files(&mut self, room: usize) -> Vec<u8>;
    /// Notes that the files could not be made.
    fn no_files(&mut self, errno: u8);
    /// Notes that the program exits.
    fn exited(&mut self, status: u8);
    /// Notes that the program wants standard input.
    fn wants_stdin(&mut self);
    /// Returns what there is of standard input, at most `room` bytes.
    fn input(&mut self, room: usize) -> Vec<u8>;
    /// Checks whether the guest has its job, or is getting it.
    fn has_begun(&self) -> bool;
}

/// Does what the guest's registers ask for, and leaves the result in them. `buffer` moves to the
/// address that the guest announces; `unknown` counts requests for services that do not exist. Returns
/// whether the guest has its answer.
pub fn serve(
    regs: &mut kvm_regs,
    sregs: &kvm_sregs,
    memory: &Memory,
    handler: &mut impl HypercallHandler,
    buffer: &mut Buffer,
    unknown: &mut u64,
) -> Result<bool, RunError> {
    let space = AddressSpace::new(memory, sregs.cr3);
    let [service, operand, ..] = regs.rax.to_le_bytes();
    match service {
        RANDOM => {
            let length = regs.rcx.min(HELD_MAX);
            regs.rcx -= put(&space, regs.rdi, &random::bytes(length as usize)?);
        }
        WRITE => {
            let mut bytes = Vec::new();
            let length = regs.rcx.min(HELD_MAX);
            regs.rcx -= each_page(&space, regs.rsi, length, Access::Read, |page| {
                let start = bytes.len();
                bytes.resize(start + page.len(), 0);
                Ok(page.copy_to(&mut bytes[start..]))
            });
            if !memory.has_seen_loss() {
                handler.output(operand, &bytes)?;
            }
        }
        JOB => {
            buffer.move_to(regs.rsi);
            let is_first = !handler.has_begun();
            let Some(bytes) = handler.job(regs.rcx.min(HELD_MAX) as usize) else {
                return Ok(false);
            };
            let limits = handler.limits();
            regs.rcx -= put(&space, regs.rdi, &bytes);
            regs.rax = match is_first {
                true => since_1970().as_nanos() as u64,
                false => 0,
            };
            regs.rdi = limits.withheld;
            regs.rsi = limits.pids.into();
        }
        EXIT => handler.exited(operand),
        STDIN => handler.wants_stdin(),
        FILES => {
            let bytes = handler.files(regs.rcx.min(HELD_MAX) as usize);
            regs.rcx -= put(&space, regs.rdi, &bytes);
        }
        NO_FILES => handler.no_files(operand),
        INPUT => {
            let bytes = handler.input(regs.rcx.min(HELD_MAX) as usize);
            regs.rcx -= put(&space, regs.rdi, &bytes);
        }
        // Such a request has no effect.
        _ => *unknown += 1,
    }
    Ok(true)
}

/// Runs `step` on one page after the other; returns the number of bytes done until the end or a
/// fault.
fn each_page<'a>(
    space: &AddressSpace<'a>,
    address: u64,
    length: u64,
    access: Access,
    mut step: impl FnMut(VolatileSlice<'a, ()>) -> Result<usize, PageFault>,
) -> u64 {
    let mut done = 0;
    while done < length {
        let step = space
            .slice(address.wrapping_add(done), length - done, access)
            .and_then(&mut step);
        match step {
            Ok(count) => done += count as u64,
            Err(PageFault { .. }) => break,
        }
    }
    done
}

fn put(space: &AddressSpace, address: u64, bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    each_page(space, address, bytes.len() as u64, Access::Write, |page| {
        let (head, tail) = rest.split_at(page.len());
        page.copy_from(head);
        rest = tail;
        Ok(head.len())
    })
}
