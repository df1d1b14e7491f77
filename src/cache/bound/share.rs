//! The shares of a server's clients in what the cache keeps.
//!
//! A client holds what was made for it, and what it uses of what other clients hold. The directory `holders` has
//! a directory for each such thing, with an empty file for each client. What has none is in nobody's share: the
//! user made it, or has used it since.

use crate::cache::{BOUND, Item, Shelf};
use crate::clock::since_1970;
use crate::key::Key;
use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most bytes on disk that a client may hold where nobody says otherwise.
pub const SHARE: u64 = BOUND / 2;

/// What is noted of a thing that is not there is forgotten after so many seconds: until then it may be being
/// made.
const FORGET_AFTER: i64 = 86_400;

/// The share of a server's client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The client's name.
    pub client: String,
    /// The most bytes on disk that it may hold.
    pub most: u64,
}

/// The directory in which it is noted which clients hold what.
pub struct Holders(PathBuf);

impl Holders {
    /// Returns the one beside a shelf's directory.
    pub fn beside(shelf: &Path) -> Self {
        Self(shelf.with_file_name("holders"))
    }

    /// Notes that a thing is made for a client, or for the user. It is done before the thing has its name:
    /// whoever is killed meanwhile must not leave something that nobody holds.
    pub fn note_making(&self, name: &str, share: Option<&Share>) -> Result<()> {
        let place = self.place(name);
        fs::remove_dir_all(&place).unwrap_or_default();
        let Some(share) = share else {
            return Ok(());
        };
        fs::create_dir_all(&place)
            .and_then(|()| File::create(place.join(mark(share))))
            .with_context(|| format!("noting in {} who holds what", place.display()))?;
        Ok(())
    }

    /// Notes that a client, or the user, uses a thing. What the user uses no client holds any more. Returns
    /// whether it is one more that the client holds.
    pub fn note_use(&self, name: &str, share: Option<&Share>) -> bool {
        let place = self.place(name);
        match share {
            Some(share) => File::create_new(place.join(mark(share))).is_ok(),
            None => {
                fs::remove_dir_all(place).unwrap_or_default();
                false
            }
        }
    }

    /// Has a client give up what was used least recently of what it holds, until that is no more than its
    /// share. What is in use stays, and so may be more.
    pub fn keep_share(&self, shelves: &[&dyn Shelf], share: &Share) -> Result<()> {
        let mut items = Vec::new();
        for shelf in shelves {
            items.extend(shelf.items()?.into_iter().map(|item| (*shelf, item)));
        }
        self.forget_all_but(items.iter().map(|(_, item)| item.name.as_str()));
        items.retain(|(_, item)| self.place(&item.name).join(mark(share)).exists());
        items.sort_by_key(|(_, item)| item.used);
        let mut size: u64 = items.iter().map(|(_, item)| item.size).sum();
        for (shelf, item) in items {
            if size > share.most && self.give_up(shelf, &item, share)? {
                size -= item.size;
            }
        }
        Ok(())
    }

    /// Has a client hold a thing no longer, which is removed unless others hold it. Returns false if it must
    /// stay.
    fn give_up(&self, shelf: &dyn Shelf, item: &Item, share: &Share) -> Result<bool> {
        let place = self.place(&item.name);
        let has_others = fs::read_dir(&place).is_ok_and(|clients| clients.count() > 1);
        if !has_others && (item.is_needed || !shelf.remove(&item.name)?) {
            return Ok(false);
        }
        // Another process may have done it.
        fs::remove_file(place.join(mark(share))).unwrap_or_default();
        Ok(true)
    }

    /// Forgets what is noted of things that are no longer there.
    fn forget_all_but<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let now = since_1970().as_secs() as i64;
        let there: BTreeSet<_> = names.map(|name| self.place(name)).collect();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let is_old = entry
                .metadata()
                .is_ok_and(|metadata| now - metadata.mtime() > FORGET_AFTER);
            if is_old && !there.contains(&entry.path()) {
                fs::remove_dir_all(entry.path()).unwrap_or_default();
            }
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.join(name.replace('/', "-"))
    }
}

/// Returns the name of a client's file: it may have any name itself.
fn mark(share: &Share) -> String {
    Key::of(&[share.client.as_bytes()]).to_string()
}
