//! Tests of what the cache trusts, and of the marks of use.

use super::*;
use crate::cache::wait_until;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;
use vm_memory::{FileOffset, mmap::MmapRegion};

fn file(directory: &Path, mode: u32) -> PathBuf {
    let path = directory.join("file");
    fs::write(&path, "content").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[track_caller]
fn assert_refused(path: &Path, why: &str) {
    let opened = open_trusted(path).unwrap();
    assert!(
        matches!(opened, Opened::Refused(given) if given == why),
        "{opened:?}"
    );
}

#[test]
fn an_unwritable_file_of_ours_is_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_trusted(&file(directory.path(), 0o400)).unwrap();
    assert!(
        matches!(&opened, Opened::Trusted(_, it) if it.len() == 7),
        "{opened:?}"
    );
}

#[test]
fn a_file_that_anybody_may_write_is_refused() {
    for mode in [0o600, 0o420, 0o402] {
        let directory = tempfile::tempdir().unwrap();
        assert_refused(&file(directory.path(), mode), "it can be written to");
    }
}

#[test]
fn links_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), 0o400);
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert_refused(&link, "it is a symbolic link");
    fs::remove_file(&link).unwrap();
    fs::hard_link(&path, &link).unwrap();
    assert_refused(&link, "it has a second name");
}

#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting_for_it() {
    let directory = tempfile::tempdir().unwrap();
    assert_refused(directory.path(), "it is not a regular file");
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    assert_refused(&fifo, "it is not a regular file");
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_refused(&socket, "it is not a regular file");
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    if !geteuid().is_root() {
        return; // nobody else may give files away
    }
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), 0o400);
    chown(&path, Some(1), None).unwrap();
    assert_refused(&path, "it belongs to somebody else");
}

fn open(path: &Path) -> (File, Metadata) {
    match open_trusted(path).unwrap() {
        Opened::Trusted(file, metadata) => (file, metadata),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_in_use_while_it_is_open_or_mapped_after_a_mark() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), 0o400);
    let (opened, metadata) = open(&path);
    assert!(!is_in_use(&path));
    mark_used(&opened, metadata.mtime());
    assert!(is_in_use(&path));
    let mapping = MmapRegion::<()>::build(
        Some(FileOffset::new(opened, 0)),
        4096,
        libc::PROT_READ,
        libc::MAP_PRIVATE,
    );
    assert!(is_in_use(&path));
    drop(mapping);
    wait_until(|| !is_in_use(&path));
    assert!(!is_in_use(&directory.path().join("nothing")));
}

#[test]
fn the_time_of_use_is_written_once_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), 0o400);
    for (age, is_written) in [(59, false), (61, true)] {
        let before = UNIX_EPOCH + since_1970() - Duration::from_secs(age * 60);
        open(&path).0.set_modified(before).unwrap();
        let (opened, metadata) = open(&path);
        mark_used(&opened, metadata.mtime());
        let after = path.metadata().unwrap().modified().unwrap();
        assert_eq!(after > before, is_written, "{age} minutes");
    }
}

#[test]
fn a_file_that_is_not_there_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let opened = open_trusted(&directory.path().join("file")).unwrap();
    assert!(matches!(opened, Opened::Missing), "{opened:?}");
}
