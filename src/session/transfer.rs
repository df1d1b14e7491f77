//! Files on their way over a connection to a session.

use crate::error::{Error, Kind, Remedy, Session};
use crate::record::{Encoding, Record, Status};
use crate::session::bytes_of;
use crate::session::client::Client;
use crate::session::protocol::{Message, Request};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::CHANNEL_WINDOW;
use nix::errno::Errno;
use std::io::{ErrorKind, Write};

/// The most bytes of one request.
const PIECE: usize = 128 << 10;
/// The remedy for files that have no place.
const PLACES: &str =
    "name a place below /work, /tmp or /dev/shm, with room in it, and a directory as DIRECTORY/";
/// The most bytes that are kept of what the guest complains of.
const COMPLAINT_MAX: usize = 4 << 10;

/// A connection over which files go, once `put` or `get` was asked for.
pub struct Transfer<'a> {
    client: &'a mut Client,
    /// The words of the guest's about what it could not do.
    complaint: Vec<u8>,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl<'a> Transfer<'a> {
    pub fn new(client: &'a mut Client) -> Self {
        Self {
            client,
            complaint: Vec::new(),
            direction: Direction::In,
        }
    }

    /// Sends all that `next` gives, at most so many bytes at once.
    pub fn send(&mut self, mut next: impl FnMut(usize) -> Result<Vec<u8>>) -> Result<()> {
        self.direction = Direction::In;
        let mut under_way = 0;
        let mut has_ended = false;
        loop {
            while !has_ended && under_way < CHANNEL_WINDOW {
                let bytes = next(PIECE.min(CHANNEL_WINDOW - under_way))?;
                has_ended = bytes.is_empty();
                under_way += bytes.len();
                self.client.send(&match has_ended {
                    true => Request::InputEnd {},
                    false => Request::Input {
                        data: STANDARD.encode(&bytes),
                        encoding: Encoding::Base64,
                    },
                })?;
            }
            match self.hear(&mut std::io::sink())? {
                Reply::Taken(bytes) => under_way = under_way.saturating_sub(bytes),
                Reply::Ended => return Ok(()),
                Reply::Other => {}
            }
        }
    }

    /// Writes all that comes, or as much as whoever extracts it takes: that has told then why it takes no more.
    pub fn receive(&mut self, out: &mut impl Write) -> Result<()> {
        self.direction = Direction::Out;
        while !matches!(self.hear(out)?, Reply::Ended) {}
        Ok(())
    }

    fn hear(&mut self, out: &mut impl Write) -> Result<Reply> {
        match self.client.receive()? {
            Message::Output(piece) if piece.stream == "stdout" => {
                let bytes = bytes_of(piece.data, piece.encoding)?;
                match out.write_all(&bytes) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Reply::Ended),
                    result => result.context("writing what came")?,
                }
            }
            Message::Output(piece) => {
                let room = COMPLAINT_MAX.saturating_sub(self.complaint.len());
                let bytes = bytes_of(piece.data, piece.encoding)?;
                self.complaint.extend(bytes.into_iter().take(room));
            }
            Message::Taken { bytes } => return Ok(Reply::Taken(bytes)),
            Message::Ended { record, .. } => return self.ended(&record),
            Message::Refused { error } => return Err(error.into()),
            _ => {}
        }
        Ok(Reply::Other)
    }

    /// Tells what the guest could not do.
    fn ended(&self, record: &Record) -> Result<Reply> {
        let complaint = String::from_utf8_lossy(&self.complaint);
        let failed = "the session could not move the files";
        let (message, remedy) = match (record.exit_code, record.status, complaint.trim()) {
            (Some(0), ..) => return Ok(Reply::Ended),
            (_, Status::Timeout, _) => (
                "the files could not be moved within the time limit".into(),
                "move fewer or smaller files at once, or give them longer".into(),
            ),
            (_, Status::Oom, _) => (
                "the session has too little memory to move the files".into(),
                Remedy::UseSession(Session::StartWithMemory(None)),
            ),
            (_, _, "") => (failed.into(), remedy("", self.direction)),
            (_, _, complaint) => (
                format!("{failed}: {complaint}"),
                remedy(complaint, self.direction),
            ),
        };
        Err(Error::new(Kind::File, message, remedy).into())
    }
}

/// Returns what to do about what the guest complains of.
fn remedy(complaint: &str, direction: Direction) -> Remedy {
    let says = |errno: Errno| complaint.contains(errno.desc());
    let has_no_place = || {
        [Errno::EROFS, Errno::ENOSPC, Errno::EACCES]
            .map(says)
            .contains(&true)
    };
    let is_taken = || {
        [Errno::EISDIR, Errno::EEXIST, Errno::ENOTDIR]
            .map(says)
            .contains(&true)
    };
    let words = match direction {
        // The agent says so of a user that the guest's /etc/passwd does not have.
        _ if complaint.contains("no such user") => {
            "name a user that the guest has, or leave the user out"
        }
        Direction::In if has_no_place() => PLACES,
        Direction::In if is_taken() => {
            "give it another path, where nothing is in its way; a directory to put it into is named as DIRECTORY/"
        }
        Direction::In if complaint.starts_with("tar: ") => "give a tar archive that is whole",
        Direction::Out if says(Errno::EACCES) => "name a user who may read them",
        _ => "look at what is there with a command in the session, and try again",
    };
    words.into()
}

/// The part of a transfer that a message tells of.
enum Reply {
    /// So many bytes were taken.
    Taken(usize),
    /// It is over.
    Ended,
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_complains_of_is_told_with_what_helps() {
        let system = |errno: Errno| format!("/x: {}", std::io::Error::from(errno));
        for (complaint, into, out) in [
            (system(Errno::EROFS), "below /work", "look at"),
            (system(Errno::ENOSPC), "with room in it", "look at"),
            (system(Errno::EACCES), "below /work", "who may read"),
            (system(Errno::EISDIR), "another path", "look at"),
            (system(Errno::ENOTDIR), "another path", "look at"),
            ("x: no such user".into(), "leave the user", "leave the user"),
            ("tar: short read".into(), "archive that is whole", "look at"),
            (String::new(), "look at", "look at"),
        ] {
            for (direction, expected) in [(Direction::In, into), (Direction::Out, out)] {
                let Remedy::Do(words) = remedy(&complaint, direction) else {
                    panic!("{complaint} has no words");
                };
                assert!(words.contains(expected), "{complaint}: {words}");
            }
        }
    }
}
