//! Compression of an archive or of a layer, as its first bytes tell it.

use crate::error::Error;
use crate::oci::refusal::{refused, unreadable};
use crate::oci::region::Region;
use flate2::read::MultiGzDecoder;
use std::io::{BufReader, Read};

/// The first bytes of what is compressed in ways that are not read, and their names.
const UNKNOWN: [(&[u8], &str); 4] = [
    (b"\xfd7zXZ", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
];

/// Returns whether this is compressed in a way that is read.
pub fn is_compressed(region: &Region) -> Result<bool, Error> {
    let head = region.head::<8>().map_err(unreadable)?;
    if let Some((_, name)) = UNKNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(refused(
            format!("it is compressed with {name}, which is not read"),
            "compress it with gzip or zstd, or not at all",
        ));
    }
    Ok(is_gzip(&head) || is_zstd(&head))
}

/// Returns a reader of what is compressed, or of the bytes themselves.
pub fn unpacked(region: Region) -> Result<Box<dyn Read>, Error> {
    let head = region.head::<8>().map_err(unreadable)?;
    let is_plain = !is_compressed(&region)?;
    Ok(if is_plain {
        Box::new(BufReader::with_capacity(64 << 10, region))
    } else if is_gzip(&head) {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            64 << 10,
            region,
        )))
    } else {
        Box::new(zstd::Decoder::new(region).map_err(unreadable)?)
    })
}

fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

/// Checks for a frame, or one that is passed over (RFC 8878, section 3.1).
fn is_zstd(head: &[u8]) -> bool {
    head.starts_with(&0xfd2f_b528_u32.to_le_bytes())
        || head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18]
}
