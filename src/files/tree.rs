//! Listing and reading of files and directories of the host.

use crate::error::{Error, Remedy};
use crate::files::unusable;
use crate::job::beneath;
use crate::layer::{HostFile, Time};
use crate::units::format_size;
use guest::{File, kind};
use std::collections::HashSet;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The files that are to be read, and upper bounds on them.
pub struct List {
    pub found: Vec<Found>,
    /// The bytes of their content.
    size: u64,
    count_max: u64,
    size_max: u64,
}

/// Something that goes into the guest.
pub struct Found {
    pub content: Content,
    /// Its path there.
    pub guest: Vec<u8>,
    pub mode: u32,
}

pub enum Content {
    Host {
        file: HostFile,
        modified: Time,
        /// Whether the file has other names.
        is_linked: bool,
        /// Whether the path itself was named, so that it may be a link.
        is_top: bool,
    },
    Given(Vec<u8>),
}

/// Something in a directory.
pub struct TreeEntry<'a> {
    pub host: &'a Path,
    /// Its path from the directory that was named.
    pub path: &'a Path,
    pub metadata: &'a Metadata,
}

impl List {
    /// Returns a list to which nothing is added.
    pub fn nothing() -> Self {
        Self::new(0, 0)
    }

    pub fn new(count_max: u64, size_max: u64) -> Self {
        Self {
            found: Vec::new(),
            size: 0,
            count_max,
            size_max,
        }
    }

    /// Adds what another list has at other paths.
    pub fn add_new(&mut self, other: Self) {
        let given: HashSet<_> = match other.found.is_empty() {
            true => HashSet::new(),
            false => self.found.iter().map(|found| found.guest.clone()).collect(),
        };
        let added = other.found.into_iter();
        self.found
            .extend(added.filter(|found| !given.contains(&found.guest)));
    }

    /// Returns the bytes of all content.
    pub fn size(&self) -> u64 {
        self.found.iter().map(Found::size).sum()
    }

    /// Returns whether a directory is to be made at this path in the guest.
    pub fn has_directory(&self, guest: &[u8]) -> bool {
        let is_it =
            |found: &Found| found.mode & kind::MASK == kind::DIRECTORY && found.guest == guest;
        self.found.iter().any(is_it)
    }

    pub fn add_given(&mut self, content: &[u8], guest: Vec<u8>) -> Result<(), Error> {
        self.spend(content.len() as u64)?;
        self.push(Found {
            content: Content::Given(content.to_vec()),
            guest,
            mode: kind::FILE | 0o644,
        })
    }

    /// Adds a file, or a directory with all in it that is not to be left out. A path that is named
    /// itself may be a link; links below stay links.
    pub fn add_tree(
        &mut self,
        top: &Path,
        target: Vec<u8>,
        leave_out: &dyn Fn(&TreeEntry) -> bool,
    ) -> Result<(), Error> {
        let metadata = top.metadata().map_err(|e| unreadable(top, &e))?;
        self.add(top.into(), target.clone(), &metadata, true)?;
        match metadata.is_dir() {
            true => self.add_inside(top, &target, leave_out),
            false => Ok(()),
        }
    }

