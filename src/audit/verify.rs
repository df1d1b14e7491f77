//! Verification that a log is as it was written.

use crate::audit::line::{GENESIS, LINE_MAX, Link, Torn, parse};
use crate::error::Remedy;
use crate::record::Anchor;
use anyhow::{Context, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A log in which nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    pub entries: u64,
    /// The last entry. Whoever keeps this can tell later whether anything before it has changed.
    pub head: Anchor,
    /// How often killed writers left torn lines; the entry after such lines records them.
    pub torn: u64,
    /// Runs and sessions without an end in the log: they go on, or were killed with the process that would have
    /// written it.
    pub open: Vec<u64>,
}

/// The first fault of a log. Nothing after it can be vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub file: PathBuf,
    /// The number of the line, from 1; `None` if the fault is not in one line.
    pub line: Option<u64>,
    pub what: String,
    pub remedy: Option<Remedy>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            Some(line) => write!(f, "{file}, line {line}: {}", self.what),
            None => write!(f, "{file}: {}", self.what),
        }
    }
}

/// Verifies the log in this file and in the full ones before it, against the `anchors` that somebody
/// kept of it. The outer error is an error of reading.
pub fn verify(path: &Path, anchors: &[Anchor]) -> Result<Result<Sound, Fault>> {
    let parts = parts(path)?;
    let mut chain = Chain::new(anchors);
    for part in &parts {
        if let Some((line, what)) = chain.follow(part)? {
            return Ok(Err(Fault {
                file: part.path.clone(),
                line,
                what,
                remedy: chain.lacks.map(Remedy::GiveAnchor),
            }));
        }
    }
    Ok(chain.end().map_err(|what| Fault {
        file: path.into(),
        line: None,
        what,
        remedy: None,
    }))
}

/// A file of a log.
struct Part {
    path: PathBuf,
    /// The number in the file's name; `None` for the last file, which has none.
    number: Option<u64>,
    file: File,
    /// The file's size at a moment when nobody wrote to the log.
    size: u64,
}

/// Opens the files of a log, in their order.
fn parts(path: &Path) -> Result<Vec<Part>> {
    let doing = || format!("opening the audit log {}", path.display());
    let file = open(path).with_context(doing)?;
    // The lock is held for a moment, so that no line is half written. Later lines are not read.
    let file = Flock::lock(file, FlockArg::LockShared)
        .map_err(|(_, errno)| errno)
        .with_context(doing)?;
    let mut parts = BTreeMap::new();
    let mut seen = BTreeSet::from([file.metadata().with_context(doing)?.ino()]);
    for (number, path) in numbered(path).with_context(doing)? {
        let file = open(&path).with_context(|| format!("opening {}", path.display()))?;
        let metadata = file.metadata().with_context(doing)?;
        // A writer that was killed while it began a new file leaves the full one under two names.
        if seen.insert(metadata.ino()) {
            let part = Part {
                path,
                number: Some(number),
                file,
                size: metadata.len(),
            };
            parts.insert(number, part);
        }
    }
    let size = file.metadata().with_context(doing)?.len();
    let file = file
        .unlock()
        .map_err(|(_, errno)| errno)
        .with_context(doing)?;
    let last = Part {
        path: path.into(),
        number: None,
        file,
        size,
    };
    Ok(parts.into_values().chain([last]).collect())
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        // Opening does not block: with a FIFO it would, until somebody writes to it.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    ensure!(file.metadata()?.is_file(), "it is not a regular file");
    Ok(file)
}

/// Finds the full files of a log, with their numbers.
fn numbered(path: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let directory = path.parent().filter(|path| *path != Path::new(""));
    let mut beginning = path.file_name().unwrap_or_default().to_os_string();
    beginning.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .as_encoded_bytes()
            .strip_prefix(beginning.as_encoded_bytes())
            .filter(|digits| digits.first() != Some(&b'0'))
            .and_then(|digits| str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found)
}

/// The line of a fault, if it is in one, and a description of the fault.
type Found = (Option<u64>, String);

/// The chain of entries, as far as it was followed.
struct Chain {
    anchors: BTreeMap<u64, String>,
    entries: u64,
    /// The last entry; `None` before the first.
    head: Option<Anchor>,
    torn: u64,
    open: BTreeSet<u64>,
    /// The entry before the first, if nobody told its hash: the fault is that.
    lacks: Option<u64>,
    /// The lines since the last entry that are not entries, and the fault of the first of them.
    odd: Vec<u8>,
    first_odd: Option<Found>,
}

/// The members of an entry that say which run or session began or ended.
#[derive(serde::Deserialize)]
struct Story {
    event: String,
    run: Option<u64>,
}

impl Chain {
    fn new(anchors: &[Anchor]) -> Self {
        let anchors = anchors.iter().cloned();
        Self {
            anchors: anchors
                .map(|anchor| (anchor.sequence, anchor.hash))
                .collect(),
            entries: 0,
            head: None,
            torn: 0,
            open: BTreeSet::new(),
            lacks: None,
            odd: Vec::new(),
            first_odd: None,
        }
    }

