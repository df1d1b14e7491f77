//! Random bytes from the host, and identifiers made of them.

use crate::text::hex;
use anyhow::{Context, Result};
use nix::errno::Errno;

/// Returns random bytes from the host's kernel, by getrandom(2) alone: a confined thread may open
/// no device, which the `getrandom` crate would do in a static binary.
pub fn bytes(length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        let rest = &mut bytes[done..];
        // SAFETY: getrandom(2) writes at most the length given into the buffer given.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match Errno::result(count) {
            Ok(count) => done += count as usize,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("asking the host for random bytes"),
        }
    }
    Ok(bytes)
}

/// Returns an identifier that nobody can guess: 256 bits, in hexadecimal digits.
pub fn unguessable_id() -> Result<String> {
    Ok(hex(&bytes(32)?))
}
