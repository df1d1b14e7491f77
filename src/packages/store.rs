//! Locks that are kept in the cache, so that what was chosen once is not chosen again.

use crate::cache::{self, Opened, mark_used, open_trusted};
use crate::key::Key;
use crate::packages::lock::Lock;
use crate::packages::staging::Stage;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The directories of the cache: of locks and downloads, and of layers.
pub const PACKAGES: &str = "packages";
pub const LAYERS: &str = "layers";
/// The ending of the names of locks.
pub const LOCK: &str = ".lock";
/// The directory of what uv downloaded.
pub const DOWNLOADS: &str = "downloads";

/// The part of the cache that has to do with packages.
pub struct Store {
    directory: PathBuf,
    layers: PathBuf,
}

impl Store {
    pub fn open() -> Result<Self> {
        Ok(Self {
            directory: cache::subdirectory(PACKAGES)?,
            layers: cache::subdirectory(LAYERS)?,
        })
    }

    /// Makes one in a directory of a test's.
    #[cfg(test)]
    pub fn at(cache: &Path) -> Self {
        let [directory, layers] = [PACKAGES, LAYERS].map(|name| cache.join(name));
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(&layers).unwrap();
        Self { directory, layers }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn layers(&self) -> &Path {
        &self.layers
    }

    /// Makes a place to choose and unpack packages in.
    pub fn stage(&self) -> Result<Stage> {
        Stage::new(&self.directory)
    }

    /// Returns the directory of what was downloaded.
    pub fn downloads(&self) -> Result<PathBuf> {
        let directory = self.directory.join(DOWNLOADS);
        fs::create_dir_all(&directory)
            .with_context(|| format!("making {}", directory.display()))?;
        Ok(directory)
    }

    /// Finds the lock for a request to this index. One that must not be used, or does not read, is as none.
    pub fn find(&self, request: &Key, index: &str) -> Result<Option<Lock>> {
        let path = self.path(request, index);
        let opened = open_trusted(&path).with_context(|| format!("opening {}", path.display()))?;
        let Opened::Trusted(mut file, metadata) = opened else {
            return Ok(None);
        };
        mark_used(&file, metadata.mtime());
        let mut text = String::new();
        let lock = match file.read_to_string(&mut text) {
            Ok(_) => Lock::parse(&text).ok(),
            Err(_) => None,
        };
        Ok(lock.filter(|lock| lock.request.as_ref() == Some(request)))
    }

    /// Keeps the lock for a request to this index.
    pub fn keep(&self, stage: &Stage, index: &str, request: &Key, lock: &Lock) -> Result<()> {
        self.put(stage, &name(request, index), &lock.text)
    }

    /// Writes a file that nobody changes any more: another process finds all of it or nothing.
    pub fn put(&self, stage: &Stage, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        let doing = || format!("writing {}", path.display());
        let draft = stage.path("draft");
        let mut options = File::options();
        let options = options.write(true).create_new(true).mode(0o400);
        let mut file = options.open(&draft).with_context(doing)?;
        file.write_all(text.as_bytes()).with_context(doing)?;
        file.sync_all().with_context(doing)?;
        fs::rename(&draft, &path).with_context(doing)
    }

    fn path(&self, request: &Key, index: &str) -> PathBuf {
        self.directory.join(name(request, index))
    }
}

/// Returns the name of the lock for a request to this index.
fn name(request: &Key, index: &str) -> String {
    let key = Key::of(&[request.as_str().as_bytes(), index.as_bytes()]);
    format!("{key}{LOCK}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::fixture::lock;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_lock_that_was_kept_is_found_until_somebody_touches_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path());
        let (request, other) = (Key::of(&[b"one"]), Key::of(&[b"two"]));
        assert_eq!(store.find(&request, "index").unwrap(), None);
        store
            .keep(&store.stage().unwrap(), "index", &request, &lock(&request))
            .unwrap();
        assert_eq!(store.find(&request, "index").unwrap(), Some(lock(&request)));
        assert_eq!(store.find(&other, "index").unwrap(), None);
        fs::rename(store.path(&request, "index"), store.path(&other, "index")).unwrap();
        assert_eq!(
            store.find(&other, "index").unwrap(),
            None,
            "it is of another request"
        );
        store
            .keep(&store.stage().unwrap(), "index", &request, &lock(&request))
            .unwrap();
        fs::set_permissions(store.path(&request, "index"), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            store.find(&request, "index").unwrap(),
            None,
            "it can be written to"
        );
        fs::write(store.path(&request, "index"), "half a li").unwrap();
        fs::set_permissions(store.path(&request, "index"), Permissions::from_mode(0o400)).unwrap();
        assert_eq!(
            store.find(&request, "index").unwrap(),
            None,
            "it does not read"
        );
    }
}
