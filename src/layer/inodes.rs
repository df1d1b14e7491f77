//! The inodes of a tree, and the places of their contents in the image.

use crate::layer::format::{self, BLOCK, Entry, INODE_UNIT, INODES, Inode};
use crate::layer::tree::{Directory, Id, Node, Tree};
use crate::units::HUGE_PAGE;
use guest::kind;

/// The alignment of large files, which the guest maps with huge pages.
pub const LARGE_ALIGNMENT: u64 = HUGE_PAGE as u64;

/// The inodes of all that is in a tree, in the order of their places.
pub struct Inodes<'a> {
    tree: &'a Tree,
    all: Vec<(Id, Inode)>,
    /// Where in `all` the inode of each node is.
    index: Vec<Option<usize>>,
}

/// A part of the image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Metadata,
    SmallFiles,
    LargeFiles,
}

impl Part {
    fn of(node: &Node) -> Self {
        match node {
            Node::Directory(_) | Node::Link(_) => Self::Metadata,
            Node::File(source) if source.size() < LARGE_ALIGNMENT => Self::SmallFiles,
            Node::File(_) => Self::LargeFiles,
        }
    }

    fn alignment(self) -> u64 {
        match self {
            Self::Metadata | Self::SmallFiles => BLOCK,
            Self::LargeFiles => LARGE_ALIGNMENT,
        }
    }
}

impl<'a> Inodes<'a> {
    /// Numbers all that is in the tree, so that the entries of a directory follow each other.
    pub fn of(tree: &'a Tree) -> Self {
        let mut inodes = Self {
            tree,
            all: Vec::new(),
            index: vec![None; tree.ids().count()],
        };
        inodes.add(Tree::ROOT);
        let mut waiting = vec![Tree::ROOT];
        while let Some(id) = waiting.pop() {
            let first = waiting.len();
            for below in tree.entries(id) {
                let is_directory = matches!(tree.node(below), Node::Directory(_));
                if is_directory {
                    inodes.inode_mut(id).links += 1;
                    waiting.push(below);
                }
                match inodes.index[below.0] {
                    Some(index) => inodes.all[index].1.links += 1,
                    None => inodes.add(below),
                }
            }
            waiting[first..].reverse();
        }
        inodes
    }

    fn add(&mut self, id: Id) {
        let (node, attributes) = (self.tree.node(id), self.tree.attributes(id));
        let (links, size) = match node {
            Node::Directory(directory) => (2, format::directory_size(&self.entries(id, directory))),
            Node::Link(target) => (1, target.len() as u64),
            Node::File(source) => (1, source.size()),
        };
        let is_own = |time| time != self.tree.time;
        self.index[id.0] = Some(self.all.len());
        self.all.push((
            id,
            Inode {
                number: self.all.len() as u32 + 1,
                place: 0,
                mode: (kind_of(node) | attributes.mode) as u16,
                uid: attributes.uid,
                gid: attributes.gid,
                links,
                size,
                modified: attributes.modified.filter(|&time| is_own(time)),
                tail: 0,
                block: None,
            },
        ));
    }

    /// Returns the entries of a directory, in their order.
    fn entries(&self, id: Id, directory: &'a Directory) -> Vec<Entry<'a>> {
        let entry = |name, id: Id| Entry {
            name,
            place: self.inode(id).map_or(0, |inode| inode.place),
            kind: kind_of(self.tree.node(id)),
        };
        let mut entries = vec![entry(b".", id), entry(b"..", directory.parent)];
        let named = directory.entries.iter();
        entries.extend(named.map(|(name, &id)| entry(name, id)));
        entries.sort_unstable();
        entries
    }

    fn inode_mut(&mut self, id: Id) -> &mut Inode {
        let index = self.index[id.0].expect("what is in the tree has an inode");
        &mut self.all[index].1
    }

    /// Returns where in the image the content of something begins, if it has any outside its inode.
    pub fn content(&self, id: Id) -> Option<u64> {
        let block = self.inode(id).and_then(|inode| inode.block);
        block.map(|block| block * BLOCK)
    }

    /// Returns the inode of something that has one yet; what is in no directory gets none.
    fn inode(&self, id: Id) -> Option<&Inode> {
        self.index[id.0].map(|index| &self.all[index].1)
    }

    /// Returns the place of the root's inode: the first or the second block.
    pub fn root(&self) -> u64 {
        self.all[0].1.place
    }

    pub fn count(&self) -> u64 {
        self.all.len() as u64
    }

    /// Gives all a place. Returns the bytes of metadata, and those of all.
    pub fn place(&mut self) -> (u64, u64) {
        let mut end = INODES;
        for (id, inode) in &mut self.all {
            place_inode(inode, self.tree.node(*id), &mut end);
        }
        end = end.next_multiple_of(BLOCK);
        let metadata = self.place_contents(Part::Metadata, end);
        let small = self.place_contents(Part::SmallFiles, metadata);
        (metadata, self.place_contents(Part::LargeFiles, small))
    }

    fn place_contents(&mut self, part: Part, mut end: u64) -> u64 {
        for (id, inode) in &mut self.all {
            let size = inode.size - inode.tail;
            if size > 0 && Part::of(self.tree.node(*id)) == part {
                let place = end.next_multiple_of(part.alignment());
                inode.block = Some(place / BLOCK);
                end = (place + size).next_multiple_of(BLOCK);
            }
        }
        end
    }

    /// Writes all to an image, but the contents of files.
    pub fn encode(&self, image: &mut [u8]) {
        for (id, inode) in &self.all {
            inode.encode(self.tree.time, image);
            match self.tree.node(*id) {
                Node::Directory(directory) => {
                    let content = format::directory(&self.entries(*id, directory));
                    inode.encode_content(&content, image);
                }
                Node::Link(target) => inode.encode_content(target, image),
                Node::File(_) => {}
            }
        }
    }
}

/// Places an inode, and behind it what of its content fits into the same block.
fn place_inode(inode: &mut Inode, node: &Node, end: &mut u64) {
    let length = inode.length() as u64;
    let tail = match node {
        Node::Directory(_) | Node::Link(_) => inode.size % BLOCK,
        Node::File(_) => 0,
    };
    if length + tail <= BLOCK {
        inode.tail = tail;
    }
    if *end % BLOCK + length + inode.tail > BLOCK {
        *end = end.next_multiple_of(BLOCK);
    }
    inode.place = *end;
    *end = (*end + length + inode.tail).next_multiple_of(INODE_UNIT);
}

fn kind_of(node: &Node) -> u32 {
    match node {
        Node::Directory(_) => kind::DIRECTORY,
        Node::Link(_) => kind::LINK,
        Node::File(_) => kind::FILE,
    }
}
