//! The output of a cell, kept for its record.

use crate::record::{Encoding, Record};
use crate::run::record_of::encode;
use crate::session::protocol::Piece;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Standard output and standard error. The session bounds both.
#[derive(Default)]
pub struct CapturedOutput([Vec<u8>; 2]);

impl CapturedOutput {
    /// Keeps a piece; returns its bytes.
    pub fn add(&mut self, piece: Piece) -> Result<&[u8]> {
        let kept = &mut self.0[usize::from(piece.stream != "stdout")];
        let start = kept.len();
        kept.extend(bytes_of(piece.data, piece.encoding)?);
        Ok(&kept[start..])
    }

    /// Puts the output into the record of its cell.
    pub fn in_record(self, mut record: Record) -> Record {
        let counts = [&mut record.stdout_bytes, &mut record.stderr_bytes];
        for (bytes, kept) in counts.into_iter().zip(&self.0) {
            bytes.captured = kept.len() as u64;
            bytes.omitted = bytes.total.saturating_sub(bytes.captured);
        }
        let [stdout, stderr] = self.0.map(encode);
        (record.stdout, record.stdout_encoding) = (Some(stdout.0), stdout.1);
        (record.stderr, record.stderr_encoding) = (Some(stderr.0), stderr.1);
        record
    }
}

/// Returns the bytes of a piece of output or input.
pub fn bytes_of(data: String, encoding: Encoding) -> Result<Vec<u8>> {
    match encoding {
        Encoding::Utf8 => Ok(data.into_bytes()),
        Encoding::Base64 => STANDARD.decode(data).context("decoding base64"),
    }
}
