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
mod tests {
    use super::*;
    use crate::cache::wait_until;
    use nix::sys::stat::Mode;
    use nix::unistd::{geteuid, mkfifo};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::time::Duration;
    use vm_memory::{FileOffset, mmap::MmapRegion};

    fn file(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("file");
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[track_caller]
    fn assert_refused(path: &Path, why: &str) {
        let opened = open_trusted(path).unwrap();
        assert!(
            matches!(opened, Opened::Refused(given) if given == why),
            "{opened:?}"
        );
    }

    #[test]
    fn an_unwritable_file_of_ours_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open_trusted(&file(directory.path(), 0o400)).unwrap();
        assert!(
            matches!(&opened, Opened::Trusted(_, it) if it.len() == 7),
            "{opened:?}"
        );
    }

    #[test]
    fn a_file_that_anybody_may_write_is_refused() {
        for mode in [0o600, 0o420, 0o402] {
            let directory = tempfile::tempdir().unwrap();
            assert_refused(&file(directory.path(), mode), "it can be written to");
        }
    }

    #[test]
    fn links_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o400);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_refused(&link, "it is a symbolic link");
        fs::remove_file(&link).unwrap();
        fs::hard_link(&path, &link).unwrap();
        assert_refused(&link, "it has a second name");
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_refused(directory.path(), "it is not a regular file");
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        assert_refused(&fifo, "it is not a regular file");
        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_refused(&socket, "it is not a regular file");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        if !geteuid().is_root() {
            return; // nobody else may give files away
        }
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o400);
        chown(&path, Some(1), None).unwrap();
        assert_refused(&path, "it belongs to somebody else");
    }

    fn open(path: &Path) -> (File, Metadata) {
        match open_trusted(path).unwrap() {
            Opened::Trusted(file, metadata) => (file, metadata),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_is_in_use_while_it_is_open_or_mapped_after_a_mark() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o400);
        let (opened, metadata) = open(&path);
        assert!(!is_in_use(&path));
        mark_used(&opened, metadata.mtime());
        assert!(is_in_use(&path));
        let mapping = MmapRegion::<()>::build(
            Some(FileOffset::new(opened, 0)),
            4096,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
        );
        assert!(is_in_use(&path));
        drop(mapping);
        wait_until(|| !is_in_use(&path));
        assert!(!is_in_use(&directory.path().join("nothing")));
    }

    #[test]
    fn the_time_of_use_is_written_once_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o400);
        for (age, is_written) in [(59, false), (61, true)] {
            let before = UNIX_EPOCH + since_1970() - Duration::from_secs(age * 60);
            open(&path).0.set_modified(before).unwrap();
            let (opened, metadata) = open(&path);
            mark_used(&opened, metadata.mtime());
            let after = path.metadata().unwrap().modified().unwrap();
            assert_eq!(after > before, is_written, "{age} minutes");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open_trusted(&directory.path().join("file")).unwrap();
        assert!(matches!(opened, Opened::Missing), "{opened:?}");
    }
}
