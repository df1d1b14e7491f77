//! Parts of the archive's file, as readers that share it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A reader that can pass over what it would read.
pub trait Skip: Read {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        match io::copy(&mut self.take(count), &mut io::sink())? {
            skipped if skipped < count => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A part of a file, read from its beginning.
#[derive(Debug, Clone)]
pub struct Region {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Region {
    pub fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self {
            file,
            at: offset,
            end: offset.saturating_add(size),
        }
    }

    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Returns the bytes that are left.
    pub fn size(&self) -> u64 {
        self.end - self.at
    }

    /// Returns where in the file the next byte is.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns the first bytes that are left, of which there may be fewer.
    pub fn head<const N: usize>(&self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.clone().take(N as u64).read_to_end(&mut head)?;
        Ok(head)
    }
}

impl Read for Region {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(self.size().try_into().unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut into[..length], self.at)?;
        if count == 0 && length > 0 {
            // It was longer when it was looked at.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Skip for Region {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        if count > self.size() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count;
        Ok(())
    }
}
