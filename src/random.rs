//! Names that nobody can guess.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;

/// 256 bits, in hexadecimal digits.
pub fn name() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("reading random bytes")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
