//! Layers: trees of files as erofs images, which the guest's kernel mounts and nobody writes to.
//!
//! A [`Tree`] is what is to be in a layer. A [`Plan`] of it has the place of each byte in the image, and
//! where the bytes come from: either it is written to a file ([`Plan::write`]), or whoever shows the
//! image to a guest puts its metadata and small files into memory, and maps large ones ([`Placed::file`]).
//! The same tree gives the same image.
//!
//! # The image
//!
//! erofs as Linux has it since 5.15 (`fs/erofs/erofs_fs.h`, `Documentation/filesystems/erofs.rst`), without
//! compression, extended attributes and a checksum. All numbers are little-endian, a block has 4 KiB.
//!
//! ```text
//!      0            1024          1152                       a block          a block
//!      ├─ unused ─────┼─ super block ─┼─ inodes ─────────────────┼─ directories ──┼─ files … ─┤
//!                                       with short links, and ends   and long links
//!                                       of directories, behind them
//! ```
//!
//! * **Super block**: the magic number, the size of a block, the number of the root's inode, the time
//!   of all inodes that have none of their own.
//! * An **inode** has the number of its place: bytes from the start of the image, in units of 32. Most
//!   are *compact*, of 32 bytes. Those that need more are *extended*, of 64: with a time of their own,
//!   an id or a number of links that has more than 16 bits, or a size that has more than 32. One inode that
//!   several names lead to is a file with hard links.
//! * **Contents** lie in consecutive blocks, of which the inode has the first (`FLAT_PLAIN`). Links,
//!   and what a directory has beyond whole blocks, lie behind their inode if both fit into the
//!   inode's block (`FLAT_INLINE`); files never, since DAX maps whole blocks.
//! * A **directory** is a list of entries in the order of the bytes of their names, `.` and `..`
//!   among them. Each of its blocks stands for itself: first the entries, of 12 bytes (inode, where its name
//!   begins in the block, type), then the names without anything between them. Where the last name of a block
//!   does not reach its end, zeros follow.
//! * **Files** follow in the order of their inodes, first those below 2 MiB. The others begin at
//!   multiples of 2 MiB, so that a huge page can map them, and the image ends at one. A hole in a file
//!   is zeros in the image, which take no space where the image is a file.

mod format;
mod inodes;
mod plan;
mod source;
#[cfg(test)]
pub mod tests;
mod tree;
mod write;

pub use plan::{Placed, Plan};
pub use source::{FilePart, HostFile};
pub use tree::{Attributes, Content, Id, Time, Tree};
