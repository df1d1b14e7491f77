//! Sets of pages: those of a saved memory that are not zero, and those that a run writes to.

use crate::units::PAGE;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use vm_memory::MmapRegion;
use vm_memory::VolatileMemory;

/// The bytes of an entry of /proc/PID/pagemap.
const ENTRY: usize = 8;
/// Bits of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;

/// A set of pages, as runs: the first page and the number of pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages(Vec<(u32, u32)>);

impl Pages {
    /// Adds a page behind all others. A gap before it of less than `gap` pages is added too.
    pub fn add(&mut self, page: u32, gap: u32) {
        match self.0.last_mut() {
            Some((first, count)) if page < *first + *count + gap => *count = page - *first + 1,
            _ => self.0.push((page, 1)),
        }
    }

    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
    }

    /// Returns the pages of a private mapping that have been written to. They are recorded when a
    /// template is made and prepared at once in each clone, since preparing a page at a time costs
    /// an exit or two for each.
    pub fn written(mapping: &MmapRegion) -> Result<Self> {
        /// Copying a few pages needlessly is cheaper than one more system call.
        const GAP: u32 = 4;
        let mut set = Self::default();
        each_entry(map_of(mapping)?, mapping.len() / PAGE, |page, entry| {
            if is_copy(entry) {
                set.add(page, GAP);
            }
        })?;
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

/// A counter of the pages of a machine's RAM that were ever used: those that its template had
/// filled, and those that were written to since. The files that it needs are opened before the run,
/// because a confined process opens nothing.
pub struct Usage {
    /// The page map of each region of RAM, with the region's number of pages.
    maps: Vec<(File, usize)>,
    filled: Pages,
}

impl Usage {
    pub fn new<'a>(regions: impl Iterator<Item = &'a MmapRegion>, filled: Pages) -> Result<Self> {
        let maps = regions.map(|region| Ok((map_of(region)?, region.len() / PAGE)));
        Ok(Self {
            maps: maps.collect::<Result<_>>()?,
            filled,
        })
    }

    /// Returns the used bytes.
    pub fn count(self) -> Result<u64> {
        let runs = self.filled.runs();
        let mut filled = runs
            .flat_map(|(first, count)| first..first + count)
            .peekable();
        let (mut used, mut before) = (0, 0);
        for (map, pages) in self.maps {
            each_entry(map, pages, |page, entry| {
                let was_filled = filled.next_if_eq(&(before + page)).is_some();
                used += u64::from(was_filled || is_copy(entry));
            })?;
            before += pages as u32;
        }
        Ok(used * PAGE as u64)
    }
}

/// Checks that a page of a private mapping is not a file's page, so that it is a copy.
fn is_copy(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0
}

/// Opens the page map of this process, at the first entry of a mapping.
fn map_of(mapping: &MmapRegion) -> Result<File> {
    let first = mapping.as_ptr() as usize / PAGE;
    let mut map = File::open("/proc/self/pagemap").context("opening the page map")?;
    map.seek(SeekFrom::Start(first as u64 * ENTRY as u64))
        .context("finding a place in the page map")?;
    Ok(map)
}

fn each_entry(mut map: File, pages: usize, mut act: impl FnMut(u32, u64)) -> Result<()> {
    /// The number of entries read at once.
    const PIECE: usize = 8192;
    let mut bytes = vec![0; PIECE.min(pages) * ENTRY];
    for first in (0..pages).step_by(PIECE) {
        let bytes = &mut bytes[..PIECE.min(pages - first) * ENTRY];
        map.read_exact(bytes).context("reading the page map")?;
        let (entries, _) = bytes.as_chunks::<ENTRY>();
        for (page, entry) in (first as u32..).zip(entries) {
            act(page, u64::from_ne_bytes(*entry));
        }
    }
    Ok(())
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
    fn what_was_filled_before_or_written_since_is_used() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * PAGE as u64).unwrap();
        let regions = [mapping(&file), mapping(&file)];
        let mut filled = Pages::default();
        for page in [3, 4, 70] {
            filled.add(page, 1);
        }
        let usage = Usage::new(regions.iter(), filled).unwrap();
        for (region, page) in [(0, 3), (0, 9), (1, 6), (1, 7)] {
            let slice = regions[region].get_slice(page * PAGE, 1).unwrap();
            slice.copy_from(&[1u8]);
        }
        // The used pages are 3, 4 and 9, and in the second region 6, which is page 70, and 7.
        assert_eq!(usage.count().unwrap(), 5 * PAGE as u64);
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
