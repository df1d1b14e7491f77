//! The file of an image: a frame that zstd skips (RFC 8878, section 3.1.2), which holds the description, and
//! then the image's file system, compressed.

use crate::error::{Error, Kind};
use crate::text::escape_path;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The first bytes of the frame with the description.
const SKIPPED: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();
/// Upper bound on the bytes of a description.
pub(super) const DESCRIPTION_MAX: u32 = 64 << 10;

/// Opens a file with an image.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    // To open a pipe takes until somebody writes to it.
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let found = opened.and_then(|file| file.metadata().map(|it| (it.is_file(), file)));
    match found.map_err(|error| unreadable(path, &error))? {
        (true, file) => Ok(file),
        (false, _) => Err(Error::new(
            Kind::File,
            format!("the image {} is not a file", escape_path(path)),
            "put the image into a file, and name that",
        )),
    }
}

/// Returns whether the file at a path is an image of ours.
pub fn is_ours(path: &Path) -> Result<bool, Error> {
    let found = description(&mut open(path)?);
    Ok(found.map_err(|error| unreadable(path, &error))?.is_some())
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        Kind::File,
        format!("the image {} cannot be read: {error}", escape_path(path)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("a\u{1b}[2Jpipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for path in [&*pipe, directory.path(), Path::new("/dev/null")] {
            let error = open(path).unwrap_err();
            assert_eq!(error.kind, Kind::File);
            assert!(error.message.ends_with("is not a file"), "{error}");
            assert!(!error.message.contains('\u{1b}'), "{error}");
        }
        assert!(is_ours(&pipe).is_err());
        let missing = open(&directory.path().join("missing")).unwrap_err();
        assert!(missing.message.contains("cannot be read"), "{missing}");
    }
}
