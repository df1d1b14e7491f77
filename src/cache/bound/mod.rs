//! The bound on what the cache keeps: what is spare is removed first, then what was used least recently.

mod share;

pub use share::{Holders, SHARE, Share};

use anyhow::Result;

/// The most bytes on disk that the cache keeps by itself: the packages of `@data` fit, with what was
/// downloaded of them and a machine that has them.
pub const BOUND: u64 = 4 << 30;

/// A kind of things in the cache.
pub trait Shelf {
    /// Lists the things.
    fn items(&self) -> Result<Vec<Item>>;
    /// Removes the thing of this name, unless it is being made or in use. Returns whether it did.
    fn remove(&self, name: &str) -> Result<bool>;
    /// Removes what killed processes left.
    fn sweep(&self) -> Result<Removed>;
    /// Checks whether the thing of this name is still what was written.
    fn verify(&self, name: &str) -> Result<bool>;
}

/// A thing in the cache.
#[derive(Debug)]
pub struct Item {
    pub name: String,
    /// The bytes on disk.
    pub size: u64,
    /// When it was last used, in seconds since 1970, to the hour.
    pub used: i64,
    /// Every run of this build needs it, so it stays.
    pub is_needed: bool,
    /// All that was made of it is there without it, so it goes first.
    pub is_spare: bool,
    /// Its purpose, or the reason why it must not be used.
    pub about: Result<String, String>,
}

/// The number and size of the items that were removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    pub count: usize,
    /// The bytes on disk.
    pub size: u64,
}

/// Removes what killed processes left, and then things until the rest takes at most so many bytes on
/// disk. What is in use stays, and so may be more.
pub fn prune(shelves: &[&dyn Shelf], most: u64) -> Result<Removed> {
    let (mut removed, mut items) = (Removed::default(), Vec::new());
    for shelf in shelves {
        let swept = shelf.sweep()?;
        removed.count += swept.count;
        removed.size += swept.size;
        items.extend(shelf.items()?.into_iter().map(|item| (shelf, item)));
    }
    let mut size: u64 = items.iter().map(|(_, item)| item.size).sum();
    items.sort_by_key(|(_, item)| (!item.is_spare, item.used));
    for (shelf, item) in items {
        if size > most && !item.is_needed && shelf.remove(&item.name)? {
            size -= item.size;
            removed.count += 1;
            removed.size += item.size;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
