//! The directory of a run's files.

use crate::log::say;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A private directory for the files that a run leaves; removed when this is dropped.
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn create(path: PathBuf) -> Result<Self> {
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => say(&format!(
                "{} cannot be removed: {error}",
                self.path.display()
            )),
        }
    }
}
