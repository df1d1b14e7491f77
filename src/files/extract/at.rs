//! Operations on names in a directory that is open, none of which follows a link.

use crate::clock::since_1970;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fstatat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

/// Returns a name that is short, whatever the file is to be called, and not in use, not even after a
/// run that was killed.
pub fn temporary_name() -> OsString {
    let now = since_1970().as_nanos();
    format!(".sandbox-{}-{now:x}", std::process::id()).into()
}

/// Opens a directory, but not through a link.
pub fn open_directory(parent: &OwnedFd, name: &OsStr, access: OFlag) -> nix::Result<OwnedFd> {
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

pub fn is_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// Sets the times of a file or a directory, in nanoseconds since 1970, as far as its file system can.
pub fn set_time(parent: &OwnedFd, name: &OsStr, modified: Option<i64>) {
    const SECOND: i64 = 1_000_000_000;
    let Some(modified) = modified else { return };
    let time = TimeSpec::new(modified.div_euclid(SECOND), modified.rem_euclid(SECOND));
    let flags = UtimensatFlags::NoFollowSymlink;
    // What has another time is as good otherwise.
    utimensat(parent, name, &time, &time, flags).unwrap_or_default();
}

/// Removes a name that is not a directory's (EISDIR).
pub fn remove(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)
}
