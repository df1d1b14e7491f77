//! All that the cache keeps, of which what is too much is removed.

use crate::cache::{self, BOUND, Holders, Item, Removed, Share, Shelf, prune};
use crate::checkpoint::Checkpoints;
use crate::image::{Images, Imported};
use crate::packages;
use crate::template::{Key, Store};
use anyhow::Result;
use std::collections::BTreeSet;

/// Templates, of which those stay that checkpoints are saved against.
struct Templates {
    store: Store,
    bases: BTreeSet<Key>,
}

impl Shelf for Templates {
    fn items(&self) -> Result<Vec<Item>> {
        let mut items = self.store.items()?;
        for item in &mut items {
            let key = Key::parse(&item.name);
            item.is_needed = key.is_some_and(|key| self.bases.contains(&key));
        }
        Ok(items)
    }

    fn remove(&self, name: &str) -> Result<bool> {
        self.store.remove(name)
    }

    fn sweep(&self) -> Result<Removed> {
        self.store.sweep()
    }

    fn verify(&self, name: &str) -> Result<bool> {
        self.store.verify(name)
    }
}

/// Calls a function with all that is kept. Checkpoints stay, unless they are to be removed like the rest.
pub fn with_shelves<T>(
    are_checkpoints_kept: bool,
    act: impl FnOnce(&[&dyn Shelf]) -> Result<T>,
) -> Result<T> {
    let images = Images::open()?;
    let directory = cache::directory()?;
    // What was never needed is not made for this.
    let is_there = |name: &&str| directory.join(name).is_dir();
    let packages = Some("packages").filter(is_there);
    let packages = packages.and_then(|_| packages::Store::open().ok());
    let imported = Some("images").filter(is_there);
    let imported = imported.and_then(|_| Imported::open().ok());
    let checkpoints = checkpoints(are_checkpoints_kept)?;
    let templates = templates(checkpoints.as_ref())?;
    let mut shelves: Vec<&dyn Shelf> = vec![&templates, &images];
    shelves.extend(packages.as_ref().map(|packages| packages as &dyn Shelf));
    shelves.extend(imported.as_ref().map(|imported| imported as &dyn Shelf));
    shelves.extend(
        checkpoints
            .as_ref()
            .map(|checkpoints| checkpoints as &dyn Shelf),
    );
    act(&shelves)
}

/// Calls a function with all templates.
pub fn with_templates<T>(act: impl FnOnce(&[&dyn Shelf]) -> Result<T>) -> Result<T> {
    let templates = templates(checkpoints(true)?.as_ref())?;
    act(&[&templates])
}

fn checkpoints(are_kept: bool) -> Result<Option<Checkpoints>> {
    if !cache::directory()?.join("checkpoints").is_dir() {
        return Ok(None);
    }
    let checkpoints = Checkpoints::open()?;
    Ok(Some(match are_kept {
        true => checkpoints,
        false => checkpoints.unkept(),
    }))
}

fn templates(checkpoints: Option<&Checkpoints>) -> Result<Templates> {
    let kept = checkpoints.filter(|checkpoints| checkpoints.are_kept);
    Ok(Templates {
        store: Store::open()?,
        bases: kept
            .map(Checkpoints::bases)
            .transpose()?
            .unwrap_or_default(),
    })
}

/// Removes what was used least recently, if more is kept than may be: first of what a client holds, if
/// something was made for one.
pub fn keep_bound(share: Option<&Share>) -> Result<()> {
    with_shelves(true, |shelves| {
        if let Some(share) = share {
            Holders::beside(Store::open()?.directory()).keep_share(shelves, share)?;
        }
        prune(shelves, BOUND).map(drop)
    })
}
