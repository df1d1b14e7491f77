//! Output that the guest's kernel gathers in its memory, where a copy is cheaper than an exit
//! ([`guest::hypercall::buffer`]).
//!
//! The kernel asks the host to take the output when the buffer is full, when somebody may be
//! waiting for it, and before any other report. When a machine has stopped, for whatever reason,
//! the host takes the output unasked. A guest may write anything to the buffer: the only effect is
//! output, made of the guest's own bytes.

use crate::vm::memory::Memory;
use guest::hypercall::buffer::{HEADER, SIZE};
use guest::stream;
use vm_memory::Bytes;

/// The guest's output buffer, once the guest has announced it.
#[derive(Default)]
pub struct Buffer {
    address: Option<u64>,
}

impl Buffer {
    /// Sets the guest-physical address that the guest announced. 0 means that there is no buffer.
    pub fn move_to(&mut self, address: u64) {
        self.address = (address != 0).then_some(address);
    }

    /// Empties the buffer: returns the stream and the bytes held for it. The guest must not run
    /// meanwhile.
    pub fn take(&self, memory: &Memory) -> Option<(u8, Vec<u8>)> {
        let buffer = memory.slice(self.address?, SIZE, true)?;
        let [sent, filled, stream]: [u32; 3] = buffer.read_obj(0).ok()?;
        let stream = [stream::STDOUT, stream::STDERR]
            .into_iter()
            .find(|&known| u32::from(known) == stream)?;
        let length = filled.checked_sub(sent).filter(|&length| length > 0)?;
        let start = HEADER.checked_add(sent as usize)?;
        let held = buffer.subslice(start, length as usize).ok()?;
        // This must not come before the checks: the guest may claim more bytes than any host has.
        let mut bytes = vec![0; held.len()];
        held.copy_to(&mut bytes);
        buffer.write_obj(filled, 0).ok()?;
        Some((stream, bytes))
    }
}

#[cfg(test)]
mod tests;
