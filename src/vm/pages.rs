//! Sets of pages: what of a saved memory holds anything, and what a run writes to.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vm_memory::MmapRegion;
use vm_memory::VolatileMemory;

pub const PAGE: usize = 4096;
/// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;

/// Pages as runs: first page, number of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages(Vec<(u32, u32)>);

impl Pages {
    /// Adds a page behind all others; with what lies between if that is less than `gap` pages.
    pub fn add(&mut self, page: u32, gap: u32) {
        match self.0.last_mut() {
            Some((first, count)) if page < *first + *count + gap => *count = page - *first + 1,
            _ => self.0.push((page, 1)),
        }
    }

    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }

    /// Those of a private mapping that have been written to: what a run will write to was recorded
    /// when its template was made, and is made ready at once in each clone, since a page at a time
    /// costs an exit or two each.
    pub fn written(mapping: &MmapRegion) -> Result<Self> {
        /// Copying a few pages for nothing is cheaper than one more system call.
        const GAP: u32 = 4;
        let pagemap = File::open("/proc/self/pagemap").context("opening the page map")?;
        let mut entries = vec![0; mapping.len() / PAGE * 8];
        let first = mapping.as_ptr() as usize / PAGE;
        pagemap
            .read_exact_at(&mut entries, first as u64 * 8)
            .context("reading the page map")?;
        let mut set = Self::default();
        for (page, entry) in (0..).zip(entries.chunks_exact(8)) {
            let entry = entry
                .iter()
                .rev()
                .fold(0, |value, &byte| value << 8 | u64::from(byte));
            // Not a file's page, so a copy.
            if entry & PRESENT != 0 && entry & FILE == 0 {
                set.add(page, GAP);
            }
        }
        Ok(set)
    }

    /// Gives another mapping of the same file its own copies of these pages.
    pub fn make_ready(&self, mapping: &MmapRegion) {
        for (first, count) in self.runs() {
            let (start, length) = (first as usize * PAGE, count as usize * PAGE);
            if start + length > mapping.len() {
                continue;
            }
            // A host that does not know the advice (Linux before 5.14) is merely slower.
            // SAFETY: the range is inside the mapping, and populating it changes no content.
            unsafe {
                let start = mapping.as_ptr().add(start).cast();
                libc::madvise(start, length, libc::MADV_POPULATE_WRITE);
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::mmap::MmapRegionBuilder;
    use vm_memory::{Bytes, FileOffset};

    fn mapping(file: &File) -> MmapRegion {
        MmapRegionBuilder::new(64 * PAGE)
            .with_file_offset(FileOffset::new(file.try_clone().unwrap(), 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
            .build()
            .unwrap()
    }

    #[test]
    fn what_one_mapping_wrote_is_ready_in_the_next() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * PAGE as u64).unwrap();
        let first = mapping(&file);
        for page in [3, 4, 40] {
            first.get_slice(page * PAGE, 1).unwrap().copy_from(&[1u8]);
        }
        let set = Pages::written(&first).unwrap();
        assert_eq!(set.0, [(3, 2), (40, 1)]);
        let second = mapping(&file);
        set.make_ready(&second);
        assert_eq!(Pages::written(&second).unwrap(), set);
        let slice = second.get_slice(3 * PAGE, 1).unwrap();
        let byte: u8 = slice.read_obj(0).unwrap();
        assert_eq!(byte, 0, "the content is the file's");
    }
}
