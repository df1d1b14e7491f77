//! Layers: each changes the tree of those before it (image-spec, layer.md).

use crate::error::Error;
use crate::layer::Attributes;
use crate::oci::archive::Archive;
use crate::oci::bounds::Bounds;
use crate::oci::compression::unpacked;
use crate::oci::contents::Contents;
use crate::oci::digest::Digest;
use crate::oci::entries::{Entries, Entry, Kind};
use crate::oci::manifest::Layer;
use crate::oci::path::Path;
use crate::oci::refusal::{malformed, shown, too_much, unreadable, within};
use crate::oci::region::Skip;
use crate::oci::tree::{Content, Id, Lost, Node, Tree};
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// What the names of entries begin with that remove something of lower layers.
const WHITEOUT: &[u8] = b".wh.";
/// The entry that empties its directory of lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What other entries of file systems that were laid over each other begin with; they are no files.
const MARKS: &[u8] = b".wh..wh.";
/// Upper bound on the bytes of a link's target, without the zero at its end (PATH_MAX).
const TARGET_MAX: usize = 4095;
/// The directory that the guest's kernel fills: devices in it are left out.
const DEVICES: &[u8] = b"dev";
/// The mode of the root directory, whatever a layer says.
const ROOT_MODE: u32 = 0o755;

/// The bytes of a layer as it was before it was compressed, which are counted and hashed.
struct Stream {
    reader: Box<dyn Read>,
    hash: Sha256,
    /// How many more there may be.
    left: u64,
}

/// The tree so far, and what is added to it.
pub struct Merge {
    pub tree: Tree,
    pub contents: Contents,
    bounds: Bounds,
    /// The number of the layer, from 1.
    layer: usize,
    /// How many bytes there may still be in the archive of layers, and how many unpacked.
    packed_left: u64,
    left: u64,
}

impl Merge {
    pub fn new(contents: Contents, bounds: Bounds) -> Self {
        let most = bounds.content + bounds.headers;
        Self {
            packed_left: most,
            left: most,
            tree: Tree::new(bounds),
            contents,
            bounds,
            layer: 0,
        }
    }

    /// Lays the next layer over those before.
    pub fn add(&mut self, archive: &Archive, layer: &Layer) -> Result<(), Error> {
        self.layer += 1;
        let applied = self.apply(archive, layer);
        applied.map_err(|error| within(format!("layer {}", self.layer), error))
    }

