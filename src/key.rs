//! Keys: names of files that are kept on disk, made from everything that they depend on.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A name of 32 hexadecimal digits, which depend on all the parts that were hashed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(String);

impl Key {
    /// The digits, and so the bytes, of a key.
    pub const LENGTH: usize = 32;

    /// Makes the key of these parts, each of which may have any length.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // The length is hashed too, lest a byte move from one part to the next unnoticed.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut digits = format!("{:x}", hash.finalize());
        digits.truncate(Self::LENGTH);
        Self(digits)
    }

    /// Returns the key with this name, if the name is one of a key.
    pub fn parse(name: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (name.len() == Self::LENGTH && name.bytes().all(is_digit)).then(|| Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_part_and_on_where_it_ends() {
        let keys = [
            Key::of(&[b"ab", b"c"]),
            Key::of(&[b"a", b"bc"]),
            Key::of(&[b"abc"]),
            Key::of(&[b"abc", b""]),
            Key::of(&[]),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(Key::parse(key.as_str()).as_ref(), Some(key));
            assert!(!keys[..index].contains(key));
        }
    }

    #[test]
    fn what_is_no_key_does_not_parse() {
        for name in ["", "0", "../../../../../../../../etc/pass", &"G".repeat(32)] {
            assert_eq!(Key::parse(name), None);
        }
    }
}
