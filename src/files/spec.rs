//! The files that the user names, `HOST[:GUEST]` and `GUEST[:HOST]`. A colon that is part of a path is
//! written `\:`; the host's path may also have it as it is, where the guest's follows or a colon ends it.

use crate::wire::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A file or directory for the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Put {
    pub content: PutContent,
    /// Its path there; by default, the name that it has here.
    #[serde(with = "crate::wire")]
    #[schemars(with = "Option<Bytes>")]
    pub guest: Option<OsString>,
}

/// The source of something that goes into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PutContent {
    /// A path of the host.
    Host(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        PathBuf,
    ),
    /// The content of a file.
    Given(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        Vec<u8>,
    ),
}

/// A file or directory that the guest leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Get {
    #[serde(with = "crate::wire")]
    #[schemars(with = "Bytes")]
    pub guest: OsString,
    #[serde(with = "crate::wire")]
    #[schemars(with = "Option<Bytes>")]
    pub host: Option<PathBuf>,
}

impl Put {
    pub fn parse(word: &OsStr) -> Result<Self, String> {
        let (host, guest) = split(word, colons(word).last());
        Ok(Self {
            content: PutContent::Host(host.ok_or("give HOST, or HOST:GUEST")?.into()),
            guest,
        })
    }
}

impl Get {
    pub fn parse(word: &OsStr) -> Result<Self, String> {
        let (guest, host) = split(word, colons(word).next());
        Ok(Self {
            guest: guest.ok_or("give GUEST, or GUEST:HOST")?,
            host: host.map(PathBuf::from),
        })
    }
}

/// Returns the places of the colons that no backslash stands before.
fn colons(word: &OsStr) -> impl Iterator<Item = usize> {
    let bytes = word.as_bytes();
    (0..bytes.len()).filter(|&at| bytes[at] == b':' && (at == 0 || bytes[at - 1] != b'\\'))
}

/// Splits a word at the colon; an empty part becomes `None`.
fn split(word: &OsStr, colon: Option<usize>) -> (Option<OsString>, Option<OsString>) {
    let bytes = word.as_bytes();
    let (before, after) = match colon {
        Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
        None => (bytes, &b""[..]),
    };
    (path(before), path(after))
}

/// Returns the path that is written so, unless it is empty.
fn path(written: &[u8]) -> Option<OsString> {
    let mut path = Vec::with_capacity(written.len());
    for (at, &byte) in written.iter().enumerate() {
        if !(byte == b'\\' && written.get(at + 1) == Some(&b':')) {
            path.push(byte);
        }
    }
    (!path.is_empty()).then(|| OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_split_at_its_last_colon_and_a_get_at_its_first() {
        for (word, host, guest) in [
            ("a", "a", None),
            ("a:b", "a", Some("b")),
            ("a:b:c", "a:b", Some("c")),
            ("a:b:", "a:b", None),
            (r"log-12\:00.csv", "log-12:00.csv", None),
            (r"a\:b:c\:d", "a:b", Some("c:d")),
            (r"a\b", r"a\b", None),
        ] {
            let put = Put {
                content: PutContent::Host(host.into()),
                guest: guest.map(OsString::from),
            };
            assert_eq!(Put::parse(OsStr::new(word)), Ok(put), "{word}");
        }
        for (word, guest, host) in [
            ("a", "a", None),
            ("a:b", "a", Some("b")),
            ("a:b:c", "a", Some("b:c")),
            ("a:", "a", None),
            (r"out-12\:30.txt", "out-12:30.txt", None),
            (r"a\:b:c:d", "a:b", Some("c:d")),
        ] {
            let get = Get {
                guest: guest.into(),
                host: host.map(PathBuf::from),
            };
            assert_eq!(Get::parse(OsStr::new(word)), Ok(get), "{word}");
        }
    }

    #[test]
    fn something_must_be_named() {
        for word in ["", ":", ":a"] {
            assert!(Put::parse(OsStr::new(word)).is_err(), "{word}");
            assert!(Get::parse(OsStr::new(word)).is_err(), "{word}");
        }
    }
}
