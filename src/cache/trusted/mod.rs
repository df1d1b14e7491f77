//! Files in the cache that nobody else can have written, and the marks of those that are used.

use crate::clock::since_1970;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// The time of last use is right to so many seconds, so that most uses write nothing.
const USE_GRAIN: i64 = 3600;

/// The result of [`open_trusted`].
#[derive(Debug)]
pub enum Opened {
    /// The file, open for reading.
    Trusted(File, Metadata),
    Missing,
    /// There is a file that must not be used, and why, as a clause about "it".
    Refused(&'static str),
}

/// Opens a file if nobody else can have written it, and nobody can by accident: it must be a
/// regular file of ours, unwritable and without a second name. An error is one of the system, not
/// of the file.
pub fn open_trusted(path: &Path) -> io::Result<Opened> {
    let opened = OpenOptions::new()
        .read(true)
        // The open must not wait: a FIFO would wait until somebody writes to it.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::ENOENT) => Ok(Opened::Missing),
                Some(libc::ELOOP) => Ok(Opened::Refused("it is a symbolic link")),
                Some(libc::ENXIO) => Ok(Opened::Refused("it is not a regular file")),
                Some(libc::EACCES) => Ok(Opened::Refused("it may not be read")),
                _ => Err(error),
            };
        }
    };
    let metadata = file.metadata()?;
    Ok(match distrust(&metadata) {
        Some(why) => Opened::Refused(why),
        None => Opened::Trusted(file, metadata),
    })
}

/// Marks a file as used now, for as long as it is open or mapped. `last` is when it was used before, in
/// seconds since 1970. A mark that cannot be made, as on a read-only file system, is not worth a failure.
pub fn mark_used(file: &File, last: i64) {
    // SAFETY: flock(2) takes a descriptor, which is open, and flags.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) };
    let now = since_1970();
    if now.as_secs() as i64 - last >= USE_GRAIN {
        file.set_modified(UNIX_EPOCH + now).unwrap_or_default();
    }
}

/// Checks whether a process has a file open that it [marked as used](mark_used), or may have.
pub fn is_in_use(path: &Path) -> bool {
    let Ok(Opened::Trusted(file, _)) = open_trusted(path) else {
        return false;
    };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

fn distrust(metadata: &Metadata) -> Option<&'static str> {
    if !metadata.is_file() {
        Some("it is not a regular file")
    } else if metadata.uid() != nix::unistd::geteuid().as_raw() {
        Some("it belongs to somebody else")
    } else if metadata.mode() & 0o222 != 0 {
        Some("it can be written to")
    // It may have no name at all, if another process has just put its own file in its place.
    } else if metadata.nlink() > 1 {
        Some("it has a second name")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
