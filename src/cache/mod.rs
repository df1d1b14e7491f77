//! The user's cache directory: where it is, whose its files are, which of them are in use, and how much
//! of them is kept.
//!
//! What is kept is on a [`Shelf`] for each kind of thing, and all kinds share one bound.

mod bound;
mod trusted;

pub use bound::{BOUND, Holders, Item, Removed, SHARE, Share, Shelf, prune};
pub use trusted::{Opened, is_in_use, mark_used, open_trusted};

use crate::error::{Error, Kind};
use crate::fs::make_private;
use anyhow::Result;
use nix::unistd::{AccessFlags, access};
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
    make_private(&directory).map_err(|why| unusable(format!("the cache directory {why}")))?;
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

/// Waits until a condition holds that depends on who holds a lock: a process that another test has just
/// started holds what it inherited until it runs its program.
#[cfg(test)]
pub fn wait_until(mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < end, "somebody holds it still");
        std::thread::yield_now();
    }
}
