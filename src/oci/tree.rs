//! The merged file system, in memory: what each path has after the layers so far.

use crate::error::Error;
use crate::layer::{Attributes, FilePart, Time};
use crate::oci::bounds::Bounds;
use crate::oci::refusal::{malformed, shown, too_much};
use std::cell::Cell;
use std::collections::BTreeMap;

/// How many links are followed on the way to a file, as in the kernel (MAXSYMLINKS).
const LINKS_MAX: usize = 40;
/// Upper bound on the names on that way.
const STEPS_MAX: usize = 10_000;

/// A tree of directories, files and links. What was replaced or removed stays in it without a name.
pub struct Tree {
    nodes: Vec<Node>,
    bounds: Bounds,
    names: u64,
    name_bytes: u64,
    /// How many names were looked at.
    steps: Cell<u64>,
}

/// Something in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(usize);

#[derive(Debug)]
pub struct Node {
    pub attributes: Attributes,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Directory(Directory),
    /// A symbolic link with this target.
    Link(Vec<u8>),
    File(FilePart),
}

#[derive(Debug)]
pub struct Directory {
    parent: Id,
    /// The directories above it.
    depth: usize,
    entries: BTreeMap<Vec<u8>, Entry>,
}

/// What a name stands for, and the layer that says so.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: Id,
    layer: usize,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    Missing,
    NoDirectory,
    Endless,
    /// More names were looked at than all ways may have together.
    Spent,
}

impl Tree {
    pub const ROOT: Id = Id(0);

    pub fn new(bounds: Bounds) -> Self {
        Self {
            nodes: vec![made_directory(Self::ROOT, 0)],
            bounds,
            names: 0,
            name_bytes: 0,
            steps: Cell::new(0),
        }
    }

    /// Counts so many names that are looked at.
    fn look(&self, count: usize) -> Result<(), Lost> {
        let steps = self.steps.get().saturating_add(count as u64);
        self.steps.set(steps);
        match steps > self.bounds.steps {
            true => Err(Lost::Spent),
            false => Ok(()),
        }
    }

    /// Checks that not too many names were looked at.
    pub fn check_steps(&self) -> Result<(), Error> {
        self.look(0).map_err(|_| self.spent())
    }

    /// Returns the failure with an archive in which too many names are looked at.
    pub fn spent(&self) -> Error {
        let most = self.bounds.steps;
        too_much(format!(
            "the ways to its files, with all links on them, have more than {most} names"
        ))
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    pub fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// Returns how many there are that ever had a name.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn index(id: Id) -> usize {
        id.0
    }

    pub fn is_directory(&self, id: Id) -> bool {
        matches!(self.node(id).content, Content::Directory(_))
    }

    /// Returns what is in a directory under a name.
    pub fn find(&self, directory: Id, name: &[u8]) -> Option<Id> {
        self.entry(directory, name).map(|entry| entry.id)
    }

    /// Returns what is in a directory, in the order of names; nothing is in a file.
    pub fn entries(&self, directory: Id) -> impl Iterator<Item = (&[u8], Id)> {
        let entries = self.directory(directory).into_iter();
        let entries = entries.flat_map(|directory| &directory.entries);
        entries.map(|(name, entry)| (name.as_slice(), entry.id))
    }

    fn entry(&self, directory: Id, name: &[u8]) -> Option<Entry> {
        self.directory(directory)?.entries.get(name).copied()
    }

    fn directory(&self, id: Id) -> Option<&Directory> {
        match &self.node(id).content {
            Content::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    /// Follows a path from the root, and all links on it. It does not lead out of the tree.
    pub fn resolve(&self, names: &[Vec<u8>]) -> Result<Id, Lost> {
        names
            .iter()
            .try_fold(Self::ROOT, |id, name| self.step(id, name))
    }

    /// Returns what a name in a directory leads to.
    pub fn step(&self, directory: Id, name: &[u8]) -> Result<Id, Lost> {
        let mut at = directory;
        // The names that are still ahead, the next one last.
        let mut ahead = vec![name];
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = ahead.pop() {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(Lost::Endless);
            }
            self.look(1)?;
            let here = self.directory(at).ok_or(Lost::NoDirectory)?;
            let next = match name {
                b"" | b"." => continue,
                b".." => here.parent,
                _ => here.entries.get(name).ok_or(Lost::Missing)?.id,
            };
            let Content::Link(target) = &self.node(next).content else {
                at = next;
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Lost::Endless);
            }
            if target.starts_with(b"/") {
                at = Self::ROOT;
            }
            let before = ahead.len();
            ahead.extend(target.rsplit(|&byte| byte == b'/'));
            self.look(ahead.len() - before)?;
        }
        Ok(at)
    }

    /// Returns the directory at a path. Those that are missing are made, but not beyond a link.
    pub fn make_directories(&mut self, names: &[Vec<u8>], layer: usize) -> Result<Id, Error> {
        let mut at = Self::ROOT;
        for name in names {
            if self.find(at, name).is_none() {
                let made = made_directory(at, self.depth_in(at));
                at = self.put(at, name, made, layer)?;
                continue;
            }
            at = match self.step(at, name) {
                Ok(id) if self.is_directory(id) => id,
                Ok(_) | Err(Lost::NoDirectory) => {
                    let what = format!("it would be in {}, which is not a directory", shown(name));
                    return Err(malformed(what));
                }
                Err(Lost::Missing) => {
                    let what = format!("it would be in {}, a link to nothing", shown(name));
                    return Err(malformed(what));
                }
                Err(Lost::Endless) => {
                    let what = format!("it would be in {}, a link without an end", shown(name));
                    return Err(malformed(what));
                }
                Err(Lost::Spent) => return Err(self.spent()),
            };
        }
        Ok(at)
    }

