//! The end of a log: its last entry, and the bytes after that.

use crate::audit::line::{GENESIS, LINE_MAX, Link, parse, was_whole};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Upper bound on the bytes at the end that are searched for an entry. A killed writer leaves a piece
/// of one line, and each that comes after it and is killed too leaves one more.
const TORN_MAX: u64 = 4 * LINE_MAX;
const STEP: u64 = 64 << 10;

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The number of the last entry.
    pub sequence: u64,
    pub hash: String,
    /// The number of the last entry's file.
    pub file: u64,
    /// The bytes that follow the last entry.
    pub rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// Nothing follows, and the entry's newline is missing too.
    NoNewline,
    /// The bytes that killed writers left.
    Torn(Vec<u8>),
}

impl Tail {
    /// Returns the tail of a log without entries.
    fn genesis(rest: Rest) -> Self {
        Self {
            sequence: 0,
            hash: GENESIS.into(),
            file: 1,
            rest,
        }
    }

    fn of((link, hash): (Link, String), rest: Rest) -> Self {
        Self {
            sequence: link.sequence,
            hash,
            file: link.file,
            rest,
        }
    }

    /// Reads the end of a file of this size. Returns `None` if the file is not a log, or if its end
    /// was changed.
    pub fn read(file: &File, size: u64) -> io::Result<Option<Self>> {
        let mut end = Vec::new();
        loop {
            let read = end.len() as u64;
            if let Some(tail) = find(&end, read == size) {
                return Ok(tail);
            }
            if read >= TORN_MAX {
                return Ok(None);
            }
            // The piece doubles each time, so the time is linear in the bytes that are needed.
            let more = read.max(STEP).min(size - read);
            let mut bytes = vec![0; more as usize];
            file.read_exact_at(&mut bytes, size - read - more)?;
            bytes.append(&mut end);
            end = bytes;
        }
    }
}

/// Finds the end of a log in the last bytes of a file, or in all of them. The outer `None` means that
/// more bytes are needed.
fn find(bytes: &[u8], all: bool) -> Option<Option<Tail>> {
    // The end of the line that is looked at; the bytes after that line begin there too.
    let mut end = bytes.len();
    loop {
        let start = match bytes[..end].iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if all => 0,
            None => return None,
        };
        let line = &bytes[start..end];
        let after = &bytes[end..];
        if let Ok(entry) = parse(line) {
            let rest = match after {
                [] => Rest::NoNewline,
                [b'\n'] => Rest::Nothing,
                [_, torn @ ..] => Rest::Torn(torn.into()),
            };
            return Some(Some(Tail::of(entry, rest)));
        }
        if was_whole(line) {
            return Some(None);
        }
        match start.checked_sub(1) {
            Some(newline) => end = newline,
            None if bytes.is_empty() => return Some(Some(Tail::genesis(Rest::Nothing))),
            None if is_beginning(bytes) => {
                return Some(Some(Tail::genesis(Rest::Torn(bytes.into()))));
            }
            None => return Some(None),
        }
    }
}

/// Checks whether the bytes may be a piece of the first entry of a log.
fn is_beginning(bytes: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"{\"sequence\":1,";
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or(bytes);
    line.starts_with(BEGINNING) || BEGINNING.starts_with(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::{Event, Refusal};
    use crate::audit::line::line;
    use std::io::Write;
    use std::time::SystemTime;

    fn entry(sequence: u64, padding: usize) -> (Vec<u8>, String) {
        let link = Link {
            sequence,
            file: 3,
            previous: GENESIS.into(),
            torn: None,
        };
        let event = Event::Refusal(Refusal {
            what: "x".repeat(padding),
            asked: None,
            allowed: String::new(),
            retry_after_s: None,
        });
        line(&link, "", &event, SystemTime::UNIX_EPOCH)
    }

    fn tail(bytes: &[u8]) -> Option<Tail> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Tail::read(&file, bytes.len() as u64).unwrap()
    }

    #[test]
    fn the_last_entry_is_found_whatever_its_length() {
        for padding in [0, 100, STEP as usize, 3 * STEP as usize] {
            let ((first, _), (last, hash)) = (entry(1, padding), entry(2, padding));
            let expected = Tail {
                sequence: 2,
                hash,
                file: 3,
                rest: Rest::Nothing,
            };
            assert_eq!(tail(&[first, last].concat()), Some(expected));
        }
    }

    #[test]
    fn a_line_torn_at_any_byte_is_told_from_the_entry_before_it() {
        let ((first, hash), (torn, torn_hash)) = (entry(1, 0), entry(2, 0));
        for length in 1..torn.len() {
            let found = tail(&[&first, &torn[..length]].concat()).unwrap();
            if length == torn.len() - 1 {
                assert_eq!(
                    (found.hash, found.rest),
                    (torn_hash.clone(), Rest::NoNewline)
                );
            } else {
                let rest = Rest::Torn(torn[..length].into());
                assert_eq!((found.hash, found.rest), (hash.clone(), rest), "{length}");
            }
        }
    }

    #[test]
    fn the_first_line_may_be_torn_too() {
        let (first, _) = entry(1, 0);
        assert_eq!(tail(b""), Some(Tail::genesis(Rest::Nothing)));
        for length in 1..first.len() - 2 {
            let rest = Rest::Torn(first[..length].into());
            assert_eq!(
                tail(&first[..length]),
                Some(Tail::genesis(rest)),
                "{length}"
            );
        }
    }

    #[test]
    fn lines_that_were_torn_one_after_the_other_are_told_together() {
        let (first, hash) = entry(1, 0);
        for torn in ["{\"seq\n{\"se", "{\"seq\n", "{\n\n"] {
            let found = tail(&[&first, torn.as_bytes()].concat()).unwrap();
            let rest = Rest::Torn(torn.into());
            assert_eq!((found.hash, found.rest), (hash.clone(), rest), "{torn:?}");
        }
    }

    #[test]
    fn what_is_no_log_is_not_taken_for_one() {
        let mut changed = entry(1, 0).0;
        changed[3] ^= 1;
        for bytes in [b"root:x:0:0\n", b"{\"seq\"}\n[]\n".as_slice(), &changed] {
            assert_eq!(tail(bytes), None, "{bytes:?}");
        }
    }
}
