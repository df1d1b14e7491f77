//! The runtime images in the cache, as a shelf of it.

use crate::cache::{self, Item, Removed, Shelf, is_in_use};
use crate::fs::{BLOCK, remove};
use crate::image::store;
use anyhow::Result;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The runtime images in the cache, each of which belongs to builds of one version.
pub struct Images(PathBuf);

impl Images {
    pub fn open() -> Result<Self> {
        cache::directory().map(Self)
    }
}

impl Shelf for Images {
    fn items(&self) -> Result<Vec<Item>> {
        // A build without a guest has no image.
        let ours = store::identity()
            .ok()
            .map(|(digest, _)| store::runtime_name(digest));
        let mut items = Vec::new();
        for (name, path) in store::files(&self.0, store::is_image)? {
            let metadata = path.symlink_metadata()?;
            let is_needed = ours.as_ref() == Some(&name);
            let version = if is_needed { "this" } else { "another" };
            items.push(Item {
                name,
                size: metadata.blocks() * BLOCK,
                used: metadata.mtime(),
                is_needed,
                is_spare: false,
                about: Ok(format!("the guest's programs, for {version} version")),
            });
        }
        Ok(items)
    }

    fn remove(&self, name: &str) -> Result<bool> {
        let _lock = store::lock(&self.0)?;
        let path = self.0.join(name);
        Ok(!is_in_use(&path) && remove(&path)?.is_some())
    }

    fn sweep(&self) -> Result<Removed> {
        let _lock = store::lock(&self.0)?;
        store::remove_unfinished(&self.0)
    }

    fn verify(&self, name: &str) -> Result<bool> {
        let (digest, _) = store::identity()?;
        if name != store::runtime_name(digest) {
            // Only its own build knows what it should be.
            return Ok(true);
        }
        let mut hash = Sha256::new();
        io::copy(&mut File::open(self.0.join(name))?, &mut hash)?;
        Ok(format!("{:x}", hash.finalize()) == digest)
    }
}
