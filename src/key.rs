//! Names of what is kept on disk, made of all that it depends on.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// A name of 32 hexadecimal digits that depend on all that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(String);

impl Key {
    /// Digits, and so bytes, of a key.
    pub const LENGTH: usize = 32;

    /// The key of what these parts make, each of any length.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // With its length, lest a byte move from one part to the next unnoticed.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut digits = format!("{:x}", hash.finalize());
        digits.truncate(Self::LENGTH);
        Self(digits)
    }

    /// The key with this name, if it is one.
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
