//! Guest memory: the RAM of one VM, the runtime image that all VMs share, and layers in windows.

use crate::units::PAGE;
use crate::vm::layer::Window;
use crate::vm::layout::{HIGH_RAM, LOW_RAM_END, RUNTIME, RUNTIME_ALIGNMENT};
use crate::vm::mapping::{ANONYMOUS, map, map_over};
use crate::vm::own_pages::{self, Restored};
use crate::vm::pages::{Pages, Tracker, Usage};
use crate::vm::sigbus::{Backing, SigbusGuard};
use anyhow::{Context, Result, ensure};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::collections::BTreeSet;
use std::fs::File;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice,
};

/// RAM in a file.
pub struct SavedMemory {
    /// The file, and the offset at which the RAM begins.
    pub file: FileOffset,
    /// The size of RAM in bytes, and so of this part of the file.
    pub size: u64,
    /// The pages that are not zero.
    pub filled: Pages,
}

/// The memory of one VM.
///
/// Fields drop in this order: the guarded mappings must outlive the guard.
pub struct Memory {
    guard: SigbusGuard,
    ram: GuestMemoryMmap,
    /// The pages of `ram` that were not zero from the start.
    restored: Restored,
    /// The runtime image, apart from `ram`: no device accesses it, and writing to it would be
    /// fatal.
    runtime: MmapRegion,
    windows: Vec<Window>,
}

impl Memory {
    /// Makes `size` bytes of fresh RAM, and maps the runtime image.
    pub fn new(size: u64, runtime: File, windows: Vec<Window>) -> Result<Self> {
        Self::of(
            make_ram(size)?,
            Restored::default(),
            Vec::new(),
            map_runtime(runtime)?,
            windows,
        )
    }

    /// Makes RAM that begins with the content of a saved one, perhaps with other pages over it, and keeps its
    /// own changes private.
    pub fn from_saved(
        saved: &SavedMemory,
        over: Option<&SavedMemory>,
        runtime: File,
        windows: Vec<Window>,
    ) -> Result<Self> {
        let ram = make_ram(saved.size)?;
        let mut files = Vec::new();
        for saved in std::iter::once(saved).chain(over) {
            let mut before = 0;
            for region in ram.iter() {
                map_saved(saved, region, before)?;
                before += region.len();
            }
            files.push((saved.file.clone(), saved.size));
        }
        let restored = Restored {
            filled: saved.filled.clone(),
            over: over.map(|over| over.filled.clone()).unwrap_or_default(),
        };
        Self::of(ram, restored, files, map_runtime(runtime)?, windows)
    }

    fn of(
        ram: GuestMemoryMmap,
        restored: Restored,
        mut files: Vec<Backing>,
        runtime: MmapRegion,
        windows: Vec<Window>,
    ) -> Result<Self> {
        let image = runtime.file_offset().cloned();
        files.extend(image.map(|file| (file, runtime.size() as u64)));
        files.extend(
            windows
                .iter()
                .flat_map(|window| window.files.iter().cloned()),
        );
        let mappings = ram.iter().map(|region| &**region).chain([&runtime]);
        let mappings = mappings.chain(windows.iter().map(|window| &window.mapping));
        Ok(Self {
            guard: SigbusGuard::over(mappings, files)?,
            ram,
            restored,
            runtime,
            windows,
        })
    }

    /// Checks whether some of the memory is lost, because its file was cut short.
    pub fn is_lost(&self) -> bool {
        self.guard.is_lost()
    }

    /// Checks whether this process touched a lost page, so that it read bytes that were never the
    /// guest's.
    pub fn has_seen_loss(&self) -> bool {
        self.guard.has_seen_loss()
    }

    /// Returns the bytes of RAM.
    pub fn size(&self) -> u64 {
        self.ram.iter().map(|region| region.len()).sum()
    }

    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// Returns what finds the pages of RAM that are written to.
    pub fn tracker(&self) -> Result<Tracker> {
        Tracker::new(self.ram.iter().map(|region| &**region))
    }

    /// Writes the pages that are this memory's own, and not its file's, to another file, in which it begins
    /// at this offset. Returns which they are.
    pub fn write_own(&self, tracker: &Tracker, file: &mut File, offset: u64) -> Result<Pages> {
        let own = own_pages::find(tracker, &self.ram, &self.restored)?;
        own_pages::write(&own, &self.ram, file, offset)?;
        Ok(own)
    }

    /// Returns the usage of RAM, to be counted once the guest has run.
    pub fn usage(&self) -> Result<Usage> {
        let regions = self.ram.iter().map(|region| &**region);
        Usage::new(regions, self.restored.filled.clone())
    }

