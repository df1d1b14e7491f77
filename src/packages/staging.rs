//! The place in which packages are chosen and unpacked before anything of them is kept.

use crate::cache::{Removed, check_writable};
use crate::fs::{is_at, size_of_all};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The beginning of the names of stages.
const STAGE: &str = "stage-";

/// A directory that goes when this is dropped. That of a process that was killed is swept by another.
pub struct Stage {
    root: PathBuf,
    _held: Flock<File>,
}

impl Stage {
    /// Makes one in this directory of the cache.
    pub fn new(cache: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        check_writable(cache)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = cache.join(format!("{STAGE}{}-{number}", std::process::id()));
        let doing = || format!("making {}", root.display());
        loop {
            // Another process with this number may have left one, in another time or container.
            sweep_one(&root).with_context(doing)?;
            match DirBuilder::new().mode(0o700).create(&root) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.with_context(doing)?,
            }
            // Whoever sweeps may have been quicker.
            if let Some(held) = hold(&root)?
                && is_at(&held, &root).with_context(doing)?
            {
                return Ok(Self { root, _held: held });
            }
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What stays is swept later.
        fs::remove_dir_all(&self.root).unwrap_or_default();
    }
}

/// Removes the stages of processes that were killed.
pub fn sweep(cache: &Path) -> Result<Removed> {
    let mut removed = Removed::default();
    for entry in fs::read_dir(cache).with_context(|| format!("reading {}", cache.display()))? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(STAGE.as_bytes())
        {
            let swept = sweep_one(&entry.path())?;
            removed.count += swept.count;
            removed.size += swept.size;
        }
    }
    Ok(removed)
}

/// Removes the stage at this path, unless a process has it.
fn sweep_one(root: &Path) -> Result<Removed> {
    let Some(_held) = hold(root)? else {
        return Ok(Removed::default());
    };
    let size = size_of_all(root);
    let removed = Removed { count: 1, size };
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", root.display()))
        }
        _ => Ok(removed),
    }
}

/// Locks the stage at this path, if there is one and no process has it.
fn hold(root: &Path) -> Result<Option<Flock<File>>> {
    let file = match File::open(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("opening {}", root.display()))?,
    };
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_goes_with_its_process_and_those_that_were_left_are_swept() {
        let cache = tempfile::tempdir().unwrap();
        let stage = Stage::new(cache.path()).unwrap();
        fs::write(stage.path("file"), "content").unwrap();
        let left = cache.path().join("stage-1-0");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("file"), [1; 5000]).unwrap();
        let removed = sweep(cache.path()).unwrap();
        assert_eq!(removed.count, 1);
        assert!(removed.size >= 5000, "{removed:?}");
        assert!(stage.root().exists() && !left.exists());
        let root = stage.root().to_owned();
        drop(stage);
        assert!(!root.exists());
    }
}
