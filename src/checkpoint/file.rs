//! The file of a checkpoint: what it begins with, and the checks of it.
//!
//! | offset | bytes | field, numbers in little-endian |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | version of this format |
//! | 12 | 4 | length of the head |
//! | 16 | 32 | SHA-256 of the head |
//! | 48 | | the head, in JSON |
//!
//! The point follows at [`POINT_OFFSET`], the machine's own pages from [`MEMORY_OFFSET`] on.

use crate::checkpoint::point::{MEMORY_OFFSET, POINT_MAX, POINT_OFFSET, Point};
use crate::key::Key;
use crate::text::hex;
use crate::units::PAGE;
use crate::vm::{Pages, host};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: [u8; 8] = *b"sandbox\x1b";
/// The version of the format. Raise it with any change to what this file writes.
const VERSION: u32 = 1;
const HEAD_AT: usize = 48;

/// The reason why a file is of no use, as a clause about "it".
pub type Refusal = &'static str;

/// The description of a checkpoint, and of where it can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The build of this program and the host's processor and kernel, with which alone the machine can go on.
    build: String,
    host: Key,
    /// The template that the machine was cloned from.
    pub base: Key,
    /// A description for people.
    pub description: String,
    /// The time of creation, in seconds since 1970.
    pub created: u64,
    /// The bytes of the machine's memory.
    pub memory: u64,
    /// The length and the digest of the point, and the digest of the machine's own pages.
    pub length: u64,
    point: String,
    pages: String,
}

impl Head {
    /// Makes the head of a file whose point and pages are written.
    pub fn of(
        file: &File,
        point: &Point,
        length: u64,
        description: String,
        created: u64,
    ) -> Result<Self> {
        Ok(Self {
            build: env!("MACHINE_KEY").into(),
            host: this_host()?,
            base: point.template.clone(),
            description,
            created,
            memory: point.memory,
            length,
            point: digest_of_point(file, length)?,
            pages: digest_of_pages(file, &point.own)?,
        })
    }

    /// Writes it to the beginning of its file.
    pub fn write(&self, file: &File) -> Result<()> {
        let head = serde_json::to_vec(self).context("encoding a checkpoint")?;
        ensure!(
            HEAD_AT + head.len() <= POINT_OFFSET as usize,
            "the head of a checkpoint is too long"
        );
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((head.len() as u32).to_le_bytes());
        bytes.extend(Sha256::digest(&head));
        bytes.extend(head);
        file.write_all_at(&bytes, 0).context("writing a checkpoint")
    }

    /// Reads it from a file of this length.
    pub fn read(file: &File, length_of_file: u64) -> Result<Self, Refusal> {
        let mut bytes = [0; POINT_OFFSET as usize];
        read(file, &mut bytes, 0)?;
        if !bytes.starts_with(&MAGIC) {
            return Err("it is not a checkpoint");
        }
        if bytes[8..12] != VERSION.to_le_bytes() {
            return Err("its format is of another version");
        }
        let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let head = bytes[HEAD_AT..].get(..length as usize);
        let head = head.filter(|head| Sha256::digest(head)[..] == bytes[16..HEAD_AT]);
        let head = head.ok_or("its beginning was changed")?;
        let head: Self =
            serde_json::from_slice(head).map_err(|_| "its beginning makes no sense")?;
        if MEMORY_OFFSET.checked_add(head.memory) != Some(length_of_file) {
            return Err("its length is wrong");
        }
        Ok(head)
    }

    /// Checks that the machine can go on with this build, on this host.
    pub fn check_place(&self) -> Result<Result<(), Refusal>> {
        Ok(if self.build != env!("MACHINE_KEY") {
            Err("it was saved by another build of this program")
        } else if self.host != this_host()? {
            Err("it was saved on another host, or under another kernel of this one")
        } else {
            Ok(())
        })
    }

    /// Checks whether point and pages are what was written; returns the point.
    pub fn verify(&self, file: &File) -> Result<Result<Point, Refusal>> {
        const CHANGED: Refusal = "its content is not what was saved";
        if self.length > POINT_MAX as u64 || digest_of_point(file, self.length)? != self.point {
            return Ok(Err(CHANGED));
        }
        let point = Point::read(file, self.length)?;
        let is_whole = digest_of_pages(file, &point.own)? == self.pages;
        Ok(if is_whole { Ok(point) } else { Err(CHANGED) })
    }
}

fn this_host() -> Result<Key> {
    Ok(Key::of(&[host::fingerprint()?]))
}

fn read(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), Refusal> {
    file.read_exact_at(bytes, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it is cut short",
            _ => "it cannot be read",
        })
}

fn digest_of_point(file: &File, length: u64) -> Result<String> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, POINT_OFFSET)
        .context("reading the point of a checkpoint")?;
    Ok(hex(&Sha256::digest(&bytes)))
}

fn digest_of_pages(file: &File, pages: &Pages) -> Result<String> {
    let mut digest = Sha256::new();
    each_piece(pages, |offset, bytes| {
        file.read_exact_at(bytes, offset)
            .context("reading the memory of a checkpoint")?;
        digest.update(offset.to_le_bytes());
        digest.update(bytes);
        Ok(())
    })?;
    Ok(hex(&digest.finalize()))
}

/// Calls a function with the offset in the file of each piece of these pages, and a buffer as long as it.
pub fn each_piece(pages: &Pages, mut act: impl FnMut(u64, &mut [u8]) -> Result<()>) -> Result<()> {
    /// The most bytes at once.
    const PIECE: u64 = 1 << 20;
    let mut buffer = vec![0; PIECE as usize];
    for (first, count) in pages.runs() {
        let (mut at, mut left) = (
            MEMORY_OFFSET + u64::from(first) * PAGE as u64,
            u64::from(count) * PAGE as u64,
        );
        while left > 0 {
            let length = left.min(PIECE);
            act(at, &mut buffer[..length as usize])?;
            at += length;
            left -= length;
        }
    }
    Ok(())
}
