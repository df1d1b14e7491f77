//! Guest-virtual addresses: the walk that the processor does (Intel SDM 3A, 4.5), for the
//! work that we complete in its place. Four levels; what our kernel does not use is a fault.

use super::memory::Memory;
use vm_memory::{Bytes, GuestAddress, VolatileSlice};

const PAGE: u64 = 4096;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits that an index has in each level, and the shift of the lowest.
const INDEX_BITS: u32 = 9;
const PAGE_BITS: u32 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// A supervisor access that the page tables do not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFault {
    pub address: u64,
    /// As pushed with #PF (SDM 3A, 4.7).
    pub error_code: u32,
}

/// Guest memory as the guest's kernel sees it.
pub struct AddressSpace<'a> {
    memory: &'a Memory,
    root: u64,
}

impl<'a> AddressSpace<'a> {
    pub fn new(memory: &'a Memory, cr3: u64) -> Self {
        Self {
            memory,
            root: cr3 & ADDRESS,
        }
    }

    /// Memory at `address`, up to the end of its page and at most `length` bytes.
    /// Marks the page accessed, or dirty, as the processor would.
    pub fn slice(
        &self,
        address: u64,
        length: u64,
        access: Access,
    ) -> Result<VolatileSlice<'a, ()>, PageFault> {
        let length = length.min(PAGE - address % PAGE);
        let fault = |present: bool| PageFault {
            address,
            error_code: u32::from(present) | u32::from(access == Access::Write) << 1,
        };
        let physical = self.walk(address, access).map_err(fault)?;
        self.memory
            .slice(physical, length as usize, access == Access::Write)
            .ok_or(fault(true))
    }

    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), PageFault> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let slice = self.slice(at, (bytes.len() - done) as u64, Access::Read)?;
            done += slice.copy_to(&mut bytes[done..]);
        }
        Ok(())
    }

    /// Writes all of `bytes`, or nothing.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), PageFault> {
        let mut slices = Vec::new();
        let mut mapped = 0;
        while mapped < bytes.len() {
            let at = address.wrapping_add(mapped as u64);
            let slice = self.slice(at, (bytes.len() - mapped) as u64, Access::Write)?;
            mapped += slice.len();
            slices.push(slice);
        }
        let mut rest = bytes;
        for slice in slices {
            let (head, tail) = rest.split_at(slice.len());
            slice.copy_from(head);
            rest = tail;
        }
        Ok(())
    }

    /// The error says whether the page was present.
    fn walk(&self, address: u64, access: Access) -> Result<u64, bool> {
        let mut table = self.root;
        for level in (0..4u32).rev() {
            let shift = PAGE_BITS + level * INDEX_BITS;
            let index = address >> shift & ((1 << INDEX_BITS) - 1);
            let at = GuestAddress(table + index * 8);
            let entry: u64 = self.memory.ram().read_obj(at).map_err(|_| false)?;
            if entry & PRESENT == 0 {
                return Err(false);
            }
            if access == Access::Write && entry & WRITABLE == 0 {
                return Err(true);
            }
            let leaf = level == 0 || (entry & HUGE != 0 && level <= 2);
            let marks = match (leaf, access) {
                (true, Access::Write) => ACCESSED | DIRTY,
                _ => ACCESSED,
            };
            if entry & marks != marks {
                let marked = entry | marks;
                self.memory.ram().write_obj(marked, at).map_err(|_| false)?;
            }
            if leaf {
                let offset = (1 << shift) - 1;
                return Ok(entry & ADDRESS & !offset | address & offset);
            }
            table = entry & ADDRESS;
        }
        Err(false)
    }
}
