//! The words for archives that cannot be used.

use crate::error::{Error, Kind};
use crate::text::escape_line;
use std::fmt::Display;
use std::io;

/// Characters of a name that are shown.
const SHOWN: usize = 100;

/// Returns a name from an archive in quotes, without what a terminal would obey, and shortened.
pub fn shown(name: impl AsRef<[u8]>) -> String {
    let escaped = escape_line(&String::from_utf8_lossy(name.as_ref()));
    match escaped.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("\"{}…\"", &escaped[..end]),
        None => format!("\"{escaped}\""),
    }
}

/// Returns the failure with an archive that is not what it was when it was made.
pub fn damaged(what: impl Display) -> Error {
    let remedy = "save the image again, and check that the whole file was copied";
    refused(what, remedy)
}

/// Returns the failure with an archive that no tool should make.
pub fn malformed(what: impl Display) -> Error {
    let remedy =
        "save the image again from where it is built, and take it only from whom you trust";
    refused(what, remedy)
}

/// Returns the failure with an archive that exceeds a bound.
pub fn too_much(what: impl Display) -> Error {
    refused(what, "make the image smaller")
}

pub fn refused(what: impl Display, remedy: &str) -> Error {
    Error::new(Kind::File, what.to_string(), remedy)
}

/// Returns the failure with this text before its own.
pub fn within(place: impl Display, error: Error) -> Error {
    Error {
        message: format!("{place}: {}", error.message),
        ..error
    }
}

/// Returns the failure to read an archive, or what is compressed in it.
pub fn unreadable(error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        let remedy = "check that the file can be read to its end, and that there is memory for it";
        return refused(format!("it cannot be read: {error}"), remedy);
    }
    let is_cut = error.kind() == io::ErrorKind::UnexpectedEof;
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(_) if is_cut => damaged("it is cut off: its end is missing"),
        Err(_) => damaged("what is compressed in it is damaged"),
    }
}

/// Returns the failure to write what was unpacked.
pub fn unwritable(error: io::Error) -> Error {
    let remedy = "free space for it, and see that no limit is too low: ulimit -a";
    refused(format!("what is in it cannot be written: {error}"), remedy)
}
