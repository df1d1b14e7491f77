//! The plan of an image: the bytes of its metadata, and the place of each file's content.

use crate::error::{Error, Kind};
use crate::layer::format::{BLOCK, SuperBlock};
use crate::layer::inodes::{Inodes, LARGE_ALIGNMENT};
use crate::layer::source::{HostFile, Source};
use crate::layer::tree::{Node, Tree};

/// The plan of an image. What it has no bytes for is zero.
#[derive(Debug, Clone)]
pub struct Plan {
    metadata: Vec<u8>,
    files: Vec<Placed>,
    size: u64,
    inodes: u64,
}

/// The content of a file, and where it begins in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub offset: u64,
    pub source: Source,
}

impl Plan {
    pub fn of(tree: Tree) -> Result<Self, Error> {
        let mut inodes = Inodes::of(&tree);
        let (metadata_size, end) = inodes.place();
        let size = end.next_multiple_of(LARGE_ALIGNMENT);
        let count = inodes.count();
        let super_block = SuperBlock {
            root: inodes.root(),
            inodes: count,
            blocks: (size / BLOCK).try_into().map_err(|_| too_large(size))?,
            time: tree.time,
        };
        let mut metadata = vec![0; metadata_size as usize];
        super_block.encode(&mut metadata);
        inodes.encode(&mut metadata);
        let places: Vec<_> = tree.ids().map(|id| inodes.content(id)).collect();
        let nodes = tree.into_nodes().zip(places);
        let mut files: Vec<_> = nodes.filter_map(placed).collect();
        files.sort_unstable_by_key(|file| file.offset);
        Ok(Self {
            metadata,
            files,
            size,
            inodes: count,
        })
    }

    /// Returns the bytes at the start of the image: all but the contents of files.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Returns the contents of all files that are not empty, in the order of their places.
    pub fn files(&self) -> &[Placed] {
        &self.files
    }

    /// Returns the number of directories, files and links.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// Returns the bytes of all files.
    pub fn content_size(&self) -> u64 {
        self.files.iter().map(|file| file.source.size()).sum()
    }

    /// Returns the bytes of the image: a multiple of 2 MiB.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Placed {
    /// Returns the file of the host, if it is one of at least this size.
    pub fn file(&self, size_min: u64) -> Option<&HostFile> {
        match &self.source {
            Source::File(file) if self.source.size() >= size_min => Some(file),
            _ => None,
        }
    }
}

fn placed((node, offset): (Node, Option<u64>)) -> Option<Placed> {
    match node {
        Node::File(source) => offset.map(|offset| Placed { offset, source }),
        _ => None,
    }
}

fn too_large(size: u64) -> Error {
    Error::new(
        Kind::File,
        format!("{} GiB of files are too many at once", size >> 30),
        "take fewer or smaller files",
    )
}
