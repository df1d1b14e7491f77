//! Extraction of a stream of files that a hostile guest sends ([`guest::Header`]). It writes below the
//! destinations alone.
//!
//! Only regular files and directories are made. Each name is a plain one, and each directory is
//! opened from the one above it without following a link, so that no path leads elsewhere,
//! whatever else happens in the file system at the same time. Each file is new, and gets its name
//! once it is whole.

mod at;

use crate::error::{Destination as Fault, Error, Kind, Remedy};
use crate::files::Destination;
use crate::files::extract::at::{is_directory, open_directory, remove, set_time, temporary_name};
use crate::files::report::{Fetched, Written};
use crate::text::escape_line;
use crate::units::format_size;
use guest::{Header, kind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::linkat;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Upper bound on the path of a record: a path that the guest's kernel takes (limits.h), one name
/// more, with which it does not take the path, so that this is reported, and the number of a place.
const PATH_MAX: u32 = 4096 + 256 + 16;
/// Upper bound on the names in a path: each is one more directory to open for each file.
const DEPTH_MAX: usize = 256;
/// The number of bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A destination, with its directory open.
pub struct Place {
    directory: OwnedFd,
    destination: Destination,
}

impl Place {
    pub fn open(destination: Destination) -> io::Result<Self> {
        Ok(Self {
            // A directory that may be written to, but not read, is good enough.
            directory: File::options()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(&destination.directory)?
                .into(),
            destination,
        })
    }

    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The limits on what the guest may have written, and how it is written.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Upper bound on the bytes of files and names.
    pub size_max: u64,
    /// Upper bound on the number of files and directories.
    pub count_max: usize,
    /// Whether to replace files that are there, and to add to directories.
    pub force: bool,
}

pub struct Unpack<R> {
    stream: R,
    places: Vec<Place>,
    rules: Rules,
    left: u64,
    count: usize,
    /// The name of the file while it is being written, in the directory where it will stay.
    temporary: OsString,
    fetched: Fetched,
    /// The directories that were made, and when they were last changed in the guest.
    made: Vec<(Target, Option<i64>)>,
    buffer: Vec<u8>,
}

/// One of the places, and a path from there. An empty path means the place itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    place: usize,
    /// The path: plain names with slashes between them.
    path: Vec<u8>,
}

impl Target {
    fn names(&self) -> impl Iterator<Item = &OsStr> {
        let names = self.path.split(|&byte| byte == b'/');
        names.filter(|name| !name.is_empty()).map(OsStr::from_bytes)
    }
}

impl<R: Read> Unpack<R> {
    pub fn new(stream: R, places: Vec<Place>, rules: Rules) -> Self {
        Self {
            stream,
            places,
            rules,
            left: rules.size_max,
            count: 0,
            temporary: temporary_name(),
            fetched: Fetched::default(),
            made: Vec::new(),
            buffer: vec![0; PIECE],
        }
    }

