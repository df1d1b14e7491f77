//! Many or large files for the guest, as a layer that its kernel mounts: each would take longer to be made
//! there.

use crate::clock;
use crate::error::{Error, Remedy};
use crate::files::tree::{Content, Found, List, read_link};
use crate::files::unusable;
use crate::layer::{self, Attributes, Id, Placed, Plan, Time, Tree};
use crate::vm::layout::WINDOW_SIZE;
use crate::vm::{Layer, Part};
use guest::{WORKDIR, kind};
use std::collections::HashMap;
use vm_memory::FileOffset;

/// From so many files, or so many bytes, mounting them takes less time than making them.
const COUNT_MIN: usize = 80;
const SIZE_MIN: u64 = 1 << 20;
/// Files of at least this size are mapped; to copy a smaller one takes no longer.
const MAPPED_SIZE_MIN: u64 = 64 << 10;
/// Upper bound on mapped files, each of which keeps a descriptor.
const MAPPED_MAX: usize = 512;

/// Takes what is to be a layer out of a list: all that goes below the default working directory, if it
/// is much.
pub fn take(list: &mut List) -> Vec<Found> {
    let top = [WORKDIR.as_bytes(), b"/"].concat();
    let is_below = |found: &mut Found| found.guest.starts_with(&top);
    let below = list
        .found
        .iter()
        .filter(|found| found.guest.starts_with(&top));
    let (count, size) = below.fold((0, 0), |(count, size), found| {
        (count + 1, size + found.size())
    });
    match count >= COUNT_MIN || size >= SIZE_MIN {
        true => list.found.extract_if(.., is_below).collect(),
        false => Vec::new(),
    }
}

/// Plans the layer of these files, which belong to this user.
pub fn plan(found: &[Found], owner: u32) -> Result<Plan, Error> {
    let now = Time {
        seconds: clock::since_1970().as_secs() as i64,
        nanoseconds: 0,
    };
    let made = Attributes {
        mode: 0o755,
        uid: owner,
        gid: owner,
        modified: None,
    };
    let mut planned = Planned {
        tree: Tree::new(made, now),
        made,
        directory: (Vec::new(), Tree::ROOT),
        linked: HashMap::new(),
    };
    for one in found {
        planned.add(one)?;
    }
    let plan = Plan::of(planned.tree)?;
    match plan.size() <= WINDOW_SIZE {
        true => Ok(plan),
        false => Err(unusable(
            format!(
                "{} MiB of files are more than the {} GiB that a guest can be shown",
                plan.size() >> 20,
                WINDOW_SIZE >> 30
            ),
            "put fewer of them, or give some as standard input",
        )),
    }
}

/// A tree that grows.
struct Planned {
    tree: Tree,
    /// The attributes of directories that nothing on the host is like.
    made: Attributes,
    /// The path of a directory, and where it is: the next one is often in there too.
    directory: (Vec<u8>, Id),
    /// Files that have more names, by device and inode.
    linked: HashMap<(u64, u64), Id>,
}

impl Planned {
    fn add(&mut self, found: &Found) -> Result<(), Error> {
        let path = &found.guest[WORKDIR.len()..];
        let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        let (above, name) = (&path[..slash], &path[slash + 1..]);
        let directory = self.directory(above)?;
        let mut attributes = Attributes {
            mode: found.mode,
            ..self.made
        };
        let content = match &found.content {
            Content::Given(bytes) => layer::Content::Bytes(bytes.clone()),
            Content::Host {
                file,
                modified,
                is_linked,
                ..
            } => {
                attributes.modified = Some(*modified);
                match found.mode & kind::MASK {
                    kind::DIRECTORY => layer::Content::Directory,
                    kind::LINK => layer::Content::Link(read_link(file.path())?),
                    _ if *is_linked => match self.linked.get(&file.identity()) {
                        Some(&first) => return self.tree.add_name(directory, name, first),
                        None => layer::Content::File(file.clone()),
                    },
                    _ => layer::Content::File(file.clone()),
                }
            }
        };
        let id = self.tree.add(directory, name, attributes, content)?;
        if let Content::Host {
            file,
            is_linked: true,
            ..
        } = &found.content
        {
            self.linked.insert(file.identity(), id);
        }
        Ok(())
    }