    /// Prepares the pages that other machines with the same memory used.
    pub fn make_ready(&self, working_sets: &[Vec<Pages>]) {
        for sets in working_sets {
            for (region, set) in self.ram.iter().zip(sets) {
                set.make_ready(region);
            }
        }
    }

    /// Returns which of these physical addresses are in RAM, as pages of each region.
    pub fn pages_of(&self, addresses: &BTreeSet<u64>) -> Vec<BTreeSet<u32>> {
        let regions = self.ram.iter().map(|region| {
            let start = region.start_addr().0;
            let inside = addresses.range(start..start + region.len());
            inside
                .map(|address| ((address - start) / PAGE as u64) as u32)
                .collect()
        });
        regions.collect()
    }

    /// Returns the length of the range in which the guest sees the runtime image.
    pub fn runtime_size(&self) -> u64 {
        self.runtime.size() as u64
    }

    /// Returns `length` bytes at a guest-physical address. The runtime image and layers can only be
    /// read.
    pub fn slice(&self, address: u64, length: usize, write: bool) -> Option<VolatileSlice<'_, ()>> {
        if address < RUNTIME {
            return self.ram.get_slice(GuestAddress(address), length).ok();
        }
        if write {
            return None;
        }
        let found = self.windows.iter().find_map(|window| {
            let offset = window.offset(address)?;
            Some((&window.mapping, offset))
        });
        let (mapping, offset) = match found {
            Some(found) => found,
            None => (&self.runtime, usize::try_from(address - RUNTIME).ok()?),
        };
        mapping.get_slice(offset, length).ok()
    }

    /// Registers the memory with the VM.
    pub fn register(&self, vm: &VmFd) -> Result<()> {
        let mut slots = Vec::new();
        for region in self.ram.iter() {
            slots.push((region.start_addr(), region.len(), region.as_ptr(), 0));
        }
        let runtime = &self.runtime;
        slots.push((
            GuestAddress(RUNTIME),
            self.runtime_size(),
            runtime.as_ptr(),
            KVM_MEM_READONLY,
        ));
        for window in &self.windows {
            let (size, host) = (window.mapping.size() as u64, window.mapping.as_ptr());
            slots.push((GuestAddress(window.start), size, host, KVM_MEM_READONLY));
        }
        for (slot, (guest, size, host, flags)) in (0..).zip(slots) {
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: guest.raw_value(),
                memory_size: size,
                userspace_addr: host as u64,
            };
            // SAFETY: the mapping lives as long as `self`, which the VM owns beside `vm`,
            // and slots do not overlap.
            unsafe { vm.set_user_memory_region(region) }.with_context(|| {
                format!("giving the guest its memory at {:#x}", guest.raw_value())
            })?;
        }
        Ok(())
    }
}

/// Makes RAM, which has a hole below 4 GiB for devices.
fn make_ram(size: u64) -> Result<GuestMemoryMmap> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![(GuestAddress(0), low as usize)];
    if size > low {
        ranges.push((GuestAddress(HIGH_RAM), (size - low) as usize));
    }
    let regions = ranges
        .into_iter()
        .map(|(start, size)| {
            let mapping = map(MmapRegionBuilder::new(size), libc::PROT_WRITE, ANONYMOUS)?;
            GuestRegionMmap::new(mapping, start).context("guest memory beyond the last address")
        })
        .collect::<Result<_>>()?;
    GuestMemoryMmap::from_regions(regions).context("laying out guest memory")
}

/// Maps the pages of a file that are not zero into a region that `before` bytes of RAM precede. The
/// others stay anonymous: each hole in the file would cost a page of the page cache, and on a file
/// system in memory even grow the file.
fn map_saved(saved: &SavedMemory, region: &GuestRegionMmap, before: u64) -> Result<()> {
    for (first, count) in saved.filled.runs() {
        let start = (u64::from(first) * PAGE as u64).max(before);
        let end = (u64::from(first) + u64::from(count)) * PAGE as u64;
        let end = end.min(before + region.len());
        if start >= end {
            continue;
        }
        let file = FileOffset::from_arc(saved.file.arc().clone(), saved.file.start() + start);
        map_over(region, start - before, end - start, &file, true)?;
    }
    Ok(())
}

/// Maps the runtime image, shared and read-only: one copy in the host's page cache serves all VMs.
fn map_runtime(image: File) -> Result<MmapRegion> {
    let size = image
        .metadata()
        .context("looking at the runtime image")?
        .len();
    ensure!(
        size > 0 && size.is_multiple_of(RUNTIME_ALIGNMENT),
        "the runtime image is {size} bytes long, not a multiple of {RUNTIME_ALIGNMENT}"
    );
    let builder = MmapRegionBuilder::new(size as usize).with_file_offset(FileOffset::new(image, 0));
    map(builder, 0, libc::MAP_SHARED | libc::MAP_NORESERVE)
}
