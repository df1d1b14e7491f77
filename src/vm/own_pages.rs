//! The pages of a machine's memory that are its own, and not those of the file that it was restored from.

use crate::units::PAGE;
use crate::vm::pages::{Pages, Tracker};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use vm_memory::{
    Bytes, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress,
};

/// The least gap between two runs of pages; what is in smaller ones is copied too.
const GAP: u32 = 16;
/// The most runs, each of which is a mapping in the machines that go on from them: a process may have 65,530.
const RUNS_MAX: u64 = 16 << 10;

/// Pages of the files that a machine's memory was restored from.
#[derive(Default)]
pub struct Restored {
    /// Those of its template that are not zero.
    pub filled: Pages,
    /// Those that took the place of some of these, as another machine's own.
    pub over: Pages,
}

/// Finds the pages that are not the template's. One of zeroes counts only where a file has another.
pub fn find(tracker: &Tracker, ram: &GuestMemoryMmap, restored: &Restored) -> Result<Pages> {
    let pages: u64 = ram.iter().map(|region| region.len() / PAGE as u64).sum();
    let gap = GAP.max((pages / RUNS_MAX) as u32);
    let mut filled = restored.filled.indices().peekable();
    let mut over = restored.over.indices().peekable();
    let (mut own, mut before) = (Pages::default(), 0);
    for (index, region) in ram.iter().enumerate() {
        tracker.each_page(index, |page, is_written| {
            let at = before + page;
            let is_filled = filled.next_if_eq(&at).is_some();
            let is_over = over.next_if_eq(&at).is_some();
            if is_over || is_written && (is_filled || !is_zero(region, page)) {
                own.add(at, gap);
            }
        })?;
        before += (region.len() / PAGE as u64) as u32;
    }
    Ok(own)
}

/// Checks whether a page is all zeroes. One that cannot be read is not.
fn is_zero(region: &GuestRegionMmap, page: u32) -> bool {
    let mut bytes = [0xff; PAGE];
    let at = MemoryRegionAddress(u64::from(page) * PAGE as u64);
    region.read_slice(&mut bytes, at).is_ok() && bytes == [0; PAGE]
}

/// Writes these pages to a file, in which the memory begins at this offset.
pub fn write(pages: &Pages, ram: &GuestMemoryMmap, file: &mut File, offset: u64) -> Result<()> {
    for (first, count) in pages.runs() {
        let start = u64::from(first) * PAGE as u64;
        let end = start + u64::from(count) * PAGE as u64;
        file.seek(SeekFrom::Start(offset + start))
            .context("finding a place for pages")?;
        let mut before = 0;
        for region in ram.iter() {
            let (from, to) = (start.max(before), end.min(before + region.len()));
            if from < to {
                let at = MemoryRegionAddress(from - before);
                region
                    .write_all_volatile_to(at, file, (to - from) as usize)
                    .context("writing pages")?;
            }
            before += region.len();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::memory::{Memory, SavedMemory};
    use std::os::unix::fs::FileExt;
    use vm_memory::{FileOffset, GuestAddress};

    const SIZE: u64 = 512 * PAGE as u64;

    fn memory(file: &File, filled: &Pages, over: Option<&SavedMemory>) -> Memory {
        let runtime = tempfile::tempfile().unwrap();
        runtime
            .set_len(crate::vm::layout::RUNTIME_ALIGNMENT)
            .unwrap();
        Memory::from_saved(&saved(file, filled), over, runtime, Vec::new()).unwrap()
    }

    fn saved(file: &File, filled: &Pages) -> SavedMemory {
        SavedMemory {
            file: FileOffset::new(file.try_clone().unwrap(), 0),
            size: SIZE,
            filled: filled.clone(),
        }
    }

    #[test]
    fn a_machine_that_goes_on_from_own_pages_has_the_same_memory() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        let mut filled = Pages::default();
        for page in [3, 4, 100, 200] {
            filled.add(page, 1);
            let offset = u64::from(page) * PAGE as u64;
            file.write_all_at(&[page as u8; PAGE], offset).unwrap();
        }
        let first = memory(&file, &filled, None);
        let tracker = first.tracker().unwrap();
        let page = |index: u64| GuestAddress(index * PAGE as u64);
        // A page that becomes empty, one that changes, new ones, and one that stays empty.
        for (index, byte) in [(4, 0), (100, 7), (120, 9), (511, 1), (300, 0)] {
            first.ram().write_slice(&[byte; PAGE], page(index)).unwrap();
        }
        let restored = Restored {
            filled: filled.clone(),
            over: Pages::default(),
        };
        let own = find(&tracker, first.ram(), &restored).unwrap();
        let runs: Vec<_> = own.runs().collect();
        assert_eq!(runs, [(4, 1), (100, 1), (120, 1), (511, 1)]);
        let mut target = tempfile::tempfile().unwrap();
        target.set_len(SIZE).unwrap();
        write(&own, first.ram(), &mut target, 0).unwrap();
        let second = memory(&file, &filled, Some(&saved(&target, &own)));
        for index in 0..512 {
            let mut pages = [[0; PAGE]; 2];
            first.ram().read_slice(&mut pages[0], page(index)).unwrap();
            second.ram().read_slice(&mut pages[1], page(index)).unwrap();
            assert_eq!(pages[0], pages[1], "page {index}");
        }
        // What a third one needs, though the second has not written to it.
        let restored = Restored {
            filled,
            over: own.clone(),
        };
        let tracker = second.tracker().unwrap();
        second.ram().write_slice(&[5; PAGE], page(400)).unwrap();
        let runs: Vec<_> = find(&tracker, second.ram(), &restored)
            .unwrap()
            .runs()
            .collect();
        assert_eq!(runs, [(4, 1), (100, 1), (120, 1), (400, 1), (511, 1)]);
    }
}