    /// Reads a file; returns the first fault in it.
    fn follow(&mut self, part: &Part) -> Result<Option<Found>> {
        let doing = || format!("reading {}", part.path.display());
        let mut reader = BufReader::new(&part.file).take(part.size);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut limited = (&mut reader).take(LINE_MAX);
            limited.read_until(b'\n', &mut line).with_context(doing)?;
            let found = match line.strip_suffix(b"\n") {
                None if line.is_empty() => break,
                // If the line goes on after `LINE_MAX` bytes, it is too long to be an entry either.
                None => Some((
                    Some(number),
                    "it is incomplete: its writer was killed, which the next entry will tell, or \
                     it was cut"
                        .into(),
                )),
                Some(text) => self.next(text, number, part.number),
            };
            if found.is_some() {
                // The first fault counts.
                return Ok(self.first_odd.take().or(found));
            }
        }
        Ok(self.first_odd.take())
    }

    fn next(&mut self, line: &[u8], number: u64, file: Option<u64>) -> Option<Found> {
        match parse(line) {
            Ok((link, hash)) => self
                .entry(&link, hash, file)
                .or_else(|| self.tell(line))
                .map(|what| (Some(number), what)),
            Err(what) => {
                self.odd.extend_from_slice(line);
                self.odd.push(b'\n');
                let odd = (Some(number), what.into());
                self.first_odd.get_or_insert(odd);
                // Killed writers do not leave this much.
                (self.odd.len() as u64 > 4 * LINE_MAX).then(|| (Some(number), what.into()))
            }
        }
    }

    fn entry(&mut self, link: &Link, hash: String, file: Option<u64>) -> Option<String> {
        if let Some(what) = self.check_torn(link).or_else(|| self.check_place(link)) {
            return Some(what);
        }
        if file.is_some_and(|file| file != link.file) {
            return Some(format!("it was written to file {}", link.file));
        }
        if let Some(kept) = self.anchors.remove(&link.sequence)
            && kept != hash
        {
            return Some(format!(
                "entry {} is not the one whose hash was kept",
                link.sequence
            ));
        }
        self.entries += 1;
        self.head = Some(Anchor {
            sequence: link.sequence,
            hash,
        });
        None
    }

    fn check_torn(&mut self, link: &Link) -> Option<String> {
        let odd = std::mem::take(&mut self.odd);
        match &link.torn {
            None if odd.is_empty() => None,
            Some(torn) if !odd.is_empty() && *torn == Torn::new(&odd) => {
                self.first_odd = None;
                self.torn += 1;
                None
            }
            // The fault is then that of the lines before this entry.
            _ if !odd.is_empty() => Some("it does not tell of the lines before it".into()),
            _ => Some("it tells of an incomplete line before it, which is missing".into()),
        }
    }

    fn check_place(&mut self, link: &Link) -> Option<String> {
        let before = link.sequence.wrapping_sub(1);
        let head = match self.head.take() {
            Some(head) => head,
            None if before == 0 => Anchor {
                sequence: 0,
                hash: GENESIS.into(),
            },
            None => match self.anchors.remove(&before) {
                Some(hash) => Anchor {
                    sequence: before,
                    hash,
                },
                None => {
                    self.lacks = Some(before);
                    return Some(format!("the log begins with entry {}", link.sequence));
                }
            },
        };
        let expected = head.sequence + 1;
        match link.sequence {
            sequence if sequence == expected && link.previous == head.hash => None,
            sequence if sequence == expected => {
                Some("it is not the one that came after the entry before it".into())
            }
            sequence if sequence > expected => {
                Some(format!("entries {expected} to {before} are missing"))
            }
            sequence => Some(format!(
                "entry {sequence} is out of its place, where {expected} should be"
            )),
        }
    }

    fn tell(&mut self, line: &[u8]) -> Option<String> {
        let Ok(Story { event, run }) = serde_json::from_slice(line) else {
            return Some("it does not say what happened".into());
        };
        match (event.as_str(), run, &self.head) {
            ("start" | "session", _, Some(head)) => drop(self.open.insert(head.sequence)),
            ("end" | "session_end", Some(run), _) => drop(self.open.remove(&run)),
            _ => {}
        }
        None
    }

    fn end(self) -> Result<Sound, String> {
        let last = self.head.as_ref().map_or(0, |head| head.sequence);
        if let Some(kept) = self.anchors.keys().next() {
            return Err(match *kept > last {
                true => format!("it ends with entry {last}, and entry {kept} was kept: it was cut"),
                false => format!("entry {kept}, which was kept, is not in it"),
            });
        }
        Ok(Sound {
            entries: self.entries,
            head: self.head.unwrap_or(Anchor {
                sequence: 0,
                hash: GENESIS.into(),
            }),
            torn: self.torn,
            open: self.open.into_iter().collect(),
        })
    }
}
