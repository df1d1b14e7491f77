//! The bound on what the cache keeps: what was used least recently is removed first.

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
    /// What it is for, or why it must not be used.
    pub about: Result<String, String>,
}

/// What was removed.
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
    items.sort_by_key(|(_, item)| item.used);
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
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Things of ten bytes each; the number is when one was used.
    struct Things(RefCell<Vec<(&'static str, i64)>>);

    impl Shelf for Things {
        fn items(&self) -> Result<Vec<Item>> {
            let item = |&(name, used): &(&str, i64)| Item {
                name: name.into(),
                size: 10,
                used,
                is_needed: name == "needed",
                about: Ok(String::new()),
            };
            Ok(self.0.borrow().iter().map(item).collect())
        }

        fn remove(&self, name: &str) -> Result<bool> {
            self.0
                .borrow_mut()
                .retain(|(its, _)| *its != name || name == "in use");
            Ok(name != "in use")
        }

        fn sweep(&self) -> Result<Removed> {
            Ok(Removed { count: 1, size: 5 })
        }

        fn verify(&self, _: &str) -> Result<bool> {
            Ok(true)
        }
    }

    #[test]
    fn what_was_used_least_recently_on_any_shelf_is_removed_first() {
        for (most, left) in [
            (60, "old needed in use middle young new"),
            (59, "needed in use middle young new"),
            (40, "needed in use young new"),
            (30, "needed in use new"),
            (0, "needed in use"),
        ] {
            let templates = [("old", 1), ("needed", 2), ("in use", 3), ("middle", 5)];
            let shelves = [
                Things(RefCell::new(templates.into())),
                Things(RefCell::new([("young", 6), ("new", 7)].into())),
            ];
            let removed = prune(&[&shelves[0], &shelves[1]], most).unwrap();
            let names = shelves.iter().flat_map(|shelf| shelf.items().unwrap());
            let names: Vec<_> = names.map(|item| item.name).collect();
            assert_eq!(names.join(" "), left, "{most}");
            let count = 6 - names.len();
            let size = 10 * count as u64 + 10;
            assert_eq!(
                removed,
                Removed {
                    count: count + 2,
                    size
                }
            );
        }
    }
}
