//! A file that is written beside the one whose place it takes.

use crate::error::{Error, Kind};
use crate::text::escape_path;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is removed unless it is kept.
pub struct Draft {
    pub file: File,
    path: PathBuf,
}

impl Draft {
    pub fn new(path: PathBuf, mode: u32) -> Result<Self> {
        let file = create(&path, mode);
        let file = file.with_context(|| format!("making {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Makes one beside the file whose place it is to take, of which there may be none yet.
    pub fn beside(path: &Path) -> Result<Self, Error> {
        check_replaceable(path)?;
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let own = path.with_file_name(name);
        match create(&own, 0o666) {
            Ok(file) => Ok(Self { file, path: own }),
            Err(error) => Err(unwritable(path, error)),
        }
    }

    /// Returns the SHA-256 of its content, in hexadecimal.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        (&self.file).rewind().context("reading an image")?;
        io::copy(&mut &self.file, &mut hash).context("reading an image")?;
        Ok(format!("{:x}", hash.finalize()))
    }

    /// Puts it in the place of another file.
    pub fn keep(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // One that was kept has another name. What stays is removed by the next import.
        crate::fs::remove(&self.path).map(drop).unwrap_or_default();
    }
}

fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(mode);
    options.open(path)
}

/// Checks that there is nothing at a path, or a file: what else is there would be gone.
fn check_replaceable(path: &Path) -> Result<(), Error> {
    let kind = match path.symlink_metadata() {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == ErrorKind::NotFound && path.file_name().is_some() => {
            return Ok(());
        }
        Err(error) => return Err(unwritable(path, error)),
    };
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        _ => "no file, but a device, a pipe or a socket",
    };
    Err(Error::new(
        Kind::File,
        format!(
            "the image is not written to {}, which is {what}",
            escape_path(path)
        ),
        "name a file, or a path at which there is nothing",
    ))
}

/// Returns the failure to write an image to a file of the user's.
pub fn unwritable(path: &Path, error: impl Into<anyhow::Error>) -> Error {
    let error = error.into();
    Error::new(
        Kind::File,
        format!(
            "the image cannot be written to {}: {error:#}",
            escape_path(path)
        ),
        "name a file in a directory that is there, may be written to and has space",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::os::unix::fs::{FileTypeExt, symlink};

    /// Returns what is said of a path in whose place no draft is made.
    fn refused(path: &Path) -> String {
        let error = Draft::beside(path).err();
        let error = error.unwrap_or_else(|| panic!("{} is taken", path.display()));
        assert_eq!(error.kind, Kind::File);
        assert!(error.message.contains(&escape_path(path)), "{error}");
        error.message
    }

    #[test]
    fn what_is_no_file_is_not_replaced_by_an_export() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        fs::write(path("file"), "x").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("missing", path("dangling")).unwrap();
        assert!(refused(&path("pipe")).contains("a pipe"));
        for link in ["link", "dangling"] {
            assert!(refused(&path(link)).contains("a symbolic link"), "{link}");
        }
        for named in [
            directory.path(),
            Path::new("."),
            Path::new("/"),
            Path::new(".."),
        ] {
            assert!(refused(named).contains("a directory"));
        }
        refused(&path("missing/file"));
        refused(&path("file/x"));
        refused(Path::new(""));
        let kind = fs::symlink_metadata(path("pipe")).unwrap().file_type();
        assert!(kind.is_fifo());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_draft_takes_the_place_of_a_file_or_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        for _ in 0..2 {
            Draft::beside(&path).unwrap().keep(&path).unwrap();
        }
        drop(Draft::beside(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
