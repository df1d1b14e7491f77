//! Guest memory: RAM of this VM alone, and the runtime image that all VMs share.

use super::working_set::WorkingSet;
use crate::layout::{HIGH_RAM, LOW_RAM_END, RUNTIME, RUNTIME_ALIGNMENT};
use anyhow::{Context, Result, ensure};
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::fs::File;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice,
};

/// The memory of one VM.
pub struct Memory {
    ram: GuestMemoryMmap,
    /// Kept apart from `ram`: devices have no business in it, and writing to it would be fatal.
    runtime: MmapRegion,
}

impl Memory {
    /// `size` bytes of fresh RAM, and the runtime image.
    pub fn new(size: u64, runtime: File) -> Result<Self> {
        Ok(Self {
            ram: make_ram(size, None)?,
            runtime: map_runtime(runtime)?,
        })
    }

    /// RAM that starts out as a part of a file and keeps what is written to it to itself.
    pub fn from_file(file: FileOffset, size: u64, runtime: File) -> Result<Self> {
        Ok(Self {
            ram: make_ram(size, Some(file))?,
            runtime: map_runtime(runtime)?,
        })
    }

    pub fn ram(&self) -> &GuestMemoryMmap {
        &self.ram
    }

    /// Which pages of RAM have been written to, region by region.
    pub fn working_sets(&self) -> Result<Vec<WorkingSet>> {
        self.ram
            .iter()
            .map(|region| WorkingSet::of(region))
            .collect()
    }

    /// Makes the pages ready that another machine with such a memory wrote to.
    pub fn make_ready(&self, sets: &[WorkingSet]) {
        for (region, set) in self.ram.iter().zip(sets) {
            set.make_ready(region);
        }
    }

    /// Length of the range in which the guest sees the runtime image.
    pub fn runtime_size(&self) -> u64 {
        self.runtime.size() as u64
    }

    /// `length` bytes at a guest-physical address. The runtime image is there for reading only.
    pub fn slice(&self, address: u64, length: usize, write: bool) -> Option<VolatileSlice<'_, ()>> {
        if address < RUNTIME {
            return self.ram.get_slice(GuestAddress(address), length).ok();
        }
        let offset = usize::try_from(address - RUNTIME).ok()?;
        (!write)
            .then(|| self.runtime.get_slice(offset, length).ok())
            .flatten()
    }

    /// Gives the memory to the VM.
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
            unsafe { vm.set_user_memory_region(region) }
                .with_context(|| format!("giving the guest its memory at {guest:?}"))?;
        }
        Ok(())
    }
}

/// RAM has a hole below 4 GiB for devices.
fn make_ram(size: u64, file: Option<FileOffset>) -> Result<GuestMemoryMmap> {
    let low = size.min(LOW_RAM_END);
    let mut ranges = vec![(GuestAddress(0), low as usize)];
    if size > low {
        ranges.push((GuestAddress(HIGH_RAM), (size - low) as usize));
    }
    let regions = ranges
        .into_iter()
        .scan(0, |offset, (start, size)| {
            let at = *offset;
            *offset += size as u64;
            Some((start, size, at))
        })
        .map(|(start, size, offset)| {
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
            let (builder, flags) = match &file {
                Some(file) => {
                    let part = FileOffset::from_arc(Arc::clone(file.arc()), file.start() + offset);
                    (MmapRegionBuilder::new(size).with_file_offset(part), flags)
                }
                None => (MmapRegionBuilder::new(size), flags | libc::MAP_ANONYMOUS),
            };
            let mapping = map(builder, libc::PROT_WRITE, flags)?;
            GuestRegionMmap::new(mapping, start).context("guest memory at the end of the world")
        })
        .collect::<Result<_>>()?;
    GuestMemoryMmap::from_regions(regions).context("laying out guest memory")
}

/// Shared and read-only: one copy in the host's page cache serves all VMs.
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

fn map(builder: MmapRegionBuilder, write: i32, flags: i32) -> Result<MmapRegion> {
    builder
        .with_mmap_prot(libc::PROT_READ | write)
        .with_mmap_flags(flags)
        .build()
        .context("mapping guest memory")
}
