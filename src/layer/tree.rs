//! The tree of files that a layer is to hold.

use crate::error::{Error, Kind, Remedy};
use crate::layer::source::{FilePart, HostFile, Source};
use std::collections::BTreeMap;

/// Upper bound on the bytes of a name (NAME_MAX).
const NAME_MAX: usize = 255;
/// Upper bound on the bytes of a link's target, without the zero at its end (PATH_MAX).
const TARGET_MAX: usize = 4095;
/// The permission bits of a mode (inode(7)).
const PERMISSIONS: u32 = 0o7777;

/// A tree of directories, files and links.
#[derive(Debug)]
pub struct Tree {
    /// All that was ever added; what is there already, or was refused, is in no directory.
    nodes: Vec<(Attributes, Node)>,
    /// The time of all that has none of its own.
    pub time: Time,
}

/// Something in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub(super) usize);

/// A moment, since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// Attributes of a file, a directory or a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The permission bits of the mode (inode(7)); others are not taken.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// When it was changed; `None`: at the time of the tree.
    pub modified: Option<Time>,
}

/// The content of a path.
#[derive(Debug)]
pub enum Content {
    Directory,
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A file with the content of one on the host.
    File(HostFile),
    /// A file with a part of one that is open.
    Part(FilePart),
}

#[derive(Debug)]
pub(super) enum Node {
    Directory(Directory),
    Link(Vec<u8>),
    File(Source),
}

#[derive(Debug)]
pub(super) struct Directory {
    pub parent: Id,
    name: Vec<u8>,
    pub entries: BTreeMap<Vec<u8>, Id>,
}

impl Tree {
    /// Returns a tree that is an empty directory.
    pub fn new(root: Attributes, time: Time) -> Self {
        let directory = Node::Directory(Directory::new(Self::ROOT, b""));
        Self {
            nodes: vec![(root.permissions(), directory)],
            time,
        }
    }

    pub const ROOT: Id = Id(0);

    /// Adds something to a directory. A directory that is there already gets these attributes and keeps what
    /// is in it.
    pub fn add(
        &mut self,
        directory: Id,
        name: &[u8],
        attributes: Attributes,
        content: Content,
    ) -> Result<Id, Error> {
        let node = match content {
            Content::Directory => Node::Directory(Directory::new(directory, name)),
            Content::Link(target) => {
                check_target(&target).map_err(|what| self.refused(directory, name, what))?;
                Node::Link(target)
            }
            Content::Bytes(bytes) => Node::File(Source::Bytes(bytes)),
            Content::File(file) => Node::File(Source::File(file)),
            Content::Part(part) => Node::File(Source::Part(part)),
        };
        let is_directory = matches!(node, Node::Directory(_));
        let new = Id(self.nodes.len());
        self.nodes.push((attributes, node));
        let id = self.enter(directory, name, new, is_directory)?;
        self.nodes[id.0].0 = attributes.permissions();
        Ok(id)
    }

    /// Adds another name of a file or link.
    pub fn add_name(&mut self, directory: Id, name: &[u8], file: Id) -> Result<(), Error> {
        if matches!(self.node(file), Node::Directory(_)) {
            return Err(self.refused(directory, name, "a directory has one name"));
        }
        self.enter(directory, name, file, false)?;
        Ok(())
    }

    /// Returns what is in a directory under a name.
    pub fn find(&self, directory: Id, name: &[u8]) -> Option<Id> {
        match self.node(directory) {
            Node::Directory(directory) => directory.entries.get(name).copied(),
            _ => None,
        }
    }

    /// Enters a name into a directory. Returns what has it then.
    fn enter(
        &mut self,
        directory: Id,
        name: &[u8],
        id: Id,
        is_directory: bool,
    ) -> Result<Id, Error> {
        check_name(name).map_err(|what| self.refused(directory, name, what))?;
        let there = self.find(directory, name);
        let is_file = |id| !is_directory || !matches!(self.node(id), Node::Directory(_));
        if there.is_some_and(is_file) {
            let refused = self.refused(directory, name, "it would be there twice");
            return Err(Error {
                remedy: Remedy::ChooseFreeGuestPath,
                ..refused
            });
        }
        let Node::Directory(node) = &mut self.nodes[directory.0].1 else {
            return Err(self.refused(directory, name, "what it would be in is not a directory"));
        };
        Ok(*node.entries.entry(name.into()).or_insert(id))
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0].1
    }

    pub(super) fn attributes(&self, id: Id) -> &Attributes {
        &self.nodes[id.0].0
    }

    /// Returns what is in a directory, in the order of names.
    pub(super) fn entries(&self, id: Id) -> impl Iterator<Item = Id> {
        let directory = match self.node(id) {
            Node::Directory(directory) => Some(directory),
            _ => None,
        };
        let entries = directory.into_iter().flat_map(|it| it.entries.values());
        entries.copied()
    }

    /// Returns all that was ever added.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        (0..self.nodes.len()).map(Id)
    }

    pub(super) fn into_nodes(self) -> impl Iterator<Item = Node> {
        self.nodes.into_iter().map(|(_, node)| node)
    }

    fn refused(&self, directory: Id, name: &[u8], what: &str) -> Error {
        let path = String::from_utf8_lossy(&self.path(directory, name)).into_owned();
        Error::new(
            Kind::File,
            format!("{path:?} cannot go in: {what}"),
            "leave it out, or give it another name",
        )
    }

    /// Returns the path from the root.
    fn path(&self, directory: Id, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        let mut above = directory;
        while let Node::Directory(directory) = self.node(above)
            && above != Self::ROOT
        {
            names.push(&directory.name);
            above = directory.parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl Attributes {
    /// Returns them without the bits of the mode that are no permissions.
    fn permissions(self) -> Self {
        Self {
            mode: self.mode & PERMISSIONS,
            ..self
        }
    }
}

impl Directory {
    fn new(parent: Id, name: &[u8]) -> Self {
        Self {
            parent,
            name: name.into(),
            entries: BTreeMap::new(),
        }
    }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        [] => Err("it has no name"),
        b"." | b".." => Err("the name is taken by a directory itself"),
        _ if name.len() > NAME_MAX => Err("the name has more than 255 bytes"),
        _ if name.contains(&b'/') || name.contains(&0) => {
            Err("the name has a slash or a zero in it")
        }
        _ => Ok(()),
    }
}

fn check_target(target: &[u8]) -> Result<(), &'static str> {
    match target {
        [] => Err("the link leads nowhere"),
        _ if target.len() > TARGET_MAX => Err("the link's target has more than 4095 bytes"),
        _ if target.contains(&0) => Err("the link's target has a zero in it"),
        _ => Ok(()),
    }
}