    pub fn directories(&self) -> Vec<BorrowedFd<'_>> {
        self.places.iter().map(Place::directory).collect()
    }

    /// Extracts files until the end of the stream, or until the first record that cannot or must not
    /// be followed.
    pub fn run(mut self) -> Fetched {
        // If the stream is cut or refused, the files before that stay: they may be many.
        self.fetched.failure = self.records().err();
        for (target, modified) in &self.made {
            if let Ok((directory, name)) = self.parent(target) {
                set_time(&directory, &name, *modified);
            }
        }
        self.fetched
    }

    fn records(&mut self) -> Result<(), Error> {
        while let Some((header, target)) = self.next_record()? {
            let size = match header.mode & kind::MASK {
                kind::FILE | kind::DIRECTORY if target.names().count() > DEPTH_MAX => {
                    let name = self.guest_name(&target);
                    let why = format!("{name}: more than {DEPTH_MAX} directories deep");
                    self.fetched.missing.add(why);
                    self.pass_over(header.size)?;
                    continue;
                }
                kind::FILE if self.is_merged(&target) => {
                    let name = self.guest_name(&target);
                    self.fetched.missing.add(format!("{name}: not a directory"));
                    self.pass_over(header.size)?;
                    continue;
                }
                kind::FILE => {
                    self.write_file(&target, &header)?;
                    continue;
                }
                kind::DIRECTORY => {
                    self.make_directory(target, &header)?;
                    header.size
                }
                kind::UNREADABLE => {
                    let why = Errno::from_raw(header.size as i32).desc();
                    let name = self.guest_name(&target);
                    self.fetched.missing.add(format!("{name}: {why}"));
                    0
                }
                _ => {
                    let name = self.guest_name(&target);
                    match target.path.is_empty() {
                        true => (self.fetched.missing)
                            .add(format!("{name}: neither file nor directory")),
                        false => self.fetched.left_out.add(name),
                    }
                    header.size
                }
            };
            if size != 0 {
                return Err(malformed("something with content that can have none"));
            }
        }
        Ok(())
    }

    fn next_record(&mut self) -> Result<Option<(Header, Target)>, Error> {
        let mut bytes = [0; Header::LENGTH];
        self.take(&mut bytes)?;
        let header = Header::decode(bytes);
        if header.path == 0 {
            return Ok(None);
        }
        if header.path > PATH_MAX {
            return Err(malformed("a path that is too long"));
        }
        self.count += 1;
        let most = self.rules.count_max;
        if self.count > most {
            return Err(Error::new(
                Kind::Limit,
                format!("the program left more than {most} files"),
                "get fewer of them, or let the program make an archive",
            ));
        }
        self.spend(header.path.into())?;
        if header.mode & kind::MASK != kind::UNREADABLE {
            self.spend(header.size)?;
        }
        let mut path = vec![0; header.path as usize];
        self.take(&mut path)?;
        Ok(Some((header, self.target(&path)?)))
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Error::new(
                Kind::Limit,
                format!(
                    "the program left more than {} of files, which is all that its limits allow",
                    format_size(self.rules.size_max)
                ),
                "get fewer of them, and none with holes",
            )
        })?;
        Ok(())
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.stream.read_exact(bytes).map_err(|_| self.cut())
    }

    fn cut(&self) -> Error {
        Error::new(
            Kind::Delivery,
            match self.fetched.files.count {
                0 => "none of the program's files was fetched: the run ended before".into(),
                n => format!(
                    "the run ended before all of the program's files were fetched: {n} were"
                ),
            },
            "files are fetched once the program has ended, within its time limit",
        )
    }

    /// Parses the path of a record: the number of a place, and then plain names.
    fn target(&self, path: &[u8]) -> Result<Target, Error> {
        let mut names = path.split(|&byte| byte == b'/');
        let number = names.next().unwrap_or_default();
        let place = str::from_utf8(number).ok();
        let place = place.and_then(|number| number.parse().ok());
        let place = place.filter(|&place| place < self.places.len());
        for name in names {
            match name {
                b"" | b"." | b".." => return Err(malformed("a path that is not plain")),
                name if name.contains(&0) => return Err(malformed("a name with a NUL")),
                _ => {}
            }
        }
        Ok(Target {
            place: place.ok_or_else(|| malformed("a path that nobody asked for"))?,
            path: path.get(number.len() + 1..).unwrap_or_default().into(),
        })
    }

    fn write_file(&mut self, target: &Target, header: &Header) -> Result<(), Error> {
        let (directory, name) = self.parent(target)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let flags = flags | OFlag::O_CLOEXEC;
        let file = openat(&directory, self.temporary.as_os_str(), flags, mode(header));
        let file = file.map_err(|errno| self.failed(target, errno))?;
        let written = self
            .write_content(target, file.into(), header.size)
            .and_then(|()| {
                set_time(&directory, &self.temporary, header.modified);
                self.publish(&directory, &name)
                    .map_err(|errno| self.failed(target, errno))
            });
        if written.is_err() {
            // Half a file is worse than none. If this fails too, the first failure is reported.
            remove(&directory, &self.temporary).unwrap_or_default();
            return written;
        }
        self.fetched.files.add(Written {
            guest: self.guest_name(target),
            host: escape_line(&self.host_path(target).to_string_lossy()),
            size: header.size,
        });
        Ok(())
    }

    /// Gives a whole file its name. It replaces another file only with force, and never a directory
    /// (EISDIR).
    fn publish(&self, directory: &OwnedFd, name: &OsStr) -> nix::Result<()> {
        let from = self.temporary.as_os_str();
        if self.rules.force {
            return renameat(directory, from, directory, name);
        }
        match renameat2(
            directory,
            from,
            directory,
            name,
            RenameFlags::RENAME_NOREPLACE,
        ) {
            // This file system cannot do that (NFS), or a container runtime does not let us; a link
            // replaces nothing on any of them.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => {
                linkat(directory, from, directory, name, AtFlags::empty())?;
                remove(directory, from)
            }
            result => result,
        }
    }

    fn write_content(&mut self, target: &Target, mut file: File, size: u64) -> Result<(), Error> {
        let mut left = size;
        while left > 0 {
            let room = left.min(PIECE as u64) as usize;
            let count = match self.stream.read(&mut self.buffer[..room]) {
                Ok(count @ 1..) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                _ => return Err(self.cut()),
            };
            file.write_all(&self.buffer[..count]).map_err(|error| {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                self.failed(target, errno)
            })?;
            left -= count as u64;
        }
        Ok(())
    }

    fn pass_over(&mut self, size: u64) -> Result<(), Error> {
        let copied = io::copy(&mut (&mut self.stream).take(size), &mut io::sink());
        match copied {
            Ok(count) if count == size => Ok(()),
            _ => Err(self.cut()),
        }
    }

    /// Returns whether this is a place whose directory is there.
    fn is_merged(&self, target: &Target) -> bool {
        target.path.is_empty() && self.places[target.place].destination.is_merged()
    }

    fn make_directory(&mut self, target: Target, header: &Header) -> Result<(), Error> {
        if self.is_merged(&target) {
            return Ok(());
        }
        let (directory, name) = self.parent(&target)?;
        let make = || mkdirat(&directory, name.as_os_str(), mode(header));
        let made = match make() {
            Err(Errno::EEXIST) if self.rules.force => {
                if is_directory(&directory, &name) {
                    return Ok(());
                }
                remove(&directory, &name).and_then(|()| make())
            }
            result => result,
        };
        made.map_err(|errno| self.failed(&target, errno))?;
        self.made.push((target, header.modified));
        Ok(())
    }

    /// Opens the directory that the target is in; returns it with the target's name there.
    fn parent(&self, target: &Target) -> Result<(OwnedFd, OsString), Error> {
        let place = &self.places[target.place];
        let failed = |errno| self.failed(target, errno);
        let mut directory = place.directory.try_clone();
        let mut names = std::iter::once(&*place.destination.name)
            .chain(target.names())
            .peekable();
        while let Some(name) = names.next() {
            let here = directory.map_err(|_| failed(Errno::EMFILE))?;
            if names.peek().is_none() {
                return Ok((here, name.into()));
            }
            directory = Ok(open_directory(&here, name, OFlag::O_PATH).map_err(failed)?);
        }
        unreachable!("a place has a name")
    }

    fn host_path(&self, target: &Target) -> PathBuf {
        let mut path = self.places[target.place].destination.path();
        path.extend(target.names());
        path
    }

    fn guest_name(&self, target: &Target) -> String {
        let mut path = PathBuf::from(OsStr::from_bytes(
            &self.places[target.place].destination.guest,
        ));
        path.extend(target.names());
        escape_line(&path.to_string_lossy())
    }

    fn failed(&self, target: &Target, errno: Errno) -> Error {
        let path = escape_line(&self.host_path(target).to_string_lossy());
        let (message, remedy): (_, Remedy) = match errno {
            Errno::EEXIST => (
                format!("{path} is there already"),
                Remedy::ChooseDestination(Fault::Taken),
            ),
            Errno::EISDIR => (
                format!("{path} is a directory, which a file cannot replace"),
                Remedy::ChooseDestination(Fault::Directory),
            ),
            Errno::ENOSPC | Errno::EDQUOT => (
                format!("{path} cannot be written: {}", errno.desc()),
                Remedy::ChooseDestination(Fault::Full),
            ),
            Errno::EFBIG => (
                format!("{path} cannot be written: {}", errno.desc()),
                "allow larger files: ulimit -f".into(),
            ),
            _ => (
                format!("{path} cannot be written: {}", errno.desc()),
                Remedy::ChooseDestination(Fault::Unwritable),
            ),
        };
        let kind = match errno {
            Errno::EFBIG => Kind::Limit,
            _ => Kind::Delivery,
        };
        Error::new(kind, message, remedy)
    }
}

fn malformed(why: &str) -> Error {
    Error::new(
        Kind::Delivery,
        format!("the guest sent {why} as a file"),
        "no working guest does that: do not rely on what it left",
    )
}

/// Returns the mode that the program chose, with the rights that the user needs to read and remove the
/// file.
fn mode(header: &Header) -> Mode {
    let needed = match header.mode & kind::MASK {
        kind::DIRECTORY => Mode::S_IRWXU,
        _ => Mode::S_IRUSR,
    };
    Mode::from_bits_truncate(header.mode & 0o777) | needed
}

#[cfg(test)]
mod tests;
