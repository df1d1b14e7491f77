//! Guest memory: the RAM of one VM, and the runtime image that all VMs share.

use crate::units::PAGE;
use crate::vm::layout::{HIGH_RAM, LOW_RAM_END, RUNTIME, RUNTIME_ALIGNMENT};
use crate::vm::pages::{Pages, Usage};
use crate::vm::sigbus::{Backing, SigbusGuard};
use anyhow::{Context, Result, ensure};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::fs::File;
use std::os::fd::AsRawFd;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
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
    filled: Pages,
    /// The runtime image, apart from `ram`: no device accesses it, and writing to it would be
    /// fatal.
    runtime: MmapRegion,
}

impl Memory {
    /// Makes `size` bytes of fresh RAM, and maps the runtime image.
    pub fn new(size: u64, runtime: File) -> Result<Self> {
        Self::of(
            make_ram(size)?,
            Pages::default(),
            Vec::new(),
            map_runtime(runtime)?,
        )
    }

    /// Makes RAM that begins with the content of a saved one and keeps its own changes private.
    pub fn from_saved(saved: &SavedMemory, runtime: File) -> Result<Self> {
        let ram = make_ram(saved.size)?;
        let mut before = 0;
        for region in ram.iter() {
            map_saved(saved, region, before)?;
            before += region.len();
        }
        let file = (saved.file.clone(), saved.size);
        let filled = saved.filled.clone();
        Self::of(ram, filled, vec![file], map_runtime(runtime)?)
    }

    fn of(
        ram: GuestMemoryMmap,
        filled: Pages,
        mut files: Vec<Backing>,
        runtime: MmapRegion,
    ) -> Result<Self> {
        let image = runtime.file_offset().cloned();
        files.extend(image.map(|file| (file, runtime.size() as u64)));
        let mappings = ram.iter().map(|region| &**region).chain([&runtime]);
        Ok(Self {
            guard: SigbusGuard::over(mappings, files)?,
            ram,
            filled,
            runtime,
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

    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// Returns the pages of RAM that have been written to, for each region.
    pub fn written(&self) -> Result<Vec<Pages>> {
        self.ram
            .iter()
            .map(|region| Pages::written(region))
            .collect()
    }

    /// Returns the usage of RAM, to be counted once the guest has run.
    pub fn usage(&self) -> Result<Usage> {
        let regions = self.ram.iter().map(|region| &**region);
        Usage::new(regions, self.filled.clone())
    }

    /// Prepares the pages that another machine with the same memory wrote to.
    pub fn make_ready(&self, sets: &[Pages]) {
        for (region, set) in self.ram.iter().zip(sets) {
            set.make_ready(region);
        }
    }

    /// Returns the length of the range in which the guest sees the runtime image.
    pub fn runtime_size(&self) -> u64 {
        self.runtime.size() as u64
    }

    /// Returns `length` bytes at a guest-physical address. The runtime image can only be read.
    pub fn slice(&self, address: u64, length: usize, write: bool) -> Option<VolatileSlice<'_, ()>> {
        if address < RUNTIME {
            return self.ram.get_slice(GuestAddress(address), length).ok();
        }
        let offset = usize::try_from(address - RUNTIME).ok()?;
        (!write)
            .then(|| self.runtime.get_slice(offset, length).ok())
            .flatten()
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
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let mapping = map(MmapRegionBuilder::new(size), libc::PROT_WRITE, flags)?;
            ask_for_huge_pages(&mapping);
            GuestRegionMmap::new(mapping, start).context("guest memory at the end of the world")
        })
        .collect::<Result<_>>()?;
    GuestMemoryMmap::from_regions(regions).context("laying out guest memory")
}

/// Asks for huge pages: a program that fills much memory then takes one fault of the host's for 2
/// MiB instead of 4 KiB. A host without huge pages is merely slower.
fn ask_for_huge_pages(mapping: &MmapRegion) {
    // SAFETY: the range is the mapping's own, and the advice changes no content.
    unsafe {
        let start = mapping.as_ptr().cast();
        libc::madvise(start, mapping.size(), libc::MADV_HUGEPAGE);
    }
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
        let offset = i64::try_from(saved.file.start() + start)?;
        // SAFETY: the range is inside the region, which is ours alone, and nothing refers to its
        // content yet.
        let mapped = unsafe {
            libc::mmap(
                region.as_ptr().add((start - before) as usize).cast(),
                (end - start) as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED,
                saved.file.file().as_raw_fd(),
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping a template");
        }
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
    let mapping = map(builder, 0, libc::MAP_SHARED | libc::MAP_NORESERVE)?;
    ask_for_huge_pages(&mapping);
    Ok(mapping)
}

fn map(builder: MmapRegionBuilder, write: i32, flags: i32) -> Result<MmapRegion> {
    builder
        .with_mmap_prot(libc::PROT_READ | write)
        .with_mmap_flags(flags)
        .build()
        .map_err(|error| match error {
            // This keeps the I/O error itself in the chain, so that `host::shortage` can find its
            // errno.
            MmapRegionError::Mmap(error) => error.into(),
            error => anyhow::Error::from(error),
        })
        .context("mapping guest memory")
}
