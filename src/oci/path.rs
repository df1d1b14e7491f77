//! Paths in archives: the names on the way from the root.

use crate::error::Error;
use crate::oci::refusal::{malformed, shown};

/// Upper bound on the bytes of a name (NAME_MAX).
const NAME_MAX: usize = 255;

/// The names on the way from the root, of which each can be that of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<Vec<u8>>);

impl Path {
    /// Reads a path. Whether it begins at the root makes no difference; it never leads out of it.
    pub fn parse(bytes: &[u8], depth_max: usize) -> Result<Self, Error> {
        let refuse = |why: &str| Err(malformed(format!("the path {} {why}", shown(bytes))));
        if bytes.is_empty() {
            return Err(malformed("an entry has no name"));
        }
        let mut names = Vec::new();
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return refuse("has \"..\" in it, which may lead out of the image"),
                _ if name.contains(&0) => return refuse("has a zero byte in it"),
                _ if name.len() > NAME_MAX => return refuse("has a name of more than 255 bytes"),
                _ if names.len() > depth_max => return refuse("is too deep"),
                _ => names.push(name.to_vec()),
            }
        }
        Ok(Self(names))
    }

    pub fn names(&self) -> &[Vec<u8>] {
        &self.0
    }

    /// Returns the names before the last, and the last; `None` for the root.
    pub fn split_last(&self) -> Option<(&[Vec<u8>], &[u8])> {
        let (last, before) = self.0.split_last()?;
        Some((before, last))
    }

    /// Returns whether this is a directory at the root, or leads into it.
    pub fn is_in(&self, directory: &[u8]) -> bool {
        self.0.first().is_some_and(|first| first == directory)
    }

    /// Returns the path with slashes between the names.
    pub fn joined(&self) -> Vec<u8> {
        self.0.join(&b'/')
    }
}