    fn apply(&mut self, archive: &Archive, layer: &Layer) -> Result<(), Error> {
        let region = archive.region(layer.path.as_bytes())?;
        // The same bytes may be listed as several layers.
        let left = self.packed_left.checked_sub(region.size());
        self.packed_left = left.ok_or_else(too_long)?;
        if let Some(digest) = &layer.digest {
            digest.check_reader(region.clone(), "it")?;
        }
        let stream = Stream {
            reader: unpacked(region)?,
            hash: Sha256::new(),
            left: self.left,
        };
        let mut entries = Entries::new(stream);
        while let Some(entry) = entries.next()? {
            let applied = self.apply_entry(&entry, &mut entries);
            applied.map_err(|error| within(shown(&entry.path), error))?;
        }
        let stream = entries.reader();
        stream.finish(&layer.diff_id)?;
        self.left = stream.left;
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry, content: impl Read) -> Result<(), Error> {
        let path = Path::parse(&entry.path, self.bounds.depth)?;
        let Some((above, name)) = path.split_last() else {
            self.tree.count(0)?;
            return self.apply_root(entry);
        };
        let first = path.names().first();
        if name != OPAQUE && first.is_some_and(|first| first.starts_with(MARKS)) {
            return self.tree.count(0);
        }
        if above.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(malformed(
                "it is in a directory whose name begins with \".wh.\", as no directory's does",
            ));
        }
        if name.starts_with(WHITEOUT) {
            // Some tools tell of thousands that are not there.
            self.tree.count(0)?;
            return self.remove(above, name);
        }
        match entry.kind {
            Kind::Device if path.is_in(DEVICES) => return self.tree.count(0),
            Kind::Device => return Err(malformed("it is a device")),
            Kind::Pipe => return self.leave_out(above, name),
            _ => {}
        }
        let directory = self.tree.make_directories(above, self.layer)?;
        let new = match &entry.kind {
            Kind::Name(target) => {
                let id = self.named(target, (directory, name))?;
                return self.tree.put_name(directory, name, id, self.layer);
            }
            Kind::Directory => self.tree.directory_for(directory, attributes(entry)),
            Kind::Link(target) => self.link(entry, target)?,
            Kind::File | Kind::Device | Kind::Pipe => Node {
                attributes: attributes(entry),
                content: Content::File(self.contents.add(content, entry.size)?),
            },
        };
        self.tree.put(directory, name, new, self.layer)?;
        Ok(())
    }

    /// Leaves out a pipe, which only who makes it writes to. It is in place of what lower layers have there.
    fn leave_out(&mut self, above: &[Vec<u8>], name: &[u8]) -> Result<(), Error> {
        self.tree.count(0)?;
        match self.directory_at(above)? {
            Some(directory) => self.tree.remove_lower(directory, name, self.layer),
            None => Ok(()),
        }
    }

    fn apply_root(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.kind != Kind::Directory {
            return Err(malformed("it would replace the root directory"));
        }
        // Whoever runs programs there, these must be able to reach anything.
        self.tree.node_mut(Tree::ROOT).attributes = Attributes {
            mode: ROOT_MODE,
            ..attributes(entry)
        };
        Ok(())
    }

    fn link(&mut self, entry: &Entry, target: &[u8]) -> Result<Node, Error> {
        let why = match target {
            [] => "it is a link to nothing",
            _ if target.len() > TARGET_MAX => "it is a link whose target has more than 4095 bytes",
            _ if target.contains(&0) => "it is a link whose target has a zero byte in it",
            _ => {
                self.tree.count(target.len())?;
                return Ok(Node {
                    attributes: attributes(entry),
                    content: Content::Link(target.into()),
                });
            }
        };
        Err(malformed(why))
    }

    /// Finds the file at a path that gets another name in a directory. Links on the way are followed, but a
    /// link itself can have two names.
    fn named(&self, target: &[u8], new: (Id, &[u8])) -> Result<Id, Error> {
        let to = |why: &str| malformed(format!("it is another name of {}, {why}", shown(target)));
        if target.is_empty() {
            return Err(malformed("it is another name of nothing"));
        }
        let path = Path::parse(target, self.bounds.depth)?;
        let (above, name) = path.split_last().ok_or_else(|| to("a directory"))?;
        let directory = self.tree.resolve(above).map_err(|lost| match lost {
            Lost::Endless => to("on the way to which links have no end"),
            Lost::Spent => self.tree.spent(),
            Lost::Missing | Lost::NoDirectory => to("which is not there"),
        })?;
        if (directory, name) == new {
            return Err(to("which is itself"));
        }
        let found = self.tree.find(directory, name);
        match found.ok_or_else(|| to("which is not there"))? {
            id if self.tree.is_directory(id) => Err(to("a directory")),
            id => Ok(id),
        }
    }

    /// Finds what is at a path, if anything is.
    fn directory_at(&self, path: &[Vec<u8>]) -> Result<Option<Id>, Error> {
        match self.tree.resolve(path) {
            Ok(directory) => Ok(Some(directory)),
            Err(Lost::Missing | Lost::NoDirectory) => Ok(None),
            Err(Lost::Endless) => Err(malformed("the links on its way have no end")),
            Err(Lost::Spent) => Err(self.tree.spent()),
        }
    }

    /// Removes what an entry says is no longer there.
    fn remove(&mut self, above: &[Vec<u8>], name: &[u8]) -> Result<(), Error> {
        let Some(directory) = self.directory_at(above)? else {
            return Ok(());
        };
        match &name[WHITEOUT.len()..] {
            _ if name == OPAQUE => self.tree.clear_lower(directory, self.layer),
            _ if name.starts_with(MARKS) => Ok(()),
            [] | b"." | b".." => Err(malformed("it removes what no name stands for")),
            removed => self.tree.remove_lower(directory, removed, self.layer),
        }
    }
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        modified: Some(entry.modified),
    }
}

/// Returns the failure with a layer that has, with those before it, too many bytes.
fn too_long() -> Error {
    too_much("with the layers before it, it is larger than all files may be together")
}

impl Stream {
    /// Reads what is left, and checks the digest of all.
    fn finish(&mut self, digest: &Digest) -> Result<(), Error> {
        io::copy(&mut *self, &mut io::sink()).map_err(unreadable)?;
        digest.check(&self.hash.finalize_reset(), "what is in it")
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| io::Error::other(too_long()))?;
        self.hash.update(&into[..count]);
        Ok(count)
    }
}

impl Skip for Stream {}
