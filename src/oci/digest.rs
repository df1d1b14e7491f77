//! Digests: names of blobs that are checked against their bytes.

use crate::error::Error;
use crate::oci::refusal::{damaged, malformed, refused, shown, unreadable};
use crate::text::hex;
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// The SHA-256 of some bytes, as 64 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// Reads `sha256:` and the digits.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("sha256", digits)) => Self::of_digits(digits)
                .ok_or_else(|| malformed(format!("{} is no digest", shown(text)))),
            Some((kind @ ("sha512" | "blake3"), _)) => Err(refused(
                format!("it has digests of {kind}, which are not read"),
                "save the image with digests of sha256",
            )),
            _ => Err(malformed(format!("{} is no digest", shown(text)))),
        }
    }

    /// Reads the digits alone.
    pub fn of_digits(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_sound = digits.len() == 64 && digits.bytes().all(is_digit);
        is_sound.then(|| Self(digits.into()))
    }

    /// Returns where in an OCI image layout the blob is.
    pub fn path(&self) -> String {
        format!("blobs/sha256/{}", self.0)
    }

    /// Checks that bytes have this digest; `what` they are is told if not.
    pub fn check_bytes(&self, bytes: &[u8], what: &str) -> Result<(), Error> {
        self.check(&Sha256::digest(bytes), what)
    }

    /// Checks that what is read to its end has this digest.
    pub fn check_reader(&self, mut reader: impl Read, what: &str) -> Result<(), Error> {
        let mut hash = Sha256::new();
        let mut piece = vec![0; 256 << 10];
        loop {
            match reader.read(&mut piece).map_err(unreadable)? {
                0 => return self.check(&hash.finalize(), what),
                count => hash.update(&piece[..count]),
            }
        }
    }

    pub fn check(&self, found: &[u8], what: &str) -> Result<(), Error> {
        let found = hex(found);
        match found == self.0 {
            true => Ok(()),
            false => Err(damaged(format!(
                "{what} has the digest {}…, and should have {}…",
                &found[..12],
                &self.0[..12]
            ))),
        }
    }
}
