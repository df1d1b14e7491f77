//! The writer of a template.

use crate::clock::since_1970;
use crate::fs::begin_sync;
use crate::template::Lock;
use crate::template::format::{Header, MEMORY_OFFSET, file_length};
use crate::template::pages::{Digest, digest, is_zero};
use crate::template::store::{DRAFT, Found, Store, TEMPLATE, Template};
use crate::units::{HUGE_PAGE, PAGE};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

/// The number of zero pages from which a gap between two other pages is left out. Smaller gaps are
/// kept as well, since each run of pages is mapped on its own.
pub const GAP: u32 = 64;

/// A template that is being written, under a name that nobody reads. Its file is removed when this
/// is dropped.
pub struct TemplateWriter<'a> {
    store: &'a Store,
    lock: &'a Lock,
    path: PathBuf,
    file: File,
    memory_size: u64,
    digest: Digest,
    /// The digest of the memory, if another process wrote it.
    known: Option<[u8; 32]>,
    /// Pages that are not written yet. They are all in one huge page, and begin with index `first`.
    pending: Vec<u8>,
    first: u64,
    /// The least index that the next page may have.
    next: u64,
    published: bool,
}

impl Store {
    /// Begins a template with `memory_size` bytes of memory, a multiple of [`PAGE`], which is all
    /// zero so far.
    pub fn writer<'a>(&'a self, lock: &'a Lock, memory_size: u64) -> Result<TemplateWriter<'a>> {
        let length = file_length(memory_size).context("the size of the memory is invalid")?;
        // The lock is not enough: on some network file systems it has no effect between hosts.
        let nanoseconds = since_1970().as_nanos();
        let role = format!("{DRAFT}{}-{nanoseconds}", std::process::id());
        let path = self.path(&lock.key, &role);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let writer = TemplateWriter {
            store: self,
            lock,
            file: file.with_context(|| self.writing(lock))?,
            path,
            memory_size,
            digest: Digest::default(),
            known: None,
            pending: Vec::with_capacity(HUGE_PAGE),
            first: 0,
            next: 0,
            published: false,
        };
        writer
            .file
            .set_len(length)
            .with_context(|| self.writing(lock))?;
        Ok(writer)
    }

    fn writing(&self, lock: &Lock) -> String {
        let directory = self.directory().display();
        format!("writing the template {} into {directory}", lock.key)
    }
}

impl TemplateWriter<'_> {
    /// Writes the page at `index * PAGE` of the memory. Pages come in ascending order; zero pages
    /// may be left out.
    pub fn write_page(&mut self, index: u64, page: &[u8; PAGE]) -> Result<()> {
        assert!(
            index >= self.next && index < self.memory_size / PAGE as u64,
            "page {index} is out of order"
        );
        self.next = index + 1;
        if is_zero(page) {
            return Ok(());
        }
        self.digest.add(index, page);
        let zeroes = index - self.first - (self.pending.len() / PAGE) as u64;
        if self.pending.is_empty() || zeroes >= GAP.into() || !self.is_in_the_piece(index) {
            self.flush()?;
            self.first = index;
        } else {
            let length = self.pending.len() + zeroes as usize * PAGE;
            self.pending.resize(length, 0);
        }
        self.pending.extend_from_slice(page);
        Ok(())
    }

    /// Checks whether the page belongs to the same huge page as the pending ones. A file system can
    /// keep in one huge page what is written at once and fills it.
    fn is_in_the_piece(&self, index: u64) -> bool {
        let piece = (HUGE_PAGE / PAGE) as u64;
        index / piece == self.first / piece
    }

    /// Returns the length of its file, which does not change.
    pub fn length(&self) -> Option<u64> {
        file_length(self.memory_size)
    }

    /// Takes over what another process has written with this writer's copy.
    pub fn take_over(&mut self) -> Result<()> {
        let digest = digest(&self.file, MEMORY_OFFSET, self.memory_size);
        self.known = Some(digest.with_context(|| self.store.writing(self.lock))?);
        Ok(())
    }

    /// Writes what is pending.
    pub fn flush(&mut self) -> Result<()> {
        let offset = MEMORY_OFFSET + self.first * PAGE as u64;
        self.file
            .write_all_at(&self.pending, offset)
            .with_context(|| self.store.writing(self.lock))?;
        self.pending.clear();
        Ok(())
    }

    /// Reserves room on the disk for these pages, zero or not. A mapping of them then never fails
    /// for lack of room, nor makes the file grow.
    pub fn reserve(&mut self, first: u64, count: u64) -> Result<()> {
        let (offset, length) = (MEMORY_OFFSET + first * PAGE as u64, count * PAGE as u64);
        let (offset, length) = (i64::try_from(offset)?, i64::try_from(length)?);
        match fallocate(&self.file, FallocateFlags::empty(), offset, length) {
            // Not every file system supports it.
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno).with_context(|| self.store.writing(self.lock)),
        }
    }

    /// Returns the file and the offset of the memory so far, to try it out before it is published.
    pub fn memory(&mut self) -> Result<(File, u64)> {
        self.flush()?;
        begin_sync(&self.file);
        let file = self.file.try_clone();
        let file = file.with_context(|| self.store.writing(self.lock))?;
        Ok((file, MEMORY_OFFSET))
    }

    /// Publishes it as the template of its key, in place of any other, and opens it as
    /// [`Store::find`] does. The state has at most 1 MiB, and the description at most 256 bytes.
    pub fn publish(
        mut self,
        state: &[u8],
        description: &str,
        build_time: Duration,
    ) -> Result<Template> {
        self.flush()?;
        let header = Header {
            key: self.lock.key.clone(),
            description: description.into(),
            memory_size: self.memory_size,
            memory_digest: match self.known {
                Some(digest) => digest,
                None => std::mem::take(&mut self.digest).finish(),
            },
            build_time,
            created: since_1970().as_secs(),
        };
        let head = header.encode(state)?;
        self.complete(&head)
            .with_context(|| self.store.writing(self.lock))?;

        let path = self.store.path(&self.lock.key, TEMPLATE);
        fs::rename(&self.path, &path)
            .with_context(|| format!("putting the template at {}", path.display()))?;
        self.published = true;
        File::open(self.store.directory())
            .and_then(|directory| directory.sync_all())
            .with_context(|| self.store.writing(self.lock))?;
        match self.store.find(&self.lock.key)? {
            Found::Ready(template) => Ok(template),
            Found::Missing => bail!("the template {} was removed just now", path.display()),
            Found::Refused(why) => bail!("the template {} is bad: {why}", path.display()),
        }
    }

    /// Completes the file. It is synced before the rename, because nobody checks the memory after a
    /// crash of the host.
    fn complete(&self, head: &[u8]) -> io::Result<()> {
        self.file.write_all_at(head, 0)?;
        self.file.set_permissions(Permissions::from_mode(0o400))?;
        self.file.sync_all()
    }
}

