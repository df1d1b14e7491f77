//! Operations on files that the standard library lacks.

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::geteuid;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
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

/// Makes a file in memory with this content, which is read from its beginning.
pub fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"content", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Has the kernel begin to write to disk what is in a file so far, so that fsync(2) has less to wait for.
pub fn begin_sync(file: &File) {
    // What does not begin now begins with fsync(2), which tells of errors.
    // SAFETY: sync_file_range(2) takes numbers only.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Makes a directory that only this user may enter, if it is not there. The error is a clause that begins
/// with its name.
pub fn make_private(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|error| format!("{shown} cannot be made: {error}"))?;
    let metadata = directory.symlink_metadata();
    let metadata = metadata.map_err(|error| format!("{shown} cannot be looked at: {error}"))?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        return Err(format!("{shown} is not a directory of yours"));
    }
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))
        .map_err(|error| format!("{shown} cannot be made private: {error}"))
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

/// Returns the bytes on disk of all in a directory, as far as they can be counted.
pub fn size_of_all(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of_all(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_becomes_private_and_a_link_to_one_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("a/b");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        make_private(&directory).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        let link = base.path().join("link");
        symlink(&directory, &link).unwrap();
        assert!(make_private(&link).is_err());
    }
}
