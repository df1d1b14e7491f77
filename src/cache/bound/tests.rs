//! Tests of the bound on what the cache keeps.

use super::*;
use std::cell::RefCell;
use std::fs::File;
use std::time::UNIX_EPOCH;

/// Things of ten bytes each; the number is when one was used.
struct Things(RefCell<Vec<(&'static str, i64)>>);

impl Things {
    /// Puts a thing there that is made now.
    fn make(&self, holders: &Holders, name: &'static str, share: Option<&Share>) {
        holders.note_making(name, share).unwrap();
        let mut things = self.0.borrow_mut();
        let used = things.len() as i64;
        things.push((name, used));
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.0.borrow().iter().map(|(name, _)| *name).collect();
        names.join(" ")
    }
}

impl Shelf for Things {
    fn items(&self) -> Result<Vec<Item>> {
        let item = |&(name, used): &(&str, i64)| Item {
            name: name.into(),
            size: 10,
            used,
            is_needed: name == "needed",
            is_spare: name == "spare",
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
fn what_is_spare_and_what_was_used_least_recently_is_removed_first() {
    for (most, left) in [
        (70, "old needed in use middle young new spare"),
        (69, "old needed in use middle young new"),
        (59, "needed in use middle young new"),
        (40, "needed in use young new"),
        (30, "needed in use new"),
        (0, "needed in use"),
    ] {
        let templates = [("old", 1), ("needed", 2), ("in use", 3), ("middle", 5)];
        let shelves = [
            Things(RefCell::new(templates.into())),
            Things(RefCell::new(
                [("young", 6), ("new", 7), ("spare", 8)].into(),
            )),
        ];
        let removed = prune(&[&shelves[0], &shelves[1]], most).unwrap();
        let names = shelves.iter().flat_map(|shelf| shelf.items().unwrap());
        let names: Vec<_> = names.map(|item| item.name).collect();
        assert_eq!(names.join(" "), left, "{most}");
        let count = 7 - names.len();
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

/// A place for things, which has none yet, and shares of two clients with room for two each.
struct Clients {
    directory: tempfile::TempDir,
    holders: Holders,
    things: Things,
    one: Share,
    two: Share,
}

impl Clients {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let share = |client: &str| Share {
            client: client.into(),
            most: 20,
        };
        Self {
            holders: Holders::beside(&directory.path().join("things")),
            directory,
            things: Things(RefCell::default()),
            one: share("one"),
            two: share("../two"),
        }
    }

    fn make(&self, name: &'static str, share: Option<&Share>) {
        self.things.make(&self.holders, name, share);
    }

    /// Has a client keep to its share, or to less. Returns what is left.
    fn keep(&self, share: &Share, most: u64) -> String {
        let client = share.client.clone();
        let share = Share { client, most };
        self.holders.keep_share(&[&self.things], &share).unwrap();
        self.things.names()
    }
}

#[test]
fn a_client_with_its_share_pushes_out_only_its_own() {
    let it = Clients::new();
    it.make("users", None);
    it.make("twos", Some(&it.two));
    it.make("in use", Some(&it.one));
    for name in ["a", "b", "c", "d"] {
        it.make(name, Some(&it.one));
        it.keep(&it.one, 20);
        prune(&[&it.things], 40).unwrap();
    }
    assert_eq!(it.things.names(), "users twos in use d");
    assert_eq!(it.keep(&it.one, 0), "users twos in use");
    assert_eq!(it.keep(&it.two, 0), "users in use");
}

#[test]
fn what_others_use_stays_when_a_client_gives_it_up() {
    let it = Clients::new();
    for name in ["both", "taken", "needed", "own", "new"] {
        it.make(name, Some(&it.one));
    }
    assert!(it.holders.note_use("both", Some(&it.two)));
    assert!(!it.holders.note_use("both", Some(&it.two)), "it holds it");
    assert!(!it.holders.note_use("taken", None));
    assert!(!it.holders.note_use("taken", Some(&it.two)), "the user's");
    assert_eq!(it.keep(&it.one, 20), "both taken needed new");
    assert_eq!(it.keep(&it.two, 10), "both taken needed new");
    assert_eq!(it.keep(&it.two, 0), "taken needed new");
}

#[test]
fn what_is_made_anew_is_held_by_its_new_maker() {
    let it = Clients::new();
    it.make("thing", Some(&it.one));
    it.holders.note_making("thing", Some(&it.two)).unwrap();
    assert_eq!(it.keep(&it.one, 0), "thing");
    it.holders.note_making("thing", None).unwrap();
    assert_eq!(it.keep(&it.two, 0), "thing");
}

#[test]
fn who_held_what_is_gone_is_forgotten_after_a_day() {
    let it = Clients::new();
    it.make("there", Some(&it.one));
    for name in ["old", "being/made"] {
        it.holders.note_making(name, Some(&it.one)).unwrap();
    }
    let noted = it.directory.path().join("holders");
    for name in ["there", "old"] {
        let directory = File::open(noted.join(name)).unwrap();
        directory.set_modified(UNIX_EPOCH).unwrap();
    }
    it.keep(&it.one, 20);
    let left = ["there", "old", "being-made"].map(|name| noted.join(name).exists());
    assert_eq!(left, [true, false, true]);
}
