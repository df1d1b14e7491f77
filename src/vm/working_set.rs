//! Which pages a program's run touches: recorded once when its template is made, and made ready
//! at once in each clone, since a page at a time costs an exit or two each.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vm_memory::MmapRegion;
use vm_memory::VolatileMemory;

const PAGE: usize = 4096;
/// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;

/// Pages of one mapping, as runs: first page, number of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    read: Vec<(u32, u32)>,
    written: Vec<(u32, u32)>,
}

impl WorkingSet {
    /// What has been touched of a private mapping of a file, or of a shared one.
    pub fn of(mapping: &MmapRegion) -> Result<Self> {
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
            match (entry & PRESENT != 0, entry & FILE != 0) {
                (true, true) => add(&mut set.read, page, GAP),
                // A copy of its own.
                (true, false) => add(&mut set.written, page, 4),
                _ => {}
            }
        }
        Ok(set)
    }

    /// Makes the same pages of another mapping of the same file present, and those to be written
    /// its own.
    pub fn make_ready(&self, mapping: &MmapRegion) {
        for (runs, advice) in [
            (&self.written, libc::MADV_POPULATE_WRITE),
            (&self.read, libc::MADV_POPULATE_READ),
        ] {
            for &(first, count) in runs {
                let (start, length) = (first as usize * PAGE, count as usize * PAGE);
                if start + length > mapping.len() {
                    continue;
                }
                // SAFETY: the range is inside the mapping, and populating it changes no content.
                unsafe { libc::madvise(mapping.as_ptr().add(start).cast(), length, advice) };
            }
        }
    }
}

/// Pages that are made ready for nothing between two that are needed, at most: cheaper than
/// one more system call.
const GAP: u32 = 16;

fn add(runs: &mut Vec<(u32, u32)>, page: u32, gap: u32) {
    match runs.last_mut() {
        Some((first, count)) if page < *first + *count + gap => *count = page - *first + 1,
        _ => runs.push((page, 1)),
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
        let set = WorkingSet::of(&first).unwrap();
        assert_eq!(set.written, [(3, 2), (40, 1)]);
        let second = mapping(&file);
        set.make_ready(&second);
        assert_eq!(WorkingSet::of(&second).unwrap().written, set.written);
        let slice = second.get_slice(3 * PAGE, 1).unwrap();
        let byte: u8 = slice.read_obj(0).unwrap();
        assert_eq!(byte, 0, "the content is the file's");
    }
}