    /// Adds all that is in a directory and not to be left out.
    pub fn add_inside(
        &mut self,
        top: &Path,
        target: &[u8],
        leave_out: &dyn Fn(&TreeEntry) -> bool,
    ) -> Result<(), Error> {
        let mut waiting = vec![(PathBuf::new(), target.to_vec())];
        while let Some((directory, guest)) = waiting.pop() {
            let host = match directory.as_os_str().is_empty() {
                true => top.into(),
                false => top.join(&directory),
            };
            for name in names(&host).map_err(|e| unreadable(&host, &e))? {
                let (host, path) = (host.join(&name), directory.join(&name));
                let metadata = host.symlink_metadata();
                let metadata = metadata.map_err(|e| unreadable(&host, &e))?;
                let entry = TreeEntry {
                    host: &host,
                    path: &path,
                    metadata: &metadata,
                };
                if leave_out(&entry) {
                    continue;
                }
                let guest = beneath(&guest, name.as_bytes());
                if metadata.is_dir() {
                    waiting.push((path, guest.clone()));
                }
                self.add(host, guest, &metadata, false)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        host: PathBuf,
        guest: Vec<u8>,
        metadata: &Metadata,
        is_top: bool,
    ) -> Result<(), Error> {
        let file_type = metadata.file_type();
        if !(file_type.is_file() || file_type.is_dir() || file_type.is_symlink()) {
            return Err(unusable(
                format!("{} is neither a file nor a directory", host.display()),
                "put files and directories; a pipe can be the program's standard input",
            ));
        }
        if file_type.is_file() {
            self.spend(metadata.len())?;
        }
        self.push(Found {
            content: Content::Host {
                file: HostFile::new(host, metadata),
                modified: Time {
                    seconds: metadata.mtime(),
                    nanoseconds: metadata.mtime_nsec() as u32,
                },
                is_linked: file_type.is_file() && metadata.nlink() > 1,
                is_top,
            },
            guest,
            mode: metadata.mode() & (kind::MASK | 0o777),
        })
    }

    fn spend(&mut self, bytes: u64) -> Result<(), Error> {
        self.size = self.size.saturating_add(bytes);
        if self.size > self.size_max {
            return Err(unusable(
                format!(
                    "there are more than {} of files",
                    format_size(self.size_max)
                ),
                Remedy::RaiseMemoryForFiles,
            ));
        }
        Ok(())
    }

    fn push(&mut self, found: Found) -> Result<(), Error> {
        if self.found.len() as u64 >= self.count_max {
            return Err(unusable(
                format!("there are more than {} files", self.count_max),
                "put an archive of them, and unpack it in the program",
            ));
        }
        self.found.push(found);
        Ok(())
    }

    /// Reads all of them, at most one byte over `room`; `None` if there is no room for all.
    pub fn read(self, room: u64) -> Result<Option<Vec<File>>, Error> {
        let mut left = room;
        let mut files = Vec::with_capacity(self.found.len());
        for found in self.found {
            let file = found.read(left)?;
            match left.checked_sub(file.content.len() as u64) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            files.push(file);
        }
        Ok(Some(files))
    }
}

/// Returns the names in a directory, in an order that does not change from run to run.
fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

impl Found {
    /// Returns the bytes of a file, and nothing for anything else.
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::Given(bytes) => bytes.len() as u64,
            Content::Host { file, .. } if self.mode & kind::MASK == kind::FILE => file.size(),
            Content::Host { .. } => 0,
        }
    }

    /// Reads the content, at most one byte over `limit`.
    fn read(self, limit: u64) -> Result<File, Error> {
        let (content, modified) = match self.content {
            Content::Given(content) => (content, None),
            Content::Host {
                file,
                modified,
                is_top,
                ..
            } => {
                let content = match self.mode & kind::MASK {
                    kind::FILE => read_file(file.path(), limit, is_top)
                        .map_err(|error| unreadable(file.path(), &error))?,
                    kind::LINK => read_link(file.path())?,
                    _ => Vec::new(),
                };
                let time = guest::time(modified.seconds, modified.nanoseconds.into());
                (content, time)
            }
        };
        Ok(File {
            content,
            path: self.guest,
            mode: self.mode,
            modified,
        })
    }
}

/// Returns where a link leads.
pub fn read_link(path: &Path) -> Result<Vec<u8>, Error> {
    let target = path.read_link().map_err(|error| unreadable(path, &error))?;
    Ok(target.into_os_string().into_vec())
}

fn read_file(path: &Path, limit: u64, is_top: bool) -> io::Result<Vec<u8>> {
    // The file may have become a pipe meanwhile, to which nobody may ever write, or a link.
    let no_link = if is_top { 0 } else { libc::O_NOFOLLOW };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | no_link)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file any more"));
    }
    let mut content = Vec::with_capacity(metadata.len().min(limit) as usize + 1);
    file.take(limit + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let shown = path.display();
    let (what, remedy): (_, Remedy) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (
            format!("there is no {shown} to put into the guest"),
            Remedy::CheckHostPath,
        ),
        io::ErrorKind::PermissionDenied => (
            format!("you may not read {shown}"),
            "give yourself permission to read it: chmod u+r".into(),
        ),
        _ => (
            format!("{shown} cannot be read: {error}"),
            "check that it is a file or a directory".into(),
        ),
    };
    unusable(what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_a_link_is_not_followed_unless_it_was_named() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&file, "content").unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        assert_eq!(read_file(&link, 100, true).unwrap(), b"content");
        assert_eq!(read_file(&file, 100, false).unwrap(), b"content");
        assert!(read_file(&link, 100, false).is_err());
    }
}
