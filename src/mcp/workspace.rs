//! The directory of a run's files.

use crate::files::{Get, Put, PutContent};
use crate::log::say;
use crate::mcp::tool::arguments::File;
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A private directory for the files that a run leaves; removed when this is dropped.
pub struct Workspace {
    path: PathBuf,
}

/// Returns what is put into a guest of the files that a call has.
pub fn puts(files: &[File]) -> Vec<Put> {
    let given = files.iter().filter_map(|file| {
        Some(Put {
            content: PutContent::Given(file.content.clone()?),
            guest: Some(file.path.clone().into()),
        })
    });
    given.collect()
}

impl Workspace {
    /// Returns what is fetched to here of the files that a call has.
    pub fn gets(&self, files: &[File]) -> Vec<Get> {
        let fetched = files.iter().enumerate().filter(|(_, file)| file.is_fetched);
        let gets = fetched.map(|(number, file)| Get {
            guest: file.path.clone().into(),
            host: Some(self.path.join(format!("get-{number}"))),
        });
        gets.collect()
    }

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
