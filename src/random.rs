//! Random bytes of the host's, and names made of them.

use crate::text::hex;
use anyhow::{Context, Result};

/// Returns random bytes of the host's kernel.
pub fn bytes(length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).context("asking the host for random bytes")?;
    Ok(bytes)
}

/// Returns an identifier that nobody can guess: 256 bits, in hexadecimal digits.
pub fn unguessable_id() -> Result<String> {
    Ok(hex(&bytes(32)?))
}
