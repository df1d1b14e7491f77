//! The user's cache directory, and the check that nobody else can have written a file in it.

use crate::error::{Error, Kind};
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Returns `$XDG_CACHE_HOME/sandbox` or `~/.cache/sandbox`, which only this user may enter. It is
/// created if it does not exist.
pub fn directory() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let Some(base) = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))
    else {
        return Err(unusable("there is no directory for the cache".into()));
    };
    own(base.join("sandbox"))
}

/// Returns a directory in [`directory`], which is as private.
pub fn subdirectory(name: &str) -> Result<PathBuf> {
    own(directory()?.join(name))
}

fn own(directory: PathBuf) -> Result<PathBuf> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|error| {
            let shown = directory.display();
            unusable(format!(
                "the cache directory {shown} cannot be made: {error}"
            ))
        })?;
    let metadata = directory
        .symlink_metadata()
        .with_context(|| format!("looking at the cache {}", directory.display()))?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        let shown = directory.display();
        return Err(unusable(format!(
            "the cache {shown} is not a directory of yours"
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))
            .context("making the cache private")?;
    }
    Ok(directory)
}

fn unusable(message: String) -> anyhow::Error {
    let remedy = "name a directory of yours for the cache: XDG_CACHE_HOME=DIRECTORY";
    Error::new(Kind::File, message, remedy).into()
}

/// The result of [`open_trusted`].
#[derive(Debug)]
pub enum Opened {
    /// The file, open for reading, and its size in bytes.
    Trusted(File, u64),
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
        None => Opened::Trusted(file, metadata.len()),
    })
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
    use nix::sys::stat::Mode;
    use nix::unistd::{geteuid, mkfifo};
    use std::os::unix::fs::{chown, symlink};
    use std::os::unix::net::UnixListener;

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
        assert!(matches!(opened, Opened::Trusted(_, 7)), "{opened:?}");
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

    #[test]
    fn a_file_that_is_not_there_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let opened = open_trusted(&directory.path().join("file")).unwrap();
        assert!(matches!(opened, Opened::Missing), "{opened:?}");
    }

    #[test]
    fn a_directory_becomes_private_and_a_link_to_one_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("a/b");
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        own(directory.clone()).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        let link = base.path().join("link");
        symlink(&directory, &link).unwrap();
        assert!(own(link).is_err());
    }
}
