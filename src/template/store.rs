//! The directory of templates.

use crate::cache::{self, Opened, check_writable, mark_used};
use crate::template::format::{HEADER_SIZE, Header, MEMORY_OFFSET, file_length, state_length};
use crate::template::{Key, pages};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

// Roles of files, which follow `KEY.` in their names.
pub(super) const TEMPLATE: &str = "template";
pub(super) const LOCK: &str = "lock";
/// A prefix; each builder appends a suffix of its own.
pub(super) const DRAFT: &str = "writer-";

/// The templates of this user.
#[derive(Debug)]
pub struct Store(PathBuf);

/// The result of looking up a key.
#[derive(Debug)]
pub enum Found {
    Ready(Template),
    Missing,
    /// There is a file that must not be used, and why, as a clause about "it". Publishing replaces
    /// it.
    Refused(String),
}

/// A template that may be run.
#[derive(Debug)]
pub struct Template {
    /// The verified state.
    pub state: Vec<u8>,
    /// The file, open for reading, and the offset of the memory in it, in bytes. The memory is not
    /// verified, but has the right length.
    pub memory: File,
    pub memory_offset: u64,
    pub memory_size: u64,
    /// The time that building it took.
    pub build_time: Duration,
    /// When it was used before, in seconds since 1970.
    used: i64,
    pub(super) header: Header,
}

impl Store {
    /// Opens `templates` in the user's cache, and creates it if it does not exist.
    pub fn open() -> Result<Self> {
        cache::subdirectory("templates").map(Self)
    }

    /// Returns the store in a directory, which must exist and be private.
    #[cfg(any(test, feature = "internals"))]
    pub fn at(directory: &Path) -> Self {
        Self(directory.into())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0
    }

    pub(super) fn path(&self, key: &Key, role: &str) -> PathBuf {
        self.0.join(format!("{key}.{role}"))
    }

    /// Lists all files that are ours by their names, as key, role and path.
    pub(super) fn files(&self) -> Result<Vec<(Key, String, PathBuf)>> {
        let reading = || format!("reading the directory {}", self.directory().display());
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory()).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let name = entry.file_name();
            let split = name.to_str().and_then(|name| name.split_once('.'));
            if let Some((key, role)) = split
                && let Some(key) = Key::parse(key)
                && (role == TEMPLATE || role == LOCK || role.starts_with(DRAFT))
            {
                files.push((key, role.into(), entry.path()));
            }
        }
        Ok(files)
    }

    /// Finds the template of a key, with its header and state verified. An error is one of the
    /// system; anything wrong with the file itself is a reason to refuse it.
    pub fn find(&self, key: &Key) -> Result<Found> {
        let path = self.path(key, TEMPLATE);
        let opened = cache::open_trusted(&path)
            .with_context(|| format!("opening the template {}", path.display()))?;
        Ok(match opened {
            Opened::Missing => Found::Missing,
            Opened::Refused(why) => Found::Refused(why.into()),
            Opened::Trusted(file, metadata) => {
                Template::read(file, &metadata, key).map_or_else(Found::Refused, Found::Ready)
            }
        })
    }
}

impl Store {
    /// Checks that a template can be published under this key. It is called before the work of
    /// building one.
    pub fn check_place(&self, key: &Key) -> Result<()> {
        check_writable(self.directory())?;
        let path = self.path(key, TEMPLATE);
        if path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
            bail!("{} is a directory: remove it", path.display());
        }
        Ok(())
    }
}