    fn depth_in(&self, directory: Id) -> usize {
        self.directory(directory).map_or(0, |it| it.depth + 1)
    }

    /// Returns a new directory with these attributes, to be put into another.
    pub fn directory_for(&self, parent: Id, attributes: Attributes) -> Node {
        Node {
            attributes,
            ..made_directory(parent, self.depth_in(parent))
        }
    }

    /// Puts something new into a directory, in place of what a lower layer has there. A directory that is
    /// there gets the attributes of the new one, and keeps what is in it.
    pub fn put(
        &mut self,
        directory: Id,
        name: &[u8],
        node: Node,
        layer: usize,
    ) -> Result<Id, Error> {
        if let Content::Directory(new) = &node.content {
            if new.depth > self.bounds.depth {
                return Err(malformed("it is too deep"));
            }
            if let Some(there) = self
                .find(directory, name)
                .filter(|&id| self.is_directory(id))
            {
                self.node_mut(there).attributes = node.attributes;
                self.enter(directory, name, there, layer)?;
                return Ok(there);
            }
        }
        self.make_way(directory, name, layer)?;
        let id = Id(self.nodes.len());
        self.nodes.push(node);
        self.enter(directory, name, id, layer)?;
        Ok(id)
    }

    /// Gives something another name, in place of what a lower layer has there.
    pub fn put_name(
        &mut self,
        directory: Id,
        name: &[u8],
        id: Id,
        layer: usize,
    ) -> Result<(), Error> {
        self.make_way(directory, name, layer)?;
        self.enter(directory, name, id, layer)
    }

    /// Checks that this layer has nothing under a name yet.
    fn make_way(&self, directory: Id, name: &[u8], layer: usize) -> Result<(), Error> {
        let Some(there) = self.entry(directory, name) else {
            return Ok(());
        };
        match there.layer == layer || self.has_any_of(there.id, layer) {
            true => Err(malformed("it is in the layer twice")),
            false => Ok(()),
        }
    }

    /// Returns whether a layer has anything in a directory. If it has not, what is looked at has no name any more,
    /// so it is looked at once.
    fn has_any_of(&self, directory: Id, layer: usize) -> bool {
        let entries = self.directory(directory).into_iter();
        let mut entries = entries.flat_map(|directory| directory.entries.values());
        entries.any(|entry| entry.layer == layer || self.has_any_of(entry.id, layer))
    }

    fn enter(&mut self, directory: Id, name: &[u8], id: Id, layer: usize) -> Result<(), Error> {
        self.count(name.len())?;
        let Content::Directory(directory) = &mut self.node_mut(directory).content else {
            return Err(malformed("what it would be in is not a directory"));
        };
        directory.entries.insert(name.into(), Entry { id, layer });
        Ok(())
    }

    /// Counts one more name, and so many bytes.
    pub fn count(&mut self, bytes: usize) -> Result<(), Error> {
        self.names += 1;
        self.name_bytes += bytes as u64;
        let (names, bytes) = (self.bounds.names, self.bounds.name_bytes);
        if self.names > names {
            return Err(too_much(format!("it has more than {names} names of files")));
        }
        if self.name_bytes > bytes {
            let what = format!("its names of files have more than {} MiB", bytes >> 20);
            return Err(too_much(what));
        }
        Ok(())
    }

    /// Removes what lower layers have under a name. What this one has below it stays.
    pub fn remove_lower(&mut self, directory: Id, name: &[u8], layer: usize) -> Result<(), Error> {
        let Some(entry) = self.entry(directory, name) else {
            return Ok(());
        };
        self.clear_lower(entry.id, layer)?;
        let is_empty = self.entries(entry.id).next().is_none();
        if let Content::Directory(directory) = &mut self.node_mut(directory).content
            && entry.layer < layer
            && is_empty
        {
            directory.entries.remove(name);
        }
        Ok(())
    }

    /// Removes all that lower layers have in a directory.
    pub fn clear_lower(&mut self, directory: Id, layer: usize) -> Result<(), Error> {
        let count = self.directory(directory).map_or(0, |it| it.entries.len());
        self.look(count).map_err(|_| self.spent())?;
        let names: Vec<_> = self
            .entries(directory)
            .map(|(name, _)| name.to_vec())
            .collect();
        let mut names = names.iter();
        names.try_for_each(|name| self.remove_lower(directory, name, layer))
    }
}

/// Returns a directory that no layer tells of.
fn made_directory(parent: Id, depth: usize) -> Node {
    Node {
        attributes: Attributes {
            mode: 0o755,
            modified: Some(Time::default()),
            ..Attributes::default()
        },
        content: Content::Directory(Directory {
            parent,
            depth,
            entries: BTreeMap::new(),
        }),
    }
}
