//! Operations on names in a directory that is open, none of which follows a link.

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;

/// Opens a directory, but not through a link.
pub fn open_directory(parent: &OwnedFd, name: &OsStr, access: OFlag) -> nix::Result<OwnedFd> {
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

pub fn is_directory(parent: &OwnedFd, name: &OsStr) -> bool {
    let stat = fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// Removes a name that is not a directory's (EISDIR).
pub fn remove(parent: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)
}
