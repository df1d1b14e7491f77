//! Files on their way into the guest, and out of it.
//!
//! In both directions they are a stream of records: length of the path, mode, length of the content
//! (64 bits), time (64 bits), path, content. A record whose path has no length ends the stream.

use std::collections::VecDeque;

/// A file, directory or symbolic link; or a file system to mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    pub path: Vec<u8>,
    /// The type and permission bits, as in st_mode (inode(7)).
    pub mode: u32,
    /// The content; for a link, its target.
    pub content: Vec<u8>,
    /// When it was last changed ([`time`]); `None`: when it comes.
    pub modified: Option<i64>,
}

/// Returns a time in nanoseconds since 1970, unless it is centuries away.
pub fn time(seconds: i64, nanoseconds: i64) -> Option<i64> {
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

impl File {
    /// Returns the record that mounts the layer in a window, counted from 0.
    pub fn layer(path: Vec<u8>, window: usize) -> Self {
        Self {
            path,
            mode: kind::MOUNT | 0o444,
            content: format!("/dev/pmem{}\0erofs\0dax\0", window + 1).into(),
            modified: None,
        }
    }

    /// Returns the records that lay the layer in a window over the system's programs.
    pub fn system_layer(window: usize) -> Vec<Self> {
        // The runtime image has this directory, which is empty.
        const PLACE: &str = "/usr/lib/sandbox/layer";
        let options = format!("lowerdir={PLACE}/usr:/usr");
        vec![
            Self::layer(PLACE.into(), window),
            Self {
                path: b"/usr".into(),
                mode: kind::MOUNT | 0o444,
                content: format!("overlay\0overlay\0{options}\0").into(),
                modified: None,
            },
        ]
    }

    /// Returns the records that show the layer in a window at a path, as one with what is made there
    /// later. What they make at the path is below it afterwards, where nobody sees it.
    pub fn writable_layer(path: &str, window: usize) -> Vec<Self> {
        let below = |name: &str| format!("{path}/.{name}");
        let directory = |name: &str| Self {
            path: below(name).into(),
            mode: kind::DIRECTORY | 0o755,
            ..Self::default()
        };
        let [lower, upper, work] = ["lower", "upper", "work"].map(below);
        // Without redirects, a directory of the layer could not be renamed.
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=on");
        vec![
            directory("lower"),
            Self::layer(lower.into(), window),
            directory("upper"),
            directory("work"),
            Self {
                path: path.into(),
                mode: kind::MOUNT | 0o644,
                content: format!("overlay\0overlay\0{options}\0").into(),
                modified: None,
            },
        ]
    }
}

/// Types of files, as bits of a mode.
pub mod kind {
    pub const MASK: u32 = 0o170_000;
    pub const FILE: u32 = 0o100_000;
    pub const DIRECTORY: u32 = 0o040_000;
    pub const LINK: u32 = 0o120_000;
    /// The type, on the way into the guest, of a file system that is mounted on the directory at the
    /// path. The content is its source, type and options, each with a NUL behind it. If the mode has
    /// nobody writing, it cannot be written to.
    pub(super) const MOUNT: u32 = 0o060_000;
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
    /// When it was last changed. On the way into the guest, a directory has a second record with its time, once
    /// all that is in it has come.
    pub modified: Option<i64>,
}

impl Header {
    pub const LENGTH: usize = 24;
    /// The number that says that there is no time.
    const NO_TIME: i64 = i64::MIN;

    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.path.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.mode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        let modified = self.modified.unwrap_or(Self::NO_TIME);
        bytes[16..].copy_from_slice(&modified.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: [u8; Self::LENGTH]) -> Self {
        let (words, _) = bytes.as_chunks();
        let [first, size, modified] = [0, 1, 2].map(|word| u64::from_le_bytes(words[word]));
        let modified = modified as i64;
        Self {
            path: first as u32,
            mode: (first >> 32) as u32,
            size,
            modified: (modified != Self::NO_TIME).then_some(modified),
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
        let mut times = Vec::new();
        for mut file in files {
            let mut header = Header {
                path: file.path.len() as u32,
                mode: file.mode,
                size: file.content.len() as u64,
                modified: file.modified,
            };
            let record = |header: &Header| [&header.encode()[..], &file.path].concat();
            if file.mode & kind::MASK == kind::DIRECTORY && file.modified.is_some() {
                times.push(record(&header));
                header.modified = None;
            }
            pieces.push_back(record(&header));
            pieces.push_back(std::mem::take(&mut file.content));
        }
        pieces.extend(times);
        pieces.push_back(Header::default().encode().into());
        Self { pieces, taken: 0 }
    }

    /// Returns whether all of it was taken.
    pub fn is_taken(&self) -> bool {
        self.pieces.is_empty()
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
        while !stream.is_taken() {
            let taken = stream.take(piece);
            assert!((1..=piece).contains(&taken.len()));
            bytes.extend(taken);
        }
        assert!(stream.take(piece).is_empty());
        bytes
    }

    #[test]
    fn files_are_encoded_as_the_kernel_reads_them() {
        let file = |path: &[u8], content: &[u8]| File {
            path: path.into(),
            mode: 0o100_644,
            content: content.into(),
            modified: Some(258),
        };
        const NO_TIME: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 0x80];
        let mut expected = vec![3, 0, 0, 0, 0xa4, 0x81, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"a/bxy");
        expected.extend([1, 0, 0, 0, 0xa4, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(NO_TIME);
        expected.extend(b"c");
        expected.extend([0; 16]);
        expected.extend(NO_TIME);
        let second = File {
            modified: None,
            ..file(b"c", b"")
        };
        for piece in [1, 3, 16, 1000] {
            let files = vec![file(b"a/b", b"xy"), second.clone()];
            assert_eq!(all(files, piece), expected);
        }
    }

    #[test]
    fn the_time_of_a_directory_comes_after_all_that_is_in_it() {
        let file = |path: &str, mode| File {
            path: path.into(),
            mode,
            modified: Some(1),
            ..File::default()
        };
        let files = vec![
            file("d", kind::DIRECTORY | 0o755),
            file("d/f", kind::FILE | 0o644),
        ];
        let mut bytes = &all(files, 1000)[..];
        let mut records = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk() {
            let header = Header::decode(*header);
            let (path, rest) = rest.split_at(header.path as usize);
            records.push((str::from_utf8(path).unwrap(), header.modified));
            bytes = rest;
        }
        let expected = [("d", None), ("d/f", Some(1)), ("d", Some(1)), ("", None)];
        assert_eq!(records, expected);
    }

    proptest! {
        #[test]
        fn a_header_is_what_was_encoded(path: u32, mode: u32, size: u64, time: i64) {
            let modified = (time != i64::MIN).then_some(time);
            let header = Header { path, mode, size, modified };
            prop_assert_eq!(Header::decode(header.encode()), header);
        }
    }
}
