//! Files on their way over a connection to a session.

use crate::error::{Error, Kind};
use crate::record::Encoding;
use crate::session::bytes_of;
use crate::session::client::Client;
use crate::session::protocol::{Message, Request};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest::CHANNEL_WINDOW;
use std::io::{ErrorKind, Write};

/// The most bytes of one request.
const PIECE: usize = 128 << 10;

/// A connection over which files go, once `put` or `get` was asked for.
pub struct Transfer<'a> {
    client: &'a mut Client,
    /// What the guest says of what it could not do.
    complaint: Vec<u8>,
}

impl<'a> Transfer<'a> {
    pub fn new(client: &'a mut Client) -> Self {
        let complaint = Vec::new();
        Self { client, complaint }
    }

    /// Sends all that `next` gives, at most so many bytes at once; returns the exit code.
    pub fn send(&mut self, mut next: impl FnMut(usize) -> Result<Vec<u8>>) -> Result<u8> {
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
                Heard::Taken(bytes) => under_way = under_way.saturating_sub(bytes),
                Heard::Ended(code) => return Ok(code),
                Heard::Other => {}
            }
        }
    }

    /// Writes all that comes; returns the exit code.
    pub fn receive(&mut self, out: &mut impl Write) -> Result<u8> {
        loop {
            if let Heard::Ended(code) = self.hear(out)? {
                return Ok(code);
            }
        }
    }

    fn hear(&mut self, out: &mut impl Write) -> Result<Heard> {
        match self.client.receive()? {
            Message::Output(piece) if piece.stream == "stdout" => {
                let bytes = bytes_of(piece.data, piece.encoding)?;
                match out.write_all(&bytes) {
                    // Whoever extracts has told why it takes no more.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                    result => result.context("writing what came")?,
                }
            }
            Message::Output(piece) => {
                self.complaint.extend(bytes_of(piece.data, piece.encoding)?);
            }
            Message::Taken { bytes } => return Ok(Heard::Taken(bytes)),
            Message::Ended { record, .. } => return self.ended(record.exit_code),
            Message::Refused { error } => return Err(error.into()),
            _ => {}
        }
        Ok(Heard::Other)
    }

    /// Tells what the guest could not do.
    fn ended(&self, exit_code: Option<u8>) -> Result<Heard> {
        if exit_code == Some(0) {
            return Ok(Heard::Ended(0));
        }
        let complaint = String::from_utf8_lossy(&self.complaint);
        Err(Error::new(
            Kind::File,
            match complaint.trim() {
                "" => "the session could not move the files".into(),
                complaint => format!("the session could not move the files: {complaint}"),
            },
            "name a place below /work, /tmp or /dev/shm, with room in it, and a directory as DIRECTORY/",
        )
        .into())
    }
}

/// What was heard from a session.
enum Heard {
    /// So many bytes were taken.
    Taken(usize),
    /// It is over, with this exit code.
    Ended(u8),
    Other,
}
