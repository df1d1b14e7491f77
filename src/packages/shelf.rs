//! What is kept of packages, as a shelf of the cache.

use crate::cache::{Item, Removed, Shelf, is_in_use};
use crate::fs::{BLOCK, remove, size_of_all};
use crate::packages::layer::{LABEL, LAYER, Label, MAKING};
use crate::packages::lock::Lock;
use crate::packages::staging;
use crate::packages::store::{DOWNLOADS, LAYERS, LOCK, PACKAGES, Store};
use crate::packages::wheel::digest;
use crate::record::Package;
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl Shelf for Store {
    fn items(&self) -> Result<Vec<Item>> {
        let (mut items, mut labels) = (Vec::new(), BTreeMap::new());
        for name in names(self.directory())? {
            if name.ends_with(LABEL)
                && let Some(label) = self.label(&name)?
            {
                labels.insert(label.digest.clone(), label);
            } else if name.ends_with(LOCK) {
                items.push(self.lock_item(&name)?);
            }
        }
        let layers = names(self.layers())?;
        for name in layers.iter().filter(|name| name.ends_with(LAYER)) {
            items.push(self.layer_item(name, &labels)?);
        }
        let downloads = self.downloads()?;
        let size = size_of_all(&downloads);
        if size > 0 {
            let metadata = downloads.metadata().context("looking at downloads")?;
            let about = "packages as they were downloaded";
            let item = item(
                PACKAGES,
                DOWNLOADS,
                size,
                metadata.mtime(),
                Ok(about.into()),
            );
            items.push(Item {
                is_spare: true,
                ..item
            });
        }
        Ok(items)
    }

    fn remove(&self, name: &str) -> Result<bool> {
        let path = self.item_path(name);
        if path.ends_with(DOWNLOADS) {
            // A uv that uses them now downloads again what it misses, or says that it does.
            return Ok(fs::remove_dir_all(&path).is_ok());
        }
        if is_in_use(&path) {
            return Ok(false);
        }
        let is_removed = remove(&path)?.is_some();
        if is_removed && name.ends_with(LAYER) {
            // What says which lock has it goes with it.
            self.sweep()?;
        }
        Ok(is_removed)
    }

    fn sweep(&self) -> Result<Removed> {
        let mut removed = staging::sweep(self.directory())?;
        let layers = names(self.layers())?;
        for name in names(self.directory())? {
            let path = self.directory().join(&name);
            let is_left = match self.label(&name) {
                _ if name.ends_with(MAKING) => is_free(&path),
                // The layer was removed.
                Ok(Some(label)) if name.ends_with(LABEL) => {
                    !layers.contains(&format!("{}{LAYER}", label.digest))
                }
                Ok(None) => name.ends_with(LABEL),
                _ => false,
            };
            if is_left && let Some(size) = remove(&path)? {
                removed.count += 1;
                removed.size += size;
            }
        }
        Ok(removed)
    }

    fn verify(&self, name: &str) -> Result<bool> {
        let layer = name
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(LAYER));
        let Some(layer) = layer else {
            return Ok(true);
        };
        let file = File::open(self.item_path(name)).context("opening a layer")?;
        Ok(digest(file).context("reading a layer")? == layer)
    }
}

impl Store {
    /// Returns the path of the thing with this name on the shelf.
    fn item_path(&self, name: &str) -> PathBuf {
        match name.split_once('/') {
            Some((LAYERS, name)) => self.layers().join(name),
            Some((_, name)) => self.directory().join(name),
            None => self.directory().join(name),
        }
    }

    fn lock_item(&self, name: &str) -> Result<Item> {
        let path = self.directory().join(name);
        let metadata = path.symlink_metadata().context("looking at a lock")?;
        let lock = fs::read_to_string(&path)
            .ok()
            .and_then(|text| Lock::parse(&text).ok());
        let about =
            lock.map(|lock| format!("which packages were chosen: {}", list(&lock.packages)));
        let about = about.ok_or_else(|| "it is not a lock".to_owned());
        Ok(item(
            PACKAGES,
            name,
            metadata.blocks() * BLOCK,
            metadata.mtime(),
            about,
        ))
    }

    fn layer_item(&self, name: &str, labels: &BTreeMap<String, Label>) -> Result<Item> {
        let path = self.layers().join(name);
        let metadata = path.symlink_metadata().context("looking at a layer")?;
        let label = labels.get(name.trim_end_matches(LAYER));
        let about = match label {
            Some(label) => format!("packages: {}", list(&label.packages)),
            None => "packages that no lock names".into(),
        };
        Ok(item(
            LAYERS,
            name,
            metadata.blocks() * BLOCK,
            metadata.mtime(),
            Ok(about),
        ))
    }
}

fn item(directory: &str, name: &str, size: u64, used: i64, about: Result<String, String>) -> Item {
    Item {
        name: format!("{directory}/{name}"),
        size,
        used,
        is_needed: false,
        is_spare: false,
        about,
    }
}

/// Names packages, in a few words.
fn list(packages: &[Package]) -> String {
    const SHOWN: usize = 6;
    let names = packages.iter().take(SHOWN);
    let names: Vec<_> = names
        .map(|it| format!("{} {}", it.name, it.version))
        .collect();
    match packages.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Checks whether no process holds the lock at this path.
fn is_free(path: &Path) -> bool {
    let file = File::options().write(true).open(path);
    file.is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok())
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.collect())
}
