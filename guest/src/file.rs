//! Files on their way into the guest, and out of it.
//!
//! In both directions they are a stream of records: length of the path, mode, length of the content
//! (64 bits), path, content. A record whose path has no length ends the stream.

use std::collections::VecDeque;

/// A file, directory or symbolic link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    pub path: Vec<u8>,
    /// The type and permission bits, as in st_mode (inode(7)).
    pub mode: u32,
    /// The content; for a link, its target.
    pub content: Vec<u8>,
}

/// Types of files, as bits of a mode.
pub mod kind {
    pub const MASK: u32 = 0o170_000;
    pub const FILE: u32 = 0o100_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const LINK: u32 = 0o120_000;
    /// The type, on the way out of the guest, of a file that could not be read; the length is its
    /// errno.
    pub const UNREADABLE: u32 = 0;
}

/// The header of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// The bytes of the path.
    pub path: u32,
    pub mode: u32,
    /// The bytes of the content.
    pub size: u64,
}

impl Header {
    pub const LENGTH: usize = 16;

    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.path.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.mode.to_le_bytes());
        bytes[8..].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: [u8; Self::LENGTH]) -> Self {
        let number = u128::from_le_bytes(bytes);
        Self {
            path: number as u32,
            mode: (number >> 32) as u32,
            size: (number >> 64) as u64,
        }
    }
}

/// A stream of files, as the guest kernel takes it (kernel-config/patches, "host services"). The
/// contents are not copied, and are freed once they are taken.
#[derive(Debug, Default)]
pub struct FileStream {
    pieces: VecDeque<Vec<u8>>,
    /// The bytes of the first piece that were taken.
    taken: usize,
}

impl FileStream {
    pub fn new(files: Vec<File>) -> Self {
        let mut pieces = VecDeque::with_capacity(2 * files.len() + 1);
        for file in files {
            let header = Header {
                path: file.path.len() as u32,
                mode: file.mode,
                size: file.content.len() as u64,
            };
            pieces.push_back([&header.encode()[..], &file.path].concat());
            pieces.push_back(file.content);
        }
        pieces.push_back(Header::default().encode().into());
        Self { pieces, taken: 0 }
    }

    /// Returns the next bytes, at most `room`, and none at the end.
    pub fn take(&mut self, room: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.pieces.front() {
            let rest = &piece[self.taken..];
            let count = rest.len().min(room - bytes.len());
            bytes.extend(&rest[..count]);
            self.taken += count;
            if self.taken < piece.len() {
                break;
            }
            self.pieces.pop_front();
            self.taken = 0;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(files: Vec<File>, piece: usize) -> Vec<u8> {
        let mut stream = FileStream::new(files);
        let mut bytes = Vec::new();
        loop {
            let taken = stream.take(piece);
            assert!(taken.len() <= piece);
            if taken.is_empty() {
                return bytes;
            }
            bytes.extend(taken);
        }
    }

    #[test]
    fn files_are_encoded_as_the_kernel_reads_them() {
        let file = |path: &[u8], content: &[u8]| File {
            path: path.into(),
            mode: 0o100_644,
            content: content.into(),
        };
        let mut expected = vec![3, 0, 0, 0, 0xa4, 0x81, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        expected.extend(b"a/bxy");
        expected.extend([1, 0, 0, 0, 0xa4, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"c");
        expected.extend([0; 16]);
        for piece in [1, 3, 16, 1000] {
            assert_eq!(
                all(vec![file(b"a/b", b"xy"), file(b"c", b"")], piece),
                expected
            );
        }
    }

    proptest! {
        #[test]
        fn a_header_is_what_was_encoded(path: u32, mode: u32, size: u64) {
            let header = Header { path, mode, size };
            prop_assert_eq!(Header::decode(header.encode()), header);
        }
    }
}
