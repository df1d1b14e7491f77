//! Reading of the files that go into the guest.

use crate::error::{Error, Remedy};
use crate::files::{COUNT_MAX, Put, PutContent, unusable};
use crate::job::{beneath, resolve};
use guest::{File, kind};
use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Returns the bytes that a guest with this much memory has for files: its kernel gives a file system
/// in memory half of it (tmpfs(5)).
fn room(memory: u64) -> u64 {
    memory / 2
}

/// Reads the files, and the directories with all in them, for a guest with this much memory.
pub fn read(puts: &[Put], workdir: &[u8], memory: u64) -> Result<Vec<File>, Error> {
    let mut list = List {
        found: Vec::new(),
        size: 0,
    };
    for put in puts {
        list.add_put(put, workdir)?;
    }
    // The size is checked before any time is spent on reading.
    check_size(list.size, memory)?;
    let mut left = room(memory);
    list.found
        .into_iter()
        .map(|found| {
            let file = found.read(left)?;
            left = left
                .checked_sub(file.content.len() as u64)
                .ok_or_else(|| too_large(list.size, memory))?;
            Ok(file)
        })
        .collect()
}

fn check_size(size: u64, memory: u64) -> Result<(), Error> {
    if size > room(memory) {
        return Err(too_large(size, memory));
    }
    Ok(())
}

fn too_large(size: u64, memory: u64) -> Error {
    const SPARE: u64 = 256 << 20;
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    unusable(
        format!(
            "{} MiB of files do not fit in a guest with {} MiB of memory, half of which is for files",
            mib(size),
            mib(memory)
        ),
        Remedy::RaiseMemory(Some(mib(size * 2 + SPARE))),
    )
}

/// The files that are to be read.
struct List {
    found: Vec<Found>,
    /// The bytes of their content.
    size: u64,
}

struct Found {
    content: Content,
    guest: Vec<u8>,
    mode: u32,
}

enum Content {
    Host {
        path: PathBuf,
        /// Whether the path itself was named, so that it may be a link.
        is_top: bool,
    },
    Given(Vec<u8>),
}

impl List {
    /// Adds all files of one put. A path that is named itself may be a link; links below stay links.
    fn add_put(&mut self, put: &Put, workdir: &[u8]) -> Result<(), Error> {
        match &put.content {
            PutContent::Host(host) => self.add_tree(host, target(put, host, workdir)?),
            PutContent::Given(content) => {
                self.size = self.size.saturating_add(content.len() as u64);
                self.push(Found {
                    content: Content::Given(content.clone()),
                    guest: target(put, Path::new(""), workdir)?,
                    mode: kind::FILE | 0o644,
                })
            }
        }
    }

    fn add_tree(&mut self, top: &Path, target: Vec<u8>) -> Result<(), Error> {
        let metadata = top.metadata().map_err(|e| unreadable(top, &e))?;
        let mut waiting = vec![(top.to_path_buf(), target, metadata)];
        while let Some((host, guest, metadata)) = waiting.pop() {
            if metadata.is_dir() {
                for name in names(&host).map_err(|e| unreadable(&host, &e))? {
                    let (host, guest) = (host.join(&name), beneath(&guest, name.as_bytes()));
                    let metadata = host.symlink_metadata();
                    let metadata = metadata.map_err(|e| unreadable(&host, &e))?;
                    waiting.push((host, guest, metadata));
                }
            }
            let is_top = host == top;
            self.add(host, guest, &metadata, is_top)?;
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
            self.size = self.size.saturating_add(metadata.len());
        }
        self.push(Found {
            content: Content::Host { path: host, is_top },
            guest,
            mode: metadata.mode() & (kind::MASK | 0o777),
        })
    }

    fn push(&mut self, found: Found) -> Result<(), Error> {
        if self.found.len() == COUNT_MAX {
            return Err(unusable(
                format!("there are more than {COUNT_MAX} files to put"),
                "put an archive of them, and unpack it in the program",
            ));
        }
        self.found.push(found);
        Ok(())
    }
}

