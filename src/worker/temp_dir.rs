//! A private directory that lasts as long as this process. If a process was killed, the next one
//! removes its directory.

use crate::clock::since_1970;
use crate::log::say;
use crate::random;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::getuid;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

pub struct TempDir {
    path: PathBuf,
    /// The lock that shows that the directory is in use.
    _lock: Flock<File>,
}

impl TempDir {
    /// Makes a directory whose name begins with this, and removes those that other processes left by such
    /// names: nothing else may have one.
    pub fn create(prefix: &str) -> Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent, prefix);
        // Its name is short, since the paths of sockets in it must be.
        let id = random::unguessable_id()?;
        let path = parent.join(format!("{prefix}{}", &id[..16]));
        let create = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            File::open(&path)
        };
        let file = create().with_context(|| format!("making {}", path.display()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            say(&format!(
                "{} cannot be removed: {error}",
                self.path.display()
            ));
        }
    }
}

/// Removes the directories that nobody uses any more. It does not matter if that fails.
fn sweep(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix)
            && is_abandoned(&entry.path()).unwrap_or(false)
        {
            fs::remove_dir_all(entry.path()).unwrap_or_default();
        }
    }
}

/// Checks whether a directory is this user's, is older than the time it takes to lock a new one,
/// and is not locked.
fn is_abandoned(path: &Path) -> Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    let age = since_1970()
        .as_secs()
        .saturating_sub(metadata.mtime() as u64);
    if !metadata.is_dir() || metadata.uid() != getuid().as_raw() || age <= 60 {
        return Ok(false);
    }
    match Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(_lock) => Ok(true),
        Err((_, Errno::EWOULDBLOCK)) => Ok(false),
        Err((_, errno)) => Err(errno.into()),
    }
}
