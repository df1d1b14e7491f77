//! The file of an image: a frame that zstd skips (RFC 8878, section 3.1.2), which holds the description, and
//! then the image's file system, compressed.

use crate::error::{Error, Kind};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// The first bytes of the frame with the description.
const SKIPPED: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// Upper bound on the bytes of a description.
pub(super) const DESCRIPTION_MAX: u32 = 64 << 10;

/// Opens a file with an image.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|error| unreadable(path, &error))
}

/// Returns whether the file at a path is an image of ours.
pub fn is_ours(path: &Path) -> Result<bool, Error> {
    let found = description(&mut open(path)?);
    Ok(found.map_err(|error| unreadable(path, &error))?.is_some())
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::File,
        format!("the image {} cannot be read: {error}", path.display()),
        "check the path and its permissions",
    )
}

/// Reads the description at the start of an image's file, which has one, and leaves the file at its
/// start.
pub(super) fn description(file: &mut File) -> io::Result<Option<String>> {
    let mut head = [0; 8];
    file.take(8).read_exact(&mut head).or_else(no_end)?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if head[..4] != SKIPPED || length > DESCRIPTION_MAX {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(length.into()).read_to_end(&mut text)?;
    file.rewind()?;
    Ok(String::from_utf8(text).ok())
}

/// A file that ends early is no image, but can be read.
fn no_end(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error),
    }
}

/// Writes an image's description and its file system, as [`description`] and zstd read them.
pub(super) fn write(into: &mut File, description: &str, file_system: &File) -> Result<()> {
    let length = u32::try_from(description.len()).context("writing a description")?;
    into.write_all(&SKIPPED)?;
    into.write_all(&length.to_le_bytes())?;
    into.write_all(description.as_bytes())?;
    Ok(zstd::stream::copy_encode(
        file_system,
        into,
        zstd::DEFAULT_COMPRESSION_LEVEL,
    )?)
}