    /// Returns a directory, which is made if it is not there.
    fn directory(&mut self, path: &[u8]) -> Result<Id, Error> {
        if self.directory.0 == path {
            return Ok(self.directory.1);
        }
        let mut id = Tree::ROOT;
        let names = path.split(|&byte| byte == b'/');
        for name in names.filter(|name| !name.is_empty()) {
            id = match self.tree.find(id, name) {
                Some(there) => there,
                None => self
                    .tree
                    .add(id, name, self.made, layer::Content::Directory)?,
            };
        }
        self.directory = (path.into(), id);
        Ok(id)
    }
}

/// Puts a layer together for a machine. Large files are mapped, and stay what they are on the host; no more
/// than `room` bytes of others are copied.
pub fn show(plan: &Plan, room: u64) -> Result<Layer, Error> {
    let mapped_min = mapped_min(plan.files());
    let mut layer = Layer {
        size: plan.size(),
        content: vec![(0, plan.metadata().to_vec())],
        parts: Vec::new(),
    };
    let mut left = room;
    for placed in plan.files() {
        let size = placed.source.size();
        if let Some(file) = placed.file(mapped_min) {
            layer.parts.push(Part {
                offset: placed.offset,
                file: FileOffset::new(file.open()?, 0),
                length: size,
            });
            continue;
        }
        left = left.checked_sub(size).ok_or_else(|| too_many(room))?;
        let mut bytes = vec![0; size as usize];
        placed.source.read(&mut bytes)?;
        layer.content.push((placed.offset, bytes));
    }
    Ok(layer)
}

/// Returns the size from which files are mapped.
fn mapped_min(files: &[Placed]) -> u64 {
    let is_mappable = |file: &&Placed| file.file(MAPPED_SIZE_MIN).is_some();
    let mut sizes: Vec<_> = files
        .iter()
        .filter(is_mappable)
        .map(|file| file.source.size())
        .collect();
    sizes.sort_unstable_by(|one, other| other.cmp(one));
    sizes
        .get(MAPPED_MAX)
        .map_or(MAPPED_SIZE_MIN, |size| size + 1)
}

fn too_many(room: u64) -> Error {
    unusable(
        format!(
            "the smaller files alone have more than {} MiB, half of the guest's memory",
            room >> 20
        ),
        Remedy::RaiseMemoryForFiles,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    /// Returns how many files are taken of a list of so many, of so many bytes each, in this directory.
    fn taken(count: usize, size: usize, directory: &str) -> usize {
        let mut list = List::new(1000, u64::MAX);
        for number in 0..count {
            let path = format!("{directory}/{number}").into();
            list.add_given(&vec![0; size], path).unwrap();
        }
        let taken = take(&mut list).len();
        assert_eq!(taken + list.found.len(), count);
        taken
    }

    #[test]
    fn many_or_large_files_are_mounted_below_the_working_directory_alone() {
        for (count, size, directory, expected) in [
            (79, 10, "/work", 0),
            (80, 10, "/work", 80),
            (80, 10, "/work/deep/er", 80),
            (80, 10, "/worker", 0),
            (80, 10, "/tmp", 0),
            (2, (1 << 19) - 1, "/work", 0),
            (2, 1 << 19, "/work", 2),
        ] {
            assert_eq!(taken(count, size, directory), expected, "{count} {size}");
        }
    }

    #[test]
    fn the_largest_files_are_mapped_and_no_more_are_copied_than_there_is_room() {
        let here = tempfile::tempdir().unwrap();
        for number in 0..MAPPED_MAX as u64 + 3 {
            let file = File::create(here.path().join(format!("{number}"))).unwrap();
            file.set_len(MAPPED_SIZE_MIN + number).unwrap();
        }
        let mut list = List::new(1000, u64::MAX);
        let added = list.add_tree(here.path(), b"/work/many".into(), &|_| false);
        added.unwrap();
        let plan = plan(&take(&mut list), 1000).unwrap();
        let copied = 3 * MAPPED_SIZE_MIN + 1 + 2;
        let layer = show(&plan, copied).unwrap();
        assert_eq!(layer.parts.len(), MAPPED_MAX);
        assert_eq!(layer.content.len(), 1 + 3);
        assert!(
            layer
                .parts
                .iter()
                .all(|part| part.length > MAPPED_SIZE_MIN + 2)
        );
        let refused = show(&plan, copied - 1).unwrap_err();
        assert_eq!(refused.remedy, Remedy::RaiseMemoryForFiles);
    }
}
