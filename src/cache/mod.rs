//! The user's cache directory: where it is, whose its files are, which of them are in use, and how much
//! of them is kept.
//!
//! What is kept is on a [`Shelf`] for each kind of thing, and all kinds share one bound.

mod bound;
mod trusted;

pub use bound::{BOUND, Item, Removed, Shelf, prune};
pub use trusted::{Opened, is_in_use, mark_used, open_trusted};

use crate::error::{Error, Kind};
use anyhow::{Context, Result};
use nix::unistd::{AccessFlags, access};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
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
        let message =
            "there is no directory for the cache: neither XDG_CACHE_HOME nor HOME names one";
        return Err(unusable(message.into()));
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

/// Checks that files can be made in this directory of the cache, before there is work for one.
pub fn check_writable(directory: &Path) -> Result<()> {
    access(directory, AccessFlags::W_OK).map_err(|errno| {
        let shown = directory.display();
        unusable(format!(
            "the cache {shown} cannot be written to: {}",
            errno.desc()
        ))
    })
}

fn unusable(message: String) -> anyhow::Error {
    let remedy = "name a directory of yours for the cache: XDG_CACHE_HOME=DIRECTORY";
    Error::new(Kind::Cache, message, remedy).into()
}

/// Returns why nothing can be kept, if that is what this error says.
pub fn why_unusable(error: &anyhow::Error) -> Option<&Error> {
    error
        .downcast_ref::<Error>()
        .filter(|error| error.kind == Kind::Cache)
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
        own(directory.clone()).unwrap();
        assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
        let link = base.path().join("link");
        symlink(&directory, &link).unwrap();
        assert!(own(link).is_err());
    }
}
