//! The structures of an erofs image, as bytes (Linux, fs/erofs/erofs_fs.h).

use crate::layer::tree::Time;
use guest::kind;

pub const BLOCK: u64 = 4096;
/// Where the inodes begin: after the super block.
pub const INODES: u64 = SUPER_BLOCK as u64 + 128;
/// The unit in which the places of inodes are numbered.
pub const INODE_UNIT: u64 = 32;

const SUPER_BLOCK: usize = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// The times of inodes are those of modification (`EROFS_FEATURE_COMPAT_MTIME`).
const HAS_MTIME: u32 = 2;
const BLOCK_BITS: u8 = 12;
const INODE_COMPACT: usize = 32;
const INODE_EXTENDED: usize = 64;
/// Bits of an inode's format.
const EXTENDED: u16 = 1;
const FLAT_INLINE: u16 = 2 << 1;
/// The block of what has none (`EROFS_NULL_ADDR`).
const NO_BLOCK: u32 = u32::MAX;
const ENTRY: usize = 12;

/// The content of the super block.
pub struct SuperBlock {
    /// The place of the root's inode.
    pub root: u64,
    pub inodes: u64,
    pub blocks: u32,
    pub time: Time,
}

/// An inode.
#[derive(Debug, Clone, Copy)]
pub struct Inode {
    /// Its number among all, which tools show.
    pub number: u32,
    /// Its place in the image, in bytes.
    pub place: u64,
    /// Type and permissions.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size: u64,
    /// When it was changed, if that is not the time of the image.
    pub modified: Option<Time>,
    /// The bytes of content that follow it.
    pub tail: u64,
    /// The first block of the content, if any is not behind the inode.
    pub block: Option<u64>,
}

/// An entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry<'a> {
    pub name: &'a [u8],
    /// The place of its inode, in bytes.
    pub place: u64,
    /// The type, as in the mode.
    pub kind: u32,
}

impl SuperBlock {
    pub fn encode(&self, image: &mut [u8]) {
        let image = &mut image[SUPER_BLOCK..];
        put(image, 0, MAGIC.to_le_bytes());
        put(image, 8, HAS_MTIME.to_le_bytes());
        image[12] = BLOCK_BITS;
        put(image, 14, ((self.root / INODE_UNIT) as u16).to_le_bytes());
        put(image, 16, self.inodes.to_le_bytes());
        put(image, 24, self.time.seconds.to_le_bytes());
        put(image, 32, self.time.nanoseconds.to_le_bytes());
        put(image, 36, self.blocks.to_le_bytes());
    }
}

impl Inode {
    pub fn length(&self) -> usize {
        let is_small = |number: u32| number <= u16::MAX.into();
        let numbers = [self.uid, self.gid, self.links];
        let is_compact = self.modified.is_none()
            && self.size <= u32::MAX.into()
            && numbers.into_iter().all(is_small);
        match is_compact {
            true => INODE_COMPACT,
            false => INODE_EXTENDED,
        }
    }

    /// Writes it to its place. `time` is the image's.
    pub fn encode(&self, time: Time, image: &mut [u8]) {
        let length = self.length();
        let layout = if self.tail > 0 { FLAT_INLINE } else { 0 };
        let bytes = &mut image[self.place as usize..][..length];
        put(bytes, 4, self.mode.to_le_bytes());
        let block = self.block.map_or(NO_BLOCK, |block| block as u32);
        put(bytes, 16, block.to_le_bytes());
        put(bytes, 20, self.number.to_le_bytes());
        if length == INODE_COMPACT {
            put(bytes, 0, layout.to_le_bytes());
            put(bytes, 6, (self.links as u16).to_le_bytes());
            put(bytes, 8, (self.size as u32).to_le_bytes());
            put(bytes, 24, (self.uid as u16).to_le_bytes());
            put(bytes, 26, (self.gid as u16).to_le_bytes());
        } else {
            let modified = self.modified.unwrap_or(time);
            put(bytes, 0, (layout | EXTENDED).to_le_bytes());
            put(bytes, 8, self.size.to_le_bytes());
            put(bytes, 24, self.uid.to_le_bytes());
            put(bytes, 28, self.gid.to_le_bytes());
            put(bytes, 32, modified.seconds.to_le_bytes());
            put(bytes, 40, modified.nanoseconds.to_le_bytes());
            put(bytes, 44, self.links.to_le_bytes());
        }
    }

    /// Writes the content to the blocks, and its tail behind the inode.
    pub fn encode_content(&self, content: &[u8], image: &mut [u8]) {
        let (whole, tail) = content.split_at(content.len() - self.tail as usize);
        if let Some(block) = self.block {
            image[(block * BLOCK) as usize..][..whole.len()].copy_from_slice(whole);
        }
        let behind = self.place as usize + self.length();
        image[behind..][..tail.len()].copy_from_slice(tail);
    }
}

/// Returns the bytes of a directory with these entries, which are in order.
pub fn directory_size(entries: &[Entry]) -> u64 {
    let mut size = 0;
    for block in in_blocks(entries) {
        size = u64::next_multiple_of(size, BLOCK) + block_size(block) as u64;
    }
    size
}

/// Returns the content of a directory with these entries, which are in order.
pub fn directory(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in in_blocks(entries) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        let mut name_at = block.len() * ENTRY;
        for entry in block {
            bytes.extend((entry.place / INODE_UNIT).to_le_bytes());
            bytes.extend((name_at as u16).to_le_bytes());
            bytes.extend([file_type(entry.kind), 0]);
            name_at += entry.name.len();
        }
        for entry in block {
            bytes.extend(entry.name);
        }
    }
    bytes
}

/// Splits entries into as many as fit in a block each.
fn in_blocks<'a, 'b>(mut entries: &'a [Entry<'b>]) -> impl Iterator<Item = &'a [Entry<'b>]> {
    std::iter::from_fn(move || {
        let mut room = BLOCK as usize;
        let fits = |entry: &Entry| match room.checked_sub(ENTRY + entry.name.len()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        };
        let (block, rest) = entries.split_at(entries.iter().map(fits).take_while(|it| *it).count());
        entries = rest;
        (!block.is_empty()).then_some(block)
    })
}

fn block_size(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| ENTRY + entry.name.len()).sum()
}

/// Returns the type of a file as directories tell it (`FT_REG_FILE` and the others).
fn file_type(kind: u32) -> u8 {
    match kind {
        kind::FILE => 1,
        kind::DIRECTORY => 2,
        _ => 7,
    }
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
