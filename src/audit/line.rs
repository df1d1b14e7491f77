//! The line of an entry, a link of the chain that the log is.
//!
//! The last member of the object is its hash: the SHA-256 of all of the line that comes before
//! `,"hash"`. A check needs no canonical form of the JSON.

use crate::audit::entry::Event;
use crate::json::to_line;
use crate::text::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::SystemTime;

/// Upper bound on the bytes of a line, with room for the code that it may hold, each byte escaped.
pub const LINE_MAX: u64 = 8 << 20;
/// The value of `previous` in the first entry, which has none before it.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Bytes between two entries that belong to neither: the remains of a writer that was killed, with
/// the newline that the next writer put after them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    pub bytes: u64,
    pub sha256: String,
}

impl Torn {
    pub fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            sha256: hex(&Sha256::digest(bytes)),
        }
    }
}

/// The members that make an entry a link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub sequence: u64,
    /// The number of the file that the entry was written to, from 1.
    pub file: u64,
    /// The hash of the entry before, whichever file that is in.
    pub previous: String,
    /// The bytes before this entry that are not an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    link: &'a Link,
    time: String,
    client: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}";
const HASH: usize = 64;

/// Returns the line of an entry, with its newline, and the entry's hash.
pub fn line(link: &Link, client: &str, event: &Event, now: SystemTime) -> (Vec<u8>, String) {
    let entry = Entry {
        link,
        time: humantime::format_rfc3339_millis(now).to_string(),
        client,
        event,
    };
    let mut line = to_line(&entry).expect("no map in it has keys but text");
    line.pop();
    let hash = hex(&Sha256::digest(&line));
    for piece in [BEFORE_HASH, hash.as_bytes(), AFTER_HASH, b"\n"] {
        line.extend_from_slice(piece);
    }
    (line, hash)
}

/// Parses a line without its newline; returns its place in the chain and its hash. The error says
/// why the line is not an entry.
pub fn parse(line: &[u8]) -> Result<(Link, String), &'static str> {
    let (hashed, hash) = split(line).ok_or("it is not an entry")?;
    if hex(&Sha256::digest(hashed)).as_bytes() != hash {
        return Err("it was changed: its hash does not fit");
    }
    let link = serde_json::from_slice(line).map_err(|_| "it is not an entry")?;
    Ok((link, String::from_utf8_lossy(hash).into_owned()))
}

/// Splits a line into the part that is hashed and the hash.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(AFTER_HASH)?;
    let (line, hash) = line.split_at_checked(line.len().checked_sub(HASH)?)?;
    Some((line.strip_suffix(BEFORE_HASH)?, hash))
}

/// Checks whether a line that is not an entry was once a whole one, which a killed writer does not
/// leave. A quote within JSON text is escaped, so the line has the hash's member at most once.
pub fn was_whole(line: &[u8]) -> bool {
    let mut places = line.windows(BEFORE_HASH.len());
    places
        .rposition(|window| window == BEFORE_HASH)
        .is_some_and(|start| line.len() - start >= BEFORE_HASH.len() + HASH + AFTER_HASH.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::entry::{Code, Files, KEPT_CODE_MAX, Limits, Start};
    use crate::record::Limit;

    fn link() -> Link {
        Link {
            sequence: 7,
            file: 2,
            previous: GENESIS.into(),
            torn: None,
        }
    }

    fn example() -> Vec<u8> {
        let event = Event::Limit {
            run: 3,
            limit: Limit::Timeout,
        };
        let (mut line, _) = line(&link(), "somebody", &event, SystemTime::UNIX_EPOCH);
        assert_eq!(line.pop(), Some(b'\n'));
        line
    }

    #[test]
    fn an_entry_is_one_line_that_says_what_where_and_when() {
        let text = String::from_utf8(example()).unwrap();
        let expected = format!(
            "{{\"sequence\":7,\"file\":2,\"previous\":\"{GENESIS}\",\"time\":\"1970-01-01T00:00:00.000Z\",\
             \"client\":\"somebody\",\"event\":\"limit\",\"run\":3,\"limit\":\"timeout\",\"hash\":\""
        );
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(parse(text.as_bytes()).unwrap().0, link());
    }

    #[test]
    fn no_byte_of_an_entry_can_change() {
        let line = example();
        for position in 0..line.len() {
            for change in [1, 0x20, 0x80, line[position]] {
                let mut changed = line.clone();
                changed[position] ^= change;
                assert!(parse(&changed).is_err(), "{position} {change}");
            }
        }
    }

    #[test]
    fn the_longest_entry_is_under_the_limit() {
        // Each byte of this code is escaped to six.
        let start = Start {
            session: None,
            code: Code::new(&vec![1; KEPT_CODE_MAX], true),
            language: "python".into(),
            arguments: 0,
            environment: Vec::new(),
            files: Files::default(),
            limits: Limits {
                memory: 0,
                timeout_s: None,
                output: 0,
                pids: 1,
                stdin: None,
            },
            root: false,
        };
        let (line, _) = line(&link(), "", &Event::Start(start), SystemTime::UNIX_EPOCH);
        assert!((line.len() as u64) < LINE_MAX);
    }
}
