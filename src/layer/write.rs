//! Writing an image to a file.

use crate::layer::plan::Plan;
use crate::layer::source::{FilePart, HostFile, Source};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Files below this many bytes are read at once.
const PIECE: u64 = 64 << 10;

impl Plan {
    /// Writes the image to an empty file. What is zero stays a hole.
    pub fn write(&self, image: &File) -> Result<()> {
        const WRITING: &str = "writing a layer";
        image.set_len(self.size()).context(WRITING)?;
        image.write_all_at(self.metadata(), 0).context(WRITING)?;
        let mut piece = Vec::new();
        for placed in self.files() {
            match &placed.source {
                Source::File(file) if placed.source.size() >= PIECE => {
                    copy(file, image, placed.offset)?;
                }
                Source::Part(part) if part.size >= PIECE => {
                    copy_part(part, image, placed.offset)?;
                }
                source => {
                    piece.resize(source.size() as usize, 0);
                    source.read(&mut piece)?;
                    image.write_all_at(&piece, placed.offset).context(WRITING)?;
                }
            }
        }
        Ok(())
    }
}

/// Copies a file without its holes.
fn copy(file: &HostFile, mut image: &File, offset: u64) -> Result<()> {
    let mut opened = file.open()?;
    let doing = || format!("copying {} to a layer", file.path().display());
    let mut at = 0;
    while let Some((start, end)) = next_data(&opened, at, file.size()).with_context(doing)? {
        opened.seek(SeekFrom::Start(start)).with_context(doing)?;
        image
            .seek(SeekFrom::Start(offset + start))
            .with_context(doing)?;
        let piece = &mut Read::take(&opened, end - start);
        let copied = io::copy(piece, &mut image).with_context(doing)?;
        if copied < end - start {
            break;
        }
        at = end;
    }
    // It may have become shorter or longer meanwhile.
    file.check(&opened)?;
    Ok(())
}

/// Copies a part of a file, but no piece of it that is zero.
fn copy_part(part: &FilePart, image: &File, offset: u64) -> Result<()> {
    let mut buffer = vec![0; PIECE as usize];
    for at in (0..part.size).step_by(PIECE as usize) {
        let piece = &mut buffer[..(part.size - at).min(PIECE) as usize];
        part.read_at(piece, at)?;
        if piece.iter().any(|&byte| byte != 0) {
            image
                .write_all_at(piece, offset + at)
                .context("writing a layer")?;
        }
    }
    Ok(())
}

/// Finds what comes after the next hole, as offsets from the start of the file.
fn next_data(file: &File, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match lseek(file, from as i64, Whence::SeekData) {
        Ok(start) => start as u64,
        // There is none: a hole reaches the end, or this is the end.
        Err(Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = lseek(file, start as i64, Whence::SeekHole)? as u64;
    Ok((start < size).then_some((start, end.min(size))))
}
