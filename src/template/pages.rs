//! Memory as pages, most of which are zero, and its digest.

use crate::units::{HUGE_PAGE, PAGE};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) fn is_zero(page: &[u8; PAGE]) -> bool {
    *page == [0; PAGE]
}

/// A SHA-256 over index (u64, little-endian) and content of every page that is not zero, so that
/// holes cost nothing.
#[derive(Default)]
pub(super) struct Digest(Sha256);

impl Digest {
    /// Adds a page. Pages come in ascending order; zero pages may be left out.
    pub fn add(&mut self, index: u64, page: &[u8; PAGE]) {
        if !is_zero(page) {
            self.0.update(index.to_le_bytes());
            self.0.update(page);
        }
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// Computes the digest of the memory in a file: `size` bytes from `offset`, both multiples of
/// [`PAGE`].
pub(super) fn digest(file: &File, offset: u64, size: u64) -> Result<[u8; 32]> {
    let (mut digest, end) = (Digest::default(), offset + size);
    let mut at = offset;
    while let Some(data) = seek(file, at, Whence::SeekData)?.filter(|&data| data < end) {
        let hole = seek(file, data, Whence::SeekHole)?.unwrap_or(end);
        // A file system's blocks may be smaller than pages.
        let from = data - data % PAGE as u64;
        let to = hole.next_multiple_of(PAGE as u64).min(end);
        add_range(&mut digest, file, offset, from.max(at)..to)?;
        at = to;
    }
    Ok(digest.finish())
}

fn add_range(
    digest: &mut Digest,
    file: &File,
    offset: u64,
    mut range: std::ops::Range<u64>,
) -> Result<()> {
    let mut buffer = vec![0; HUGE_PAGE.min((range.end - range.start) as usize)];
    while !range.is_empty() {
        let length = buffer.len().min((range.end - range.start) as usize);
        file.read_exact_at(&mut buffer[..length], range.start)
            .context("reading the memory of a template")?;
        let (pages, _) = buffer[..length].as_chunks();
        for (index, page) in ((range.start - offset) / PAGE as u64..).zip(pages) {
            digest.add(index, page);
        }
        range.start += length as u64;
    }
    Ok(())
}

/// Returns the offset of the next data or hole from here on, or `None` past the end.
fn seek(file: &File, from: u64, what: Whence) -> Result<Option<u64>> {
    match lseek(file, i64::try_from(from)?, what) {
        Ok(offset) => Ok(Some(u64::try_from(offset)?)),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno).context("looking for holes in a template"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_zeroes_count_as_a_hole() {
        let pages = [[1; PAGE], [0; PAGE], [2; PAGE]];
        let (written, sparse) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let (mut digest, mut at) = (Digest::default(), PAGE as u64);
        sparse.set_len(4 * PAGE as u64).unwrap();
        for (index, page) in (0..).zip(&pages) {
            digest.add(index, page);
            written.write_all_at(page, at).unwrap();
            if !is_zero(page) {
                sparse.write_all_at(page, at).unwrap();
            }
            at += PAGE as u64;
        }
        let expected = digest.finish();
        for file in [written, sparse] {
            let found = super::digest(&file, PAGE as u64, 3 * PAGE as u64).unwrap();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn where_a_page_is_counts() {
        let of = |index| {
            let mut digest = Digest::default();
            digest.add(index, &[1; PAGE]);
            digest.finish()
        };
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn a_memory_longer_than_a_chunk_is_read_to_its_end() {
        let file = tempfile::tempfile().unwrap();
        let size = HUGE_PAGE as u64 + 3 * PAGE as u64;
        let mut digest = Digest::default();
        for index in 0..size / PAGE as u64 {
            let page = [index as u8; PAGE];
            digest.add(index, &page);
            file.write_all_at(&page, index * PAGE as u64).unwrap();
        }
        assert_eq!(super::digest(&file, 0, size).unwrap(), digest.finish());
    }
}
