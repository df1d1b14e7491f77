//! The contents of files, one after the other in a scratch file.

use crate::error::Error;
use crate::layer::FilePart;
use crate::oci::refusal::{too_much, unreadable, unwritable};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

const PIECE: u64 = 64 << 10;

/// A scratch file, and what may still go into it.
pub struct Contents {
    file: Arc<File>,
    end: u64,
    most: u64,
}

impl Contents {
    /// Begins to fill an empty file with so many bytes at most.
    pub fn new(file: File, most: u64) -> Self {
        Self {
            file: Arc::new(file),
            end: 0,
            most,
        }
    }

    /// Adds so many bytes. A piece of zeros stays a hole.
    pub fn add(&mut self, mut reader: impl Read, size: u64) -> Result<FilePart, Error> {
        if size > self.most - self.end {
            let most = self.most >> 30;
            let what = format!("the files of all layers have more than {most} GiB together");
            return Err(too_much(what));
        }
        let part = FilePart {
            file: Arc::clone(&self.file),
            offset: self.end,
            size,
        };
        let mut buffer = vec![0; size.min(PIECE) as usize];
        let end = self.end + size;
        while self.end < end {
            let piece = &mut buffer[..(end - self.end).min(PIECE) as usize];
            reader.read_exact(piece).map_err(unreadable)?;
            if piece.iter().any(|&byte| byte != 0) {
                self.file
                    .write_all_at(piece, self.end)
                    .map_err(unwritable)?;
            }
            self.end += piece.len() as u64;
        }
        Ok(part)
    }

    /// Lets the file end where the last content does, which may be a hole.
    pub fn finish(&self) -> Result<(), Error> {
        self.file.set_len(self.end).map_err(unwritable)
    }
}
