//! The pages that a run uses, as one clone of a machine finds them for those that come later. Preparing a
//! page at a time costs each of them an exit or two for it.

use crate::vm::arch::x86_64::paging::AddressSpace;
use crate::vm::memory::Memory;
use crate::vm::pages::{Pages, Tracker};
use anyhow::Result;
use std::collections::BTreeSet;

/// A search for the pages that a guest writes to, and perhaps those that its process reads. A copy of
/// these is of use as well: KVM maps eight at a time of what it may let the guest write to.
pub struct Profile {
    written: Tracker,
    read: Option<Reads>,
}

/// A search for the pages that a process reads.
struct Reads {
    root: u64,
    /// Pages of its tables that are written to only to find out.
    tables: BTreeSet<u64>,
}

impl Profile {
    /// Begins before the guest runs. `root` is the address of the tables of the process whose reads
    /// are looked for.
    pub fn begin(written: Tracker, memory: &Memory, root: Option<u64>) -> Self {
        Self {
            written,
            read: root.map(|root| Reads {
                root,
                tables: AddressSpace::new(memory, root).forget_accesses(),
            }),
        }
    }

    /// Returns the pages, for each region of RAM.
    pub fn finish(self, memory: &Memory) -> Result<Vec<Pages>> {
        // Gaps are copied too: KVM stops at one when it maps what is near. Where reads count, there are
        // few pages, so that wider gaps cost little.
        let gap = match self.read {
            Some(_) => 4,
            None => 2,
        };
        let mut used = self.written.written()?;
        if let Some(Reads { root, tables }) = self.read {
            let accessed = AddressSpace::new(memory, root).accessed();
            let read = memory.pages_of(&accessed).into_iter();
            let tables = memory.pages_of(&tables).into_iter();
            for ((used, read), tables) in used.iter_mut().zip(read).zip(tables) {
                *used = &(&*used - &tables) | &read;
            }
        }
        Ok(used.iter().map(|pages| Pages::of(pages, gap)).collect())
    }
}
