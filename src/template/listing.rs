//! The contents of the store, as a shelf of the cache.

use crate::cache::{Item, Removed, Shelf, is_in_use};
use crate::clock::since_1970;
use crate::fs::{BLOCK, remove, size_on_disk};
use crate::template::Key;
use crate::template::store::{Found, Store, TEMPLATE, Template};
use crate::units::rough;
use anyhow::{Context, Result};
use nix::fcntl::FlockArg;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

impl Shelf for Store {
    fn items(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for (key, role, path) in self.files()? {
            if role != TEMPLATE {
                continue;
            }
            let about = match self.find(&key)? {
                Found::Ready(template) => Ok(template.about()),
                Found::Refused(why) => Err(why),
                Found::Missing => continue,
            };
            // It may have been removed meanwhile.
            if let Ok(metadata) = path.symlink_metadata() {
                items.push(Item {
                    name: key.to_string(),
                    size: metadata.blocks() * BLOCK,
                    used: metadata.mtime(),
                    is_needed: false,
                    is_spare: false,
                    about,
                });
            }
        }
        Ok(items)
    }

    fn remove(&self, name: &str) -> Result<bool> {
        let key = Key::parse(name).context("a template is named after its key")?;
        let Some(lock) = self.acquire(&key, FlockArg::LockExclusiveNonblock)? else {
            return Ok(false);
        };
        let path = self.path(&key, TEMPLATE);
        if is_in_use(&path) {
            return Ok(false);
        }
        let removed = remove(&path)?;
        lock.discard()?;
        Ok(removed.is_some())
    }

    fn sweep(&self) -> Result<Removed> {
        let mut removed = Removed::default();
        let keys: BTreeSet<_> = self.files()?.into_iter().map(|(key, ..)| key).collect();
        for key in keys {
            let Some(lock) = self.acquire(&key, FlockArg::LockExclusiveNonblock)? else {
                continue;
            };
            let (count, size) = self.remove_drafts(&key)?;
            removed.count += count;
            removed.size += size;
            if size_on_disk(&self.path(&key, TEMPLATE))?.is_none() {
                lock.discard()?;
            }
        }
        Ok(removed)
    }

    fn verify(&self, name: &str) -> Result<bool> {
        let key = Key::parse(name).context("a template is named after its key")?;
        match self.find(&key)? {
            Found::Ready(template) => template.verify(),
            Found::Missing | Found::Refused(_) => Ok(false),
        }
    }
}

impl Store {
    /// Returns how long the build of the newest readable template took, whatever its key.
    pub fn last_build_time(&self) -> Option<Duration> {
        let keys = self.files().ok()?.into_iter();
        let templates = keys.filter_map(|(key, role, _)| match role == TEMPLATE {
            true => self.find(&key).ok(),
            false => None,
        });
        let headers = templates.filter_map(|found| match found {
            Found::Ready(template) => Some(template.header),
            Found::Missing | Found::Refused(_) => None,
        });
        let newest = headers.max_by_key(|header| header.created)?;
        Some(newest.build_time)
    }
}

impl Template {
    fn about(self) -> String {
        let age = since_1970().as_secs().saturating_sub(self.header.created);
        format!(
            "{}, {} old, built in {:.1} s",
            self.header.description,
            rough(age),
            self.build_time.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{prune, wait_until};
    use crate::template::fixture::{DESCRIPTION, Fixture};
    use crate::units::PAGE;
    use std::fs;

    #[test]
    fn zero_pages_take_no_room() {
        let fixture = Fixture::published();
        let size = size_on_disk(&fixture.path(TEMPLATE)).unwrap().unwrap();
        assert!(
            size < 1 << 20,
            "{size} bytes, though it is longer than 2 MiB"
        );
    }

    #[test]
    fn the_list_tells_of_good_ones_and_of_refused_ones() {
        let fixture = Fixture::published();
        let bad = Key::of(&[b"bad"]);
        fs::write(fixture.store.path(&bad, TEMPLATE), "").unwrap();
        fs::write(fixture.directory.path().join("unrelated.template"), "").unwrap();
        let items = fixture.store.items().unwrap();
        let named = |key: &Key| items.iter().find(|item| item.name == key.as_str());
        let (good, refused) = (named(&fixture.key).unwrap(), named(&bad).unwrap());
        assert_eq!(items.len(), 2);
        let about = good.about.as_ref().unwrap();
        let beginning = format!("{DESCRIPTION}, ");
        assert!(about.starts_with(&beginning), "{about}");
        assert!(about.ends_with(" s old, built in 1.2 s"), "{about}");
        let size = size_on_disk(&fixture.path(TEMPLATE)).unwrap();
        assert_eq!(Some(good.size), size);
        assert!((since_1970().as_secs() as i64 - good.used) < 60);
        assert_eq!(refused.about.as_ref().unwrap_err(), "it can be written to");
    }

    #[test]
    fn the_last_build_time_is_that_of_a_readable_template() {
        let fixture = Fixture::new();
        fs::write(fixture.path(TEMPLATE), "").unwrap();
        assert_eq!(fixture.store.last_build_time(), None);
        fixture.publish();
        let time = fixture.store.last_build_time();
        assert_eq!(time, Some(Duration::from_millis(1234)));
    }

    #[test]
    fn what_is_being_built_or_in_use_stays() {
        let fixture = Fixture::published();
        let (building, stale) = (Key::of(&[b"building"]), Key::of(&[b"stale"]));
        let file = |key, role| fs::write(fixture.store.path(key, role), "content").unwrap();
        file(&building, TEMPLATE);
        file(&stale, "writer-1-1");
        fs::write(fixture.directory.path().join("unrelated"), "").unwrap();
        let lock = fixture.store.lock(&building, || ()).unwrap();
        let writer = fixture.store.writer(&lock, PAGE as u64).unwrap();
        let used = fixture.template();
        used.mark_used();

        let prune = || prune(&[&fixture.store], 0).unwrap().count;
        assert_eq!(prune(), 1);
        let names = fixture.names();
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(names.contains(&format!("{building}.template")));
        assert!(names.contains(&format!("{}.template", fixture.key)));
        assert!(names.contains(&"unrelated".into()));
        writer.publish(b"", "", Duration::ZERO).unwrap();

        drop((lock, used));
        let mut pruned = 0;
        wait_until(|| {
            pruned += prune();
            pruned == 2
        });
        assert_eq!(fixture.names(), ["unrelated"]);
    }

    #[test]
    fn pruning_to_a_size_keeps_what_was_used_last() {
        let fixture = Fixture::published();
        let old = Key::of(&[b"old"]);
        fs::copy(fixture.path(TEMPLATE), fixture.store.path(&old, TEMPLATE)).unwrap();
        let file = fs::File::open(fixture.store.path(&old, TEMPLATE)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let size = fixture.store.items().unwrap()[0].size;
        assert_eq!(prune(&[&fixture.store], 2 * size).unwrap().count, 0);
        assert_eq!(prune(&[&fixture.store], size).unwrap().count, 1);
        assert!(fixture.path(TEMPLATE).exists());
    }
}
