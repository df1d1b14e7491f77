//! The contents of the store, for `list`, `verify` and `prune`.

use crate::clock::since_1970;
use crate::fs::{remove, size_on_disk};
use crate::template::Key;
use crate::template::store::{Found, Store, TEMPLATE, Template};
use anyhow::Result;
use nix::fcntl::FlockArg;
use std::collections::BTreeSet;
use std::time::Duration;

/// An entry of [`Store::list`].
#[derive(Debug)]
pub struct Entry {
    pub key: Key,
    /// The bytes on disk.
    pub size: u64,
    /// The template's own data if header and state verify, and otherwise why they do not.
    pub about: Result<About, String>,
}

/// The data that a template holds about itself.
#[derive(Debug)]
pub struct About {
    pub description: String,
    pub age: Duration,
    pub build_time: Duration,
}

impl Store {
    /// Lists all templates: the newest first, and those that would be refused at the end.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (key, role, path) in self.files()? {
            if role != TEMPLATE {
                continue;
            }
            let about = match self.find(&key)? {
                Found::Ready(template) => Ok(template.about()),
                Found::Refused(why) => Err(why),
                Found::Missing => continue,
            };
            let size = size_on_disk(&path)?.unwrap_or(0);
            entries.push(Entry { key, size, about });
        }
        entries.sort_by_key(|entry| {
            entry
                .about
                .as_ref()
                .map_or(Duration::MAX, |about| about.age)
        });
        Ok(entries)
    }

    /// Checks whether the template of this key exists and all of its memory is what was saved.
    pub fn verify(&self, key: &Key) -> Result<bool> {
        match self.find(key)? {
            Found::Ready(template) => template.verify(),
            Found::Missing | Found::Refused(_) => Ok(false),
        }
    }

    /// Returns how long the build of the newest readable template took, whatever its key.
    pub fn last_build_time(&self) -> Option<Duration> {
        let entries = self.list().ok()?;
        let newest = entries.into_iter().find_map(|entry| entry.about.ok())?;
        Some(newest.build_time)
    }

    /// Removes all templates but one, and what killed builders and locks left behind. It skips keys
    /// that are being built. Returns the number of removed templates and leftovers, and their bytes
    /// on disk.
    pub fn prune(&self, keep: Option<&Key>) -> Result<(usize, u64)> {
        let (mut files, mut bytes) = (0, 0);
        let keys: BTreeSet<_> = self.files()?.into_iter().map(|(key, ..)| key).collect();
        for key in keys {
            let Some(lock) = self.acquire(&key, FlockArg::LockExclusiveNonblock)? else {
                continue;
            };
            let (drafts, size) = self.remove_drafts(&key)?;
            files += drafts;
            bytes += size;
            if keep != Some(&key)
                && let Some(size) = remove(&self.path(&key, TEMPLATE))?
            {
                files += 1;
                bytes += size;
            }
            lock.discard()?;
        }
        Ok((files, bytes))
    }
}

impl Template {
    fn about(self) -> About {
        About {
            description: self.header.description,
            age: Duration::from_secs(since_1970().as_secs().saturating_sub(self.header.created)),
            build_time: self.build_time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_list_tells_of_good_ones_first_and_then_of_refused_ones() {
        let fixture = Fixture::published();
        let bad = Key::of(&[b"bad"]);
        fs::write(fixture.store.path(&bad, TEMPLATE), "").unwrap();
        fs::write(fixture.directory.path().join("unrelated.template"), "").unwrap();
        let [good, refused] = &fixture.store.list().unwrap()[..] else {
            panic!("two are there");
        };
        let about = good.about.as_ref().unwrap();
        assert_eq!(about.description, DESCRIPTION);
        assert_eq!(about.build_time, Duration::from_millis(1234));
        assert!(about.age < Duration::from_secs(60));
        assert_eq!(good.key, fixture.key);
        let size = size_on_disk(&fixture.path(TEMPLATE)).unwrap();
        assert_eq!(Some(good.size), size);
        assert_eq!(refused.key, bad);
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
    fn pruning_removes_all_but_what_is_kept_or_being_built() {
        let fixture = Fixture::published();
        let (kept, building, stale) = (
            Key::of(&[b"kept"]),
            Key::of(&[b"building"]),
            Key::of(&[b"stale"]),
        );
        let file = |key, role| fs::write(fixture.store.path(key, role), "content").unwrap();
        file(&kept, TEMPLATE);
        file(&building, TEMPLATE);
        file(&stale, "writer-1-1");
        fs::write(fixture.directory.path().join("unrelated"), "").unwrap();
        let lock = fixture.store.lock(&building, || ()).unwrap();
        let writer = fixture.store.writer(&lock, PAGE as u64).unwrap();

        let size = size_on_disk(&fixture.path(TEMPLATE)).unwrap().unwrap();
        let (files, bytes) = fixture.store.prune(Some(&kept)).unwrap();
        assert_eq!(files, 2);
        assert!(bytes >= size);
        let names = fixture.names();
        assert_eq!(names.len(), 5, "{names:?}");
        assert!(names.contains(&format!("{kept}.template")));
        assert!(names.contains(&format!("{building}.template")));
        assert!(names.contains(&format!("{building}.lock")));
        assert!(names.contains(&"unrelated".into()));
        writer.publish(b"", "", Duration::ZERO).unwrap();

        drop(lock);
        assert_eq!(fixture.store.prune(None).unwrap().0, 2);
        assert_eq!(fixture.names(), ["unrelated"]);
    }
}