/// Returns the names in a directory, in an order that does not change from run to run.
fn names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    // The order is reversed, since the names wait on a stack.
    names.sort_by(|a, b| b.cmp(a));
    Ok(names)
}

/// Returns the path in the guest: under the file's own name, unless another is given.
fn target(put: &Put, host: &Path, workdir: &[u8]) -> Result<Vec<u8>, Error> {
    let given = put.guest.as_deref().unwrap_or(OsStr::new("./"));
    let path = resolve(workdir, given)?;
    // A path that has no name of its own (`.`) stands for its content.
    match host.file_name() {
        Some(name) if given.as_bytes().ends_with(b"/") => Ok(beneath(&path, name.as_bytes())),
        _ => Ok(path),
    }
}

impl Found {
    /// Reads the content, at most one byte over `limit`.
    fn read(self, limit: u64) -> Result<File, Error> {
        let content = match self.content {
            Content::Given(content) => content,
            Content::Host { path, is_top } => {
                let content = match self.mode & kind::MASK {
                    kind::FILE => read_file(&path, limit, is_top),
                    kind::LINK => path.read_link().map(|to| to.into_os_string().into_vec()),
                    _ => Ok(Vec::new()),
                };
                content.map_err(|error| unreadable(&path, &error))?
            }
        };
        Ok(File {
            content,
            path: self.guest,
            mode: self.mode,
        })
    }
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
        return Err(io::Error::other("it is no file any more"));
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
    use std::ffi::OsString;

    #[test]
    fn a_file_keeps_its_name_unless_another_is_given() {
        for (host, guest, target_path) in [
            ("a/b", None, "/work/b"),
            ("a/b", Some("c"), "/work/c"),
            ("a/b", Some("c/"), "/work/c/b"),
            ("a/b", Some("/tmp/c"), "/tmp/c"),
            ("a/b", Some("/tmp/"), "/tmp/b"),
            ("/a/b/", None, "/work/b"),
            (".", None, "/work"),
            (".", Some("c"), "/work/c"),
            ("..", Some("c/"), "/work/c"),
        ] {
            let put = Put {
                content: PutContent::Host(host.into()),
                guest: guest.map(OsString::from),
            };
            let path = target(&put, Path::new(host), b"/work");
            assert_eq!(path, Ok(target_path.into()), "{host} {guest:?}");
        }
    }

    #[test]
    fn a_tree_is_read_with_its_kinds_and_modes_and_parents_first() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("b/empty")).unwrap();
        fs::write(top.join("a"), "content").unwrap();
        symlink("/etc/shadow", top.join("c")).unwrap();
        fs::set_permissions(top.join("a"), PermissionsExt::from_mode(0o4751)).unwrap();
        fs::set_permissions(top.join("b"), PermissionsExt::from_mode(0o2750)).unwrap();
        fs::set_permissions(top.join("b/empty"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::set_permissions(&top, PermissionsExt::from_mode(0o755)).unwrap();
        let put = Put {
            content: PutContent::Host(top),
            guest: None,
        };
        let file = |path: &str, mode, content: &str| File {
            path: path.into(),
            mode,
            content: content.into(),
        };
        let expected = [
            file("/work/top", 0o040_755, ""),
            file("/work/top/a", 0o100_751, "content"),
            file("/work/top/b", 0o040_750, ""),
            file("/work/top/b/empty", 0o040_700, ""),
            file("/work/top/c", 0o120_777, "/etc/shadow"),
        ];
        assert_eq!(read(&[put], b"/work", 64 << 20).unwrap(), expected);
    }

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

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        // The file is too large for anybody to read.
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let put = Put {
            content: PutContent::Host(path),
            guest: None,
        };
        let refused = read(&[put], b"/work", 256 << 20).unwrap_err();
        assert!(refused.message.contains("1048576 MiB"), "{refused}");
    }
}
