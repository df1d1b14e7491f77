//! Where the contents of a layer's files come from.

use crate::error::{Error, Kind};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Bytes(Vec<u8>),
    File(HostFile),
    Part(FilePart),
}

/// A part of an open file that nobody else changes.
#[derive(Debug, Clone)]
pub struct FilePart {
    pub file: Arc<File>,
    pub offset: u64,
    pub size: u64,
}

/// A file of the host, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    path: PathBuf,
    size: u64,
    /// The device and the inode.
    identity: (u64, u64),
}

impl Source {
    /// Returns the bytes of the content.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(file) => file.size,
            Self::Part(part) => part.size,
        }
    }

    /// Copies the content to memory of its size.
    pub fn read(&self, into: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Bytes(bytes) => into.copy_from_slice(bytes),
            Self::File(file) => file.read(into)?,
            Self::Part(part) => part.read_at(into, 0)?,
        }
        Ok(())
    }
}

impl FilePart {
    /// Reads the bytes from this one on.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> Result<(), Error> {
        let read = self.file.read_exact_at(into, self.offset + at);
        read.map_err(|error| {
            Error::new(
                Kind::File,
                format!("what was unpacked cannot be read again: {error}"),
                "see that there is room for it, and try again",
            )
        })
    }
}

impl PartialEq for FilePart {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
            && (self.offset, self.size) == (other.offset, other.size)
    }
}

impl Eq for FilePart {}

impl HostFile {
    pub fn new(path: PathBuf, metadata: &Metadata) -> Self {
        Self {
            path,
            size: metadata.len(),
            identity: (metadata.dev(), metadata.ino()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the device and the inode.
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Opens the file, if it is still what it was.
    pub fn open(&self) -> Result<File, Error> {
        // What is there now may be a pipe, to which nobody may ever write.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.path);
        let file = opened.map_err(|error| self.unreadable(&error))?;
        self.check(&file)?;
        Ok(file)
    }

    /// Checks that an open file is this one, and what it was.
    pub(super) fn check(&self, file: &File) -> Result<(), Error> {
        let now = file.metadata().map_err(|error| self.unreadable(&error))?;
        if !now.is_file() || (now.dev(), now.ino()) != self.identity {
            return Err(self.changed("it was replaced"));
        }
        if now.len() != self.size {
            let (before, after) = (self.size, now.len());
            return Err(self.changed(&format!("it had {before} bytes, and has {after}")));
        }
        Ok(())
    }

    fn read(&self, into: &mut [u8]) -> Result<(), Error> {
        let read = self.open()?.read_exact(into);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed("it became shorter"),
            _ => self.unreadable(&error),
        })
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound => self.changed("it was removed"),
            io::ErrorKind::PermissionDenied => Error::new(
                Kind::File,
                format!("you may not read {path}"),
                "give yourself permission to read it: chmod u+r",
            ),
            _ => Error::new(
                Kind::File,
                format!("{path} cannot be read: {error}"),
                "check that it is a file that can be read",
            ),
        }
    }

    fn changed(&self, how: &str) -> Error {
        Error::new(
            Kind::File,
            format!("{} changed while it was taken: {how}", self.path.display()),
            "try again when nothing writes to it, or take a copy of it",
        )
    }
}
