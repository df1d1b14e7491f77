//! Operations on files that the standard library lacks.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bytes of a block in which a file's size on disk is counted, whatever the file system's block
/// size (stat(2)).
pub const BLOCK: u64 = 512;

/// Checks whether an open file is still the one at this path.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match path.symlink_metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file. Returns its bytes on disk, or `None` if somebody else has removed it already, or
/// if it is a directory, which cannot be ours.
pub fn remove(path: &Path) -> Result<Option<u64>> {
    let size = size_on_disk(path)?;
    match fs::remove_file(path) {
        Ok(()) => Ok(size.or(Some(0))),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}

/// Returns the bytes that a file takes on disk, or `None` if it does not exist.
pub fn size_on_disk(path: &Path) -> Result<Option<u64>> {
    match path.symlink_metadata() {
        Ok(metadata) => Ok(Some(metadata.blocks() * BLOCK)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
    }
}
