//! A lock that lets only one builder of a template work at a time.

use crate::fs::{is_at, remove};
use crate::template::Key;
use crate::template::store::{DRAFT, LOCK, Store};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The right to build the template of a key. It ends when this is dropped or its process ends.
#[derive(Debug)]
pub struct Lock {
    pub(super) key: Key,
    path: PathBuf,
    _held: Flock<File>,
}

impl Store {
    /// Waits for the right to build this template. If somebody else has it, `waiting` is called
    /// first. Drafts that a killed builder left are removed.
    ///
    /// Any signal with a handler ends the wait with EINTR, unless the handler was installed with
    /// SA_RESTART or the signal is blocked.
    pub fn lock(&self, key: &Key, waiting: impl FnOnce()) -> Result<Lock> {
        let mut lock = self.acquire(key, FlockArg::LockExclusiveNonblock)?;
        if lock.is_none() {
            waiting();
            lock = self.acquire(key, FlockArg::LockExclusive)?;
        }
        let lock = lock.context("a lock that was waited for is not held")?;
        self.remove_drafts(key)?;
        Ok(lock)
    }

    /// Takes the lock, or returns `None` if somebody else holds it.
    pub(super) fn acquire(&self, key: &Key, how: FlockArg) -> Result<Option<Lock>> {
        let path = self.path(key, LOCK);
        let doing = || format!("locking {}", path.display());
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .with_context(doing)?;
            let held = match Flock::lock(file, how) {
                Ok(held) => held,
                Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
                Err((_, errno)) => return Err(errno).with_context(doing),
            };
            // If the file was pruned before it was locked, others lock the file that is there now.
            if is_at(&held, &path).with_context(doing)? {
                return Ok(Some(Lock {
                    key: key.clone(),
                    path,
                    _held: held,
                }));
            }
        }
    }

    /// Removes the drafts that a killed builder left. Returns their number and their bytes on disk.
    /// Only the holder of the lock may call it.
    pub(super) fn remove_drafts(&self, key: &Key) -> Result<(usize, u64)> {
        let (mut files, mut bytes) = (0, 0);
        for (owner, role, path) in self.files()? {
            if owner == *key
                && role.starts_with(DRAFT)
                && let Some(size) = remove(&path)?
            {
                files += 1;
                bytes += size;
            }
        }
        Ok((files, bytes))
    }
}

impl Lock {
    /// Removes the lock's file while the lock is still held, so that whoever waits for it starts
    /// again.
    pub(super) fn discard(self) -> Result<()> {
        remove(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
