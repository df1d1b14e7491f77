//! Guest-virtual addresses: the page walk of the processor (Intel SDM 3A, 4.5), for instructions
//! that we complete in its place. There are four levels; features that our kernel does not use are
//! a fault.

use crate::vm::memory::Memory;
use std::collections::BTreeSet;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

const PAGE: u64 = crate::units::PAGE as u64;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The bits of an index at each level, and the shift of the lowest level.
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
    /// The error code that is pushed with #PF (SDM 3A, 4.7).
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

    /// Returns the memory at `address`, up to the end of its page and at most `length` bytes. Marks
    /// the page accessed, or dirty, as the processor would.
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

    /// Marks all pages that a process can reach as not accessed. Returns the pages of its tables that
    /// say so.
    pub fn forget_accesses(&self) -> BTreeSet<u64> {
        let mut tables = BTreeSet::new();
        self.each_page(&mut |at, entry| {
            let forgotten = self.memory.ram().write_obj(entry & !ACCESSED, at);
            if forgotten.is_ok() {
                tables.insert(at.0 & ADDRESS);
            }
        });
        tables
    }

    /// Returns the pages that a process can reach and that are marked as accessed.
    pub fn accessed(&self) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        self.each_page(&mut |_, entry| {
            if entry & ACCESSED != 0 {
                pages.insert(entry & ADDRESS);
            }
        });
        pages
    }

    /// Calls a function with the place and the content of each entry for a page of RAM in the lower
    /// half of the addresses, except for those of huge pages. What the guest wrote there can name no
    /// more tables than there are pages of RAM.
    fn each_page(&self, act: &mut dyn FnMut(GuestAddress, u64)) {
        let half = 1 << (INDEX_BITS - 1);
        let mut tables = BTreeSet::from([self.root]);
        for level in (0..4u32).rev() {
            // What tables have in common is looked at once.
            let mut next = BTreeSet::new();
            for table in tables {
                let count = if level == 3 { half } else { 2 * half };
                for at in (0..count).map(|index| GuestAddress(table + index * 8)) {
                    let entry: u64 = self.memory.ram().read_obj(at).unwrap_or_default();
                    let page = GuestAddress(entry & ADDRESS);
                    if entry & PRESENT == 0 || !self.memory.ram().address_in_range(page) {
                        continue;
                    }
                    if level == 0 {
                        act(at, entry);
                    } else if entry & HUGE == 0 {
                        next.insert(page.0);
                    }
                }
            }
            tables = next;
        }
    }

    /// Walks the tables to a physical address. The error tells whether the page was present.
    fn walk(&self, address: u64, access: Access) -> Result<u64, bool> {
        if !is_canonical(address) {
            return Err(false);
        }
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

/// Checks that the bits that no table translates repeat the highest translated one (SDM 1,
/// 3.3.7.1).
fn is_canonical(address: u64) -> bool {
    const UNUSED_BITS: u32 = 64 - (PAGE_BITS + 4 * INDEX_BITS);
    (address << UNUSED_BITS) as i64 >> UNUSED_BITS == address as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 8 << 20;
    const ROOT: u64 = 0x1000;
    const PT: u64 = 0x4000;
    const RW: u64 = PRESENT | WRITABLE;

    /// Makes tables at 0x1000 to 0x4fff. They map virtual 0 by 4 KiB pages, which a test fills in,
    /// and virtual 2 MiB by one 2 MiB page at physical 4 MiB.
    fn memory() -> Memory {
        let runtime = tempfile::tempfile().unwrap();
        runtime.set_len(2 << 20).unwrap();
        let memory = Memory::new(SIZE, runtime, Vec::new()).unwrap();
        for (at, entry) in [
            (ROOT, 0x2000 | RW),
            (0x2000, 0x3000 | RW),
            (0x3000, PT | RW),
            (0x3008, 0x40_0000 | RW | HUGE),
        ] {
            set(&memory, at, entry);
        }
        memory
    }

    fn set(memory: &Memory, at: u64, entry: u64) {
        memory.ram().write_obj(entry, GuestAddress(at)).unwrap();
    }

    fn get(memory: &Memory, at: u64) -> u64 {
        memory.ram().read_obj(GuestAddress(at)).unwrap()
    }

    #[test]
    fn a_write_lands_in_its_page_and_marks_it() {
        let memory = memory();
        set(&memory, PT, 0x10_0000 | RW);
        let space = AddressSpace::new(&memory, ROOT);
        space.write(0x123, b"here").unwrap();
        assert_eq!(get(&memory, 0x10_0123) as u32, u32::from_le_bytes(*b"here"));
        assert_eq!(get(&memory, PT), 0x10_0000 | RW | ACCESSED | DIRTY);
        assert_eq!(get(&memory, ROOT), 0x2000 | RW | ACCESSED);
    }

    #[test]
    fn a_read_marks_no_page_dirty() {
        let memory = memory();
        set(&memory, PT, 0x10_0000 | RW);
        AddressSpace::new(&memory, ROOT)
            .read(0, &mut [0; 8])
            .unwrap();
        assert_eq!(get(&memory, PT), 0x10_0000 | RW | ACCESSED);
    }

    #[test]
    fn a_huge_page_maps_all_of_its_addresses() {
        let memory = memory();
        let space = AddressSpace::new(&memory, ROOT);
        space.write(0x20_0000 + 0x12_3ffe, b"across").unwrap();
        assert_eq!(get(&memory, 0x52_3ffe).to_le_bytes()[..6], *b"across");
    }

    #[test]
    fn a_fault_says_what_a_processor_says() {
        let memory = memory();
        set(&memory, PT, 0x10_0000 | PRESENT);
        let space = AddressSpace::new(&memory, ROOT);
        let fault = |address, error_code| PageFault {
            address,
            error_code,
        };
        assert_eq!(space.write(0x10, b"x"), Err(fault(0x10, 3)), "read-only");
        assert_eq!(space.write(0x1010, b"x"), Err(fault(0x1010, 2)), "absent");
        assert_eq!(space.read(0x1010, &mut [0]), Err(fault(0x1010, 0)));
    }

    #[test]
    fn a_write_that_faults_in_its_second_page_writes_nothing() {
        let memory = memory();
        set(&memory, PT, 0x10_0000 | RW);
        let space = AddressSpace::new(&memory, ROOT);
        assert_eq!(space.write(0xffe, b"across").unwrap_err().address, 0x1000);
        assert_eq!(get(&memory, 0x10_0ff8), 0);
    }

    #[test]
    fn only_small_pages_of_processes_are_found_again_once_accessed() {
        let memory = memory();
        for (at, entry) in [
            (PT, 0x10_0000 | RW | ACCESSED),
            (PT + 8, 0x11_0000 | PRESENT | ACCESSED),
            (PT + 16, 0x12_0000 | ACCESSED),
            (PT + 24, SIZE | RW | ACCESSED),
            // A table that is not in RAM.
            (0x2008, SIZE | RW),
            // The kernel's half.
            (ROOT + 511 * 8, 0x2000 | RW | ACCESSED),
        ] {
            set(&memory, at, entry);
        }
        let space = AddressSpace::new(&memory, ROOT);
        assert_eq!(space.accessed(), [0x10_0000, 0x11_0000].into());
        assert_eq!(space.forget_accesses(), [PT].into());
        assert_eq!(space.accessed(), [].into());
        space.read(0x1000, &mut [0]).unwrap();
        assert_eq!(space.accessed(), [0x11_0000].into());
    }

    #[test]
    fn an_address_beyond_what_tables_translate_is_not_another_one() {
        let memory = memory();
        set(&memory, PT, 0x10_0000 | RW);
        set(&memory, ROOT + 511 * 8, 0x2000 | RW);
        let space = AddressSpace::new(&memory, ROOT);
        for (address, mapped) in [
            (0, true),
            (1 << 48, false),
            (1 << 63, false),
            (0xffff_ff80_0000_0000, true),
            (0x0000_ff80_0000_0000, false),
        ] {
            assert_eq!(
                space.read(address, &mut [0]).is_ok(),
                mapped,
                "{address:#x}"
            );
        }
    }

    #[test]
    fn the_runtime_image_can_be_read_and_not_written() {
        let memory = memory();
        set(&memory, PT, crate::vm::layout::RUNTIME | RW);
        let space = AddressSpace::new(&memory, ROOT);
        assert_eq!(space.read(0, &mut [1; 8]), Ok(()));
        assert!(space.write(0, b"x").is_err());
    }

    proptest! {
        /// Tables of any content, anywhere, give a result and no access outside guest memory.
        #[test]
        fn any_tables_end_in_a_result(
            entries in proptest::collection::vec((0..0x5000u64 / 8, any::<u64>()), 0..64),
            root: u64,
            address: u64,
            near: bool,
        ) {
            let memory = memory();
            for (index, entry) in entries {
                set(&memory, index * 8, if near { (entry % SIZE) | RW } else { entry });
            }
            let space = AddressSpace::new(&memory, if near { ROOT } else { root });
            let address = if near { address % (1 << 30) } else { address };
            space.forget_accesses();
            space.accessed();
            if space.read(address, &mut [0; 100]).is_ok() {
                space.write(address, &[0; 100]).unwrap_or_default();
            }
        }
    }
}