impl Drop for TemplateWriter<'_> {
    fn drop(&mut self) {
        if !self.published {
            // If this fails, the next holder of the lock removes the file.
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::fixture::Fixture;

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let fixture = Fixture::new();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        let mut writer = fixture.store.writer(&lock, 2 * PAGE as u64).unwrap();
        writer.write_page(1, &[1; PAGE]).unwrap();
        assert_eq!(fixture.names().len(), 2);
        drop(writer);
        assert_eq!(fixture.names(), [format!("{}.lock", fixture.key)]);
    }

    #[test]
    fn a_draft_that_cannot_be_made_or_finished_leaves_nothing() {
        let fixture = Fixture::new();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        let page = PAGE as u64;
        for size in [0, page - 1, 1 << 63, page.wrapping_neg()] {
            assert!(fixture.store.writer(&lock, size).is_err(), "{size}");
        }
        let writer = fixture.store.writer(&lock, page).unwrap();
        let state = vec![0; crate::template::format::MAX_STATE + 1];
        writer.publish(&state, "", Duration::ZERO).unwrap_err();
        assert_eq!(fixture.names(), [format!("{}.lock", fixture.key)]);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let fixture = Fixture::new();
        fs::create_dir_all(fixture.path("template/in")).unwrap();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        let writer = fixture.store.writer(&lock, PAGE as u64).unwrap();
        let error = writer.publish(b"", "", Duration::ZERO).unwrap_err();
        let path = fixture.path(TEMPLATE);
        assert!(error.to_string().contains(path.to_str().unwrap()));
        assert!(format!("{error:#}").contains("Is a directory"), "{error:#}");
        assert_eq!(fixture.names().len(), 2);
    }

    #[test]
    fn a_directory_that_is_gone_is_named() {
        let fixture = Fixture::new();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        fs::remove_dir_all(fixture.directory.path()).unwrap();
        let error = fixture.store.writer(&lock, PAGE as u64).err().unwrap();
        let directory = fixture.directory.path().to_str().unwrap();
        assert!(error.to_string().contains(directory), "{error:#}");
    }

    #[test]
    fn adjacent_and_scattered_pages_all_arrive() {
        let fixture = Fixture::new();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        let chunk = (HUGE_PAGE / PAGE) as u64;
        let count = 2 * chunk;
        let mut writer = fixture.store.writer(&lock, count * PAGE as u64).unwrap();
        // Some pages have few zero pages between them; others have as many as are kept, or as are
        // left out.
        let apart = [chunk + 10, chunk + 73, chunk + 137, chunk + 202];
        let is_there = |index: u64| index <= chunk || apart.contains(&index);
        for index in (0..count).filter(|&index| is_there(index)) {
            writer.write_page(index, &[index as u8; PAGE]).unwrap();
        }
        let template = writer.publish(b"", "", Duration::ZERO).unwrap();
        for index in 0..count {
            let mut page = [0; PAGE];
            let offset = template.memory_offset + index * PAGE as u64;
            template.memory.read_exact_at(&mut page, offset).unwrap();
            let expected = if is_there(index) { index as u8 } else { 0 };
            assert_eq!(page, [expected; PAGE], "page {index}");
        }
        assert!(template.verify().unwrap());
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn pages_come_in_ascending_order() {
        let fixture = Fixture::new();
        let lock = fixture.store.lock(&fixture.key, || ()).unwrap();
        let mut writer = fixture.store.writer(&lock, 2 * PAGE as u64).unwrap();
        writer.write_page(1, &[0; PAGE]).unwrap();
        writer.write_page(1, &[1; PAGE]).unwrap();
    }
}
