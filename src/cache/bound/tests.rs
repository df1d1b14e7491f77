//! Tests of the bound on what the cache keeps.

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
