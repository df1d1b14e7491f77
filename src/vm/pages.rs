//! Sets of pages: those of a saved memory that are not zero, and those that a run writes to.

use crate::units::PAGE;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
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

    /// Makes a set of these pages, and of gaps between them of less than `gap` pages.
    pub fn of(pages: &BTreeSet<u32>, gap: u32) -> Self {
        let mut set = Self::default();
        pages.iter().for_each(|&page| set.add(page, gap));
        set
    }

    /// Returns the pages that are not in another set.
    pub fn without(&self, other: &Self) -> Self {
        let others: BTreeSet<_> = other.indices().collect();
        let left = self.indices().filter(|page| !others.contains(page));
        Self::of(&left.collect(), 1)
    }

    /// Checks that the runs are in order, and that there are so many pages.
    pub fn are_within(&self, pages: u64) -> bool {
        let mut next = 0;
        self.runs().all(|(first, count)| {
            let is_behind = u64::from(first) >= next;
            next = u64::from(first) + u64::from(count);
            is_behind && next <= pages
        })
    }

    /// Returns the pages one by one.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        self.runs().flat_map(|(first, count)| first..first + count)
    }

    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().copied()
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
    /// The page map of each region of RAM.
    maps: Vec<Map>,
    filled: Pages,
}

impl Usage {
    pub fn new<'a>(regions: impl Iterator<Item = &'a MmapRegion>, filled: Pages) -> Result<Self> {
        Ok(Self {
            maps: regions.map(Map::of).collect::<Result<_>>()?,
            filled,
        })
    }

    /// Returns the used bytes.
    pub fn count(self) -> Result<u64> {
        let mut filled = self.filled.indices().peekable();
        let (mut used, mut before) = (0, 0);
        for map in self.maps {
            map.each_entry(|page, entry| {
                let was_filled = filled.next_if_eq(&(before + page)).is_some();
                used += u64::from(was_filled || is_copy(entry));
            })?;
            before += map.pages as u32;
        }
        Ok(used * PAGE as u64)
    }
}

/// A finder of the pages that a machine writes to. Like [`Usage`], it opens its files before the run.
pub struct Tracker(Vec<Map>);

impl Tracker {
    pub fn new<'a>(regions: impl Iterator<Item = &'a MmapRegion>) -> Result<Self> {
        regions.map(Map::of).collect::<Result<_>>().map(Self)
    }

    /// Calls a function with each page of a region, and whether it has been written to.
    pub fn each_page(&self, region: usize, mut act: impl FnMut(u32, bool)) -> Result<()> {
        let map = self.0.get(region).context("no such region of memory")?;
        map.each_entry(|page, entry| act(page, is_copy(entry)))
    }

    /// Returns the pages that have been written to, for each region.
    pub fn written(self) -> Result<Vec<BTreeSet<u32>>> {
        let written = (0..self.0.len()).map(|region| {
            let mut set = BTreeSet::new();
            self.each_page(region, |page, is_written| {
                if is_written {
                    set.insert(page);
                }
            })?;
            Ok(set)
        });
        written.collect()
    }
}

/// Checks that a page of a private mapping is not a file's page, so that it is a copy.
fn is_copy(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0
}

/// The page map of this process, from the first entry of a mapping on.
struct Map {
    file: File,
    first: u64,
    pages: usize,
}

impl Map {
    fn of(mapping: &MmapRegion) -> Result<Self> {
        Ok(Self {
            file: File::open("/proc/self/pagemap").context("opening the page map")?,
            first: (mapping.as_ptr() as usize / PAGE * ENTRY) as u64,
            pages: mapping.len() / PAGE,
        })
    }

    fn each_entry(&self, mut act: impl FnMut(u32, u64)) -> Result<()> {
        /// The number of entries read at once.
        const PIECE: usize = 8192;
        let mut bytes = vec![0; PIECE.min(self.pages) * ENTRY];
        for first in (0..self.pages).step_by(PIECE) {
            let bytes = &mut bytes[..PIECE.min(self.pages - first) * ENTRY];
            self.file
                .read_exact_at(bytes, self.first + (first * ENTRY) as u64)
                .context("reading the page map")?;
            let (entries, _) = bytes.as_chunks::<ENTRY>();
            for (page, entry) in (first as u32..).zip(entries) {
                act(page, u64::from_ne_bytes(*entry));
            }
        }
        Ok(())
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
    fn runs_that_overlap_or_leave_the_memory_are_not_within_it() {
        for (runs, sound) in [
            (vec![], true),
            (vec![(0, 3), (3, 1), (63, 1)], true),
            (vec![(0, 3), (2, 1)], false),
            (vec![(5, 1), (0, 1)], false),
            (vec![(64, 1)], false),
            (vec![(1, u32::MAX)], false),
            (vec![(u32::MAX, u32::MAX)], false),
        ] {
            assert_eq!(Pages(runs.clone()).are_within(64), sound, "{runs:?}");
        }
    }

    #[test]
    fn what_another_set_has_is_left_out() {
        let all = Pages(vec![(3, 4), (9, 1), (20, 2)]);
        let known = Pages(vec![(0, 4), (5, 1), (20, 9)]);
        assert_eq!(all.without(&known).0, [(4, 1), (6, 1), (9, 1)]);
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
        let written = |mapping| {
            let tracker = Tracker::new([mapping].into_iter()).unwrap();
            Pages::of(&tracker.written().unwrap().remove(0), 2)
        };
        let set = written(&first);
        assert_eq!(set.0, [(3, 2), (40, 1)]);
        let second = mapping(&file);
        set.make_ready(&second);
        assert_eq!(written(&second), set);
        let slice = second.get_slice(3 * PAGE, 1).unwrap();
        let byte: u8 = slice.read_obj(0).unwrap();
        assert_eq!(byte, 0, "the content is the file's");
    }
}