impl Template {
    fn read(file: File, metadata: &Metadata, key: &Key) -> Result<Self, String> {
        let read = |bytes: &mut [u8], offset| {
            file.read_exact_at(bytes, offset)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it is cut short".into(),
                    _ => format!("it cannot be read: {error}"),
                })
        };
        let mut head = [0; HEADER_SIZE];
        read(&mut head, 0)?;
        let mut bytes = head.to_vec();
        bytes.resize(HEADER_SIZE + state_length(&head)?, 0);
        read(&mut bytes[HEADER_SIZE..], HEADER_SIZE as u64)?;
        let header = Header::decode(&bytes)?;
        if header.key != *key {
            return Err("it is the template of another key".into());
        }
        if file_length(header.memory_size) != Some(metadata.len()) {
            return Err("its length is wrong".into());
        }
        Ok(Self {
            state: bytes.split_off(HEADER_SIZE),
            memory: file,
            memory_offset: MEMORY_OFFSET,
            memory_size: header.memory_size,
            build_time: header.build_time,
            used: metadata.mtime(),
            header,
        })
    }

    /// Marks it as used, for as long as its memory is open or mapped.
    pub fn mark_used(&self) {
        mark_used(&self.memory, self.used);
    }

    /// Returns the digest of the memory that was written.
    pub fn digest(&self) -> [u8; 32] {
        self.header.memory_digest
    }

    /// Checks whether the memory is what was written. It reads all of it except holes.
    pub fn verify(&self) -> Result<bool> {
        let digest = pages::digest(&self.memory, self.memory_offset, self.memory_size)?;
        Ok(digest == self.header.memory_digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::prune;
    use crate::template::fixture::{Fixture, PAGES, STATE};
    use crate::units::PAGE;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[track_caller]
    fn assert_refused(fixture: &Fixture, why: &str) {
        let found = fixture.find();
        assert!(
            matches!(&found, Found::Refused(given) if given == why),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_published_is_found() {
        let fixture = Fixture::published();
        let template = fixture.template();
        assert_eq!(template.state, STATE);
        assert_eq!(template.memory_size, 8 * PAGE as u64);
        assert_eq!(template.build_time, Duration::from_millis(1234));
        for index in 0..8 {
            let mut page = [1; PAGE];
            let offset = template.memory_offset + index * PAGE as u64;
            template.memory.read_exact_at(&mut page, offset).unwrap();
            let written = PAGES.iter().find(|(there, _)| *there == index);
            assert_eq!(page, [written.map_or(0, |(_, byte)| *byte); PAGE]);
        }
        assert!(template.verify().unwrap());
        let mode = fixture.path(TEMPLATE).metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o400);
    }

    #[test]
    fn a_template_that_nobody_made_is_missing() {
        assert!(matches!(Fixture::new().find(), Found::Missing));
    }

    #[test]
    fn a_template_of_another_key_is_refused() {
        let fixture = Fixture::published();
        let other = Key::of(&[b"other"]);
        let path = fixture.store.path(&other, TEMPLATE);
        fs::rename(fixture.path(TEMPLATE), path).unwrap();
        let found = fixture.store.find(&other).unwrap();
        assert!(matches!(found, Found::Refused(why) if why.contains("another key")));
    }

    #[test]
    fn a_flipped_bit_in_header_or_state_is_refused() {
        let fixture = Fixture::published();
        let length = HEADER_SIZE + STATE.len();
        for bit in (0..length * 8).step_by(5) {
            fixture.flip(bit as u64);
            assert!(matches!(fixture.find(), Found::Refused(_)), "bit {bit}");
            fixture.flip(bit as u64);
        }
        fixture.template();
        fixture.flip(8 * 100);
        assert_refused(&fixture, "its checksum is wrong");
    }

    #[test]
    fn a_file_of_another_length_is_refused() {
        let fixture = Fixture::published();
        let path = fixture.path(TEMPLATE);
        let length = path.metadata().unwrap().len();
        for (length, why) in [
            (length + 1, "its length is wrong"),
            (length - 1, "its length is wrong"),
            (HEADER_SIZE as u64, "it is cut short"),
            (1, "it is cut short"),
            (0, "it is cut short"),
        ] {
            fixture.change(|file| file.set_len(length).unwrap());
            assert_refused(&fixture, why);
        }
    }

    #[test]
    fn a_file_that_somebody_may_write_is_refused() {
        let fixture = Fixture::published();
        for mode in [0o600, 0o420, 0o402] {
            fixture.set_mode(mode);
            assert_refused(&fixture, "it can be written to");
        }
    }

    #[test]
    fn a_link_is_refused() {
        let fixture = Fixture::published();
        let (path, other) = (fixture.path(TEMPLATE), fixture.directory.path().join("x"));
        fs::hard_link(&path, &other).unwrap();
        assert_refused(&fixture, "it has a second name");
        fs::remove_file(&path).unwrap();
        symlink(&other, &path).unwrap();
        assert_refused(&fixture, "it is a symbolic link");
    }

    #[test]
    fn publishing_replaces_what_is_refused() {
        let fixture = Fixture::new();
        let target = fixture.directory.path().join("target");
        fs::write(&target, "not to be touched").unwrap();
        symlink(&target, fixture.path(TEMPLATE)).unwrap();
        fixture.publish();
        fixture.template();
        assert_eq!(fs::read(target).unwrap(), b"not to be touched");
    }

    #[test]
    fn a_template_that_is_replaced_stays_readable_for_who_has_it_open() {
        let fixture = Fixture::published();
        let old = fixture.template();
        fixture.publish();
        prune(&[&fixture.store], 0).unwrap();
        assert!(old.verify().unwrap());
    }

    #[test]
    fn a_flipped_bit_in_the_memory_does_not_verify() {
        let fixture = Fixture::published();
        for (index, _) in PAGES {
            let bit = (MEMORY_OFFSET + index * PAGE as u64 + 77) * 8;
            fixture.flip(bit);
            assert!(!fixture.template().verify().unwrap(), "page {index}");
            fixture.flip(bit);
            assert!(fixture.template().verify().unwrap(), "page {index}");
        }
    }

    #[test]
    fn a_page_added_in_a_hole_does_not_verify() {
        let fixture = Fixture::published();
        let offset = MEMORY_OFFSET + 5 * PAGE as u64;
        fixture.change(|file| file.write_all_at(&[0; PAGE], offset).unwrap());
        assert!(fixture.template().verify().unwrap());
        fixture.change(|file| file.write_all_at(&[1; PAGE], offset).unwrap());
        assert!(!fixture.template().verify().unwrap());
    }
}
