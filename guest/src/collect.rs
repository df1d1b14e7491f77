//! Collection: sends files on their way out of the guest.

use crate::program::host_services;
use anyhow::{Context, Result, ensure};
use guest::hypercall::prctl;
use guest::{Header, kind, stream};
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The bytes that are sent at once. More would take fewer requests to the host, but the first touch of each page
/// of memory costs more than that on a software KVM.
const PIECE: usize = 128 << 10;
/// The most bytes of a file that says it is smaller than a piece.
const SMALL_MAX: usize = 16 << 20;

/// Sends the host the files at these paths, which the program left. No process is left, so nothing changes
/// meanwhile.
pub fn send_to_host(paths: &[Vec<u8>]) -> Result<()> {
    // Nobody reads the pipe, since the kernel gives the host what is written, but one without a reader takes
    // nothing.
    let (_reader, pipe) = io::pipe().context("making a pipe")?;
    host_services(prctl::STREAM, pipe.as_raw_fd() as u32, stream::FILES)
        .context("making a pipe the host's")?;
    collect(paths, pipe)
}

/// Writes the files at these paths.
pub fn collect(paths: &[Vec<u8>], out: impl Write) -> Result<()> {
    let mut archive = Archive {
        out,
        buffer: Vec::with_capacity(2 * PIECE),
    };
    for (number, path) in paths.iter().enumerate() {
        let path = PathBuf::from(OsStr::from_bytes(path));
        archive.add_tree(path, number.to_string().into_bytes())?;
    }
    archive.end()
}

struct Archive<W> {
    out: W,
    /// The bytes that are still to be written.
    buffer: Vec<u8>,
}

/// The object at a path.
enum Found {
    File(File, Metadata),
    Directory(Metadata, Vec<OsString>),
    Other(Metadata),
}

impl<W: Write> Archive<W> {
    /// Adds a file, or a directory with everything in it. A link is followed only if it was itself
    /// requested.
    fn add_tree(&mut self, path: PathBuf, name: Vec<u8>) -> Result<()> {
        let top = fs::canonicalize(&path).unwrap_or(path);
        let mut waiting = vec![(top, name)];
        while let Some((path, name)) = waiting.pop() {
            match find(&path) {
                Ok(Found::File(file, metadata)) => self.add_file(&name, file, &metadata)?,
                Ok(Found::Other(metadata)) => self.add(&name, metadata.mode(), 0, None)?,
                Ok(Found::Directory(metadata, children)) => {
                    self.add(&name, metadata.mode(), 0, modified(&metadata))?;
                    waiting.extend(children.iter().map(|child| {
                        let name = [&name, &b"/"[..], child.as_bytes()].concat();
                        (path.join(child), name)
                    }));
                }
                Err(error) => self.add_unreadable(&name, &error)?,
            }
        }
        Ok(())
    }

    /// Adds a record without its content.
    fn add(&mut self, name: &[u8], mode: u32, size: u64, modified: Option<i64>) -> Result<()> {
        self.buffer
            .extend(header(name, mode, size, modified).encode());
        self.buffer.extend(name);
        self.flush_if_full()
    }

    fn add_file(&mut self, name: &[u8], file: File, metadata: &Metadata) -> Result<()> {
        // The kernel's own files have no size, or a wrong one: a file that claims to be small is
        // read to its end, so that its size is known before it is sent.
        let stated = metadata.len();
        let most = if stated < PIECE as u64 {
            SMALL_MAX
        } else {
            PIECE
        };
        let before = self.buffer.len();
        let header = |size| header(name, metadata.mode(), size, modified(metadata)).encode();
        self.buffer.extend(header(stated));
        self.buffer.extend(name);
        let count = match (&file).take(most as u64).read_to_end(&mut self.buffer) {
            Ok(count) if count == most && stated < most as u64 => Err(Errno::EFBIG.into()),
            result => result,
        };
        let size = match count {
            Ok(count) if count < most => count as u64,
            Ok(_) => stated,
            Err(error) => {
                self.buffer.truncate(before);
                return self.add_unreadable(name, &error);
            }
        };
        self.buffer[before..before + Header::LENGTH].copy_from_slice(&header(size));
        let mut left = size.saturating_sub(most as u64);
        self.flush_if_full()?;
        while left > 0 {
            let mut piece = (&file).take(left.min(PIECE as u64));
            let count = piece.read_to_end(&mut self.buffer);
            let count = count.context("reading a file")? as u64;
            ensure!(count > 0, "a file is shorter than it was");
            left -= count;
            self.flush_if_full()?;
        }
        Ok(())
    }

    fn add_unreadable(&mut self, name: &[u8], error: &io::Error) -> Result<()> {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.add(name, kind::UNREADABLE, errno as u64, None)
    }

    fn end(mut self) -> Result<()> {
        self.buffer.extend(Header::default().encode());
        self.flush()
    }

    fn flush_if_full(&mut self) -> Result<()> {
        if self.buffer.len() < PIECE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        self.out
            .write_all(&self.buffer)
            .context("writing to the host")?;
        self.buffer.clear();
        Ok(())
    }
}

fn header(name: &[u8], mode: u32, size: u64, modified: Option<i64>) -> Header {
    Header {
        path: name.len() as u32,
        mode,
        size,
        modified,
    }
}

fn modified(metadata: &Metadata) -> Option<i64> {
    guest::time(metadata.mtime(), metadata.mtime_nsec())
}

fn find(path: &Path) -> io::Result<Found> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_file() {
        return Ok(Found::File(File::open(path)?, metadata));
    }
    if metadata.is_dir() {
        let entries = fs::read_dir(path)?;
        let names = entries.map(|entry| Ok(entry?.file_name()));
        return Ok(Found::Directory(
            metadata,
            names.collect::<io::Result<_>>()?,
        ));
    }
    Ok(Found::Other(metadata))
}
