//! Descriptors that the process that started us left open.

use crate::limits::ConfineLevel;
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::os::fd::RawFd;

/// Closes the descriptors that the process that started us left open. It is called before we open
/// anything that is not in `kept`, and before there are other threads.
pub fn prepare(level: ConfineLevel, kept: Vec<RawFd>) -> Result<()> {
    if level == ConfineLevel::Off {
        return Ok(());
    }
    share_one_heap();
    close_all_but(kept)
}

/// Makes all threads share one heap: before the C library gives back the heap of another thread, it
/// opens a file.
fn share_one_heap() {
    // SAFETY: the call changes a setting of the allocator. It does not fail for this number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Closes all descriptors but the standard streams and these.
pub fn close_all_but(mut kept: Vec<RawFd>) -> Result<()> {
    kept.sort_unstable();
    let mut first = libc::STDERR_FILENO + 1;
    for fd in kept.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: by the contract of the callers, nobody uses the others any more.
            let result = unsafe { libc::close_range(first as u32, fd as u32 - 1, 0) };
            match Errno::result(result) {
                // Linux before 5.9, or a container runtime before it: they stay, but are useless
                // without calls that could use them.
                Ok(_) | Err(Errno::ENOSYS | Errno::EPERM) => {}
                Err(errno) => return Err(errno).context("closing inherited descriptors"),
            }
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}
