//! Mappings of memory and files that a guest sees.

use crate::units::PAGE;
use anyhow::{Context, Result, ensure};
use std::os::fd::AsRawFd;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion};

/// Flags of memory that is of no file.
pub const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Makes a mapping that can be read, and asks for huge pages in it.
pub fn map(builder: MmapRegionBuilder, write: i32, flags: i32) -> Result<MmapRegion> {
    let mapping = builder
        .with_mmap_prot(libc::PROT_READ | write)
        .with_mmap_flags(flags)
        .build()
        .map_err(|error| match error {
            // This keeps the I/O error itself in the chain, so that `host::shortage` can find its
            // errno.
            MmapRegionError::Mmap(error) => error.into(),
            error => anyhow::Error::from(error),
        })
        .context("mapping guest memory")?;
    ask_for_huge_pages(&mapping);
    Ok(mapping)
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

/// Puts `length` bytes of a file into a mapping, from the offset `at` on: shared and read-only, or
/// with changes that stay private. Nothing may refer to the content that was there.
pub fn map_over(
    mapping: &MmapRegion,
    at: u64,
    length: u64,
    file: &FileOffset,
    is_private: bool,
) -> Result<()> {
    let is_aligned = |offset: u64| offset.is_multiple_of(PAGE as u64);
    let length = length.next_multiple_of(PAGE as u64);
    let end = at.checked_add(length);
    ensure!(
        is_aligned(at)
            && is_aligned(file.start())
            && end.is_some_and(|end| end <= mapping.size() as u64),
        "{length} bytes of a file do not lie in a mapping at {at:#x}"
    );
    let (protection, flags) = match is_private {
        true => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
        false => (libc::PROT_READ, libc::MAP_SHARED),
    };
    // SAFETY: the range is inside the mapping, which is ours alone, and nothing refers to its
    // content.
    let mapped = unsafe {
        libc::mmap(
            mapping.as_ptr().add(at as usize).cast(),
            length as usize,
            protection,
            flags | libc::MAP_NORESERVE | libc::MAP_FIXED,
            file.file().as_raw_fd(),
            i64::try_from(file.start())?,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error()).context("mapping a file for a guest");
    }
    Ok(())
}
