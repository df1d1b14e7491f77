//! The header of a template file, under a seal that fits.

use sandbox::internals::template::format::{HEADER_SIZE, Header, state_length};
use sha2::{Digest, Sha256};

const MAGIC_AND_VERSION: &[u8] = b"sandbox\x1a\x01\0\0\0";
const STATE_LENGTH_AT: usize = 24;
const SEAL_AT: usize = 384;

/// Only what we would have written ourselves is a header.
pub fn template(data: &[u8]) {
    assert!(Header::decode(data).is_err(), "its seal cannot fit");
    if data.len() < HEADER_SIZE {
        return;
    }
    let sealed = sealed(data);
    if let Ok(header) = Header::decode(&sealed) {
        let state = &sealed[HEADER_SIZE..];
        let start = sealed.first_chunk().unwrap();
        assert_eq!(state_length(start), Ok(state.len()));
        assert_eq!(header.encode(state).unwrap(), sealed);
    }
}

fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let state_length = (data.len() - HEADER_SIZE) as u64;
    bytes[..MAGIC_AND_VERSION.len()].copy_from_slice(MAGIC_AND_VERSION);
    bytes[STATE_LENGTH_AT..][..8].copy_from_slice(&state_length.to_le_bytes());
    let seal = Sha256::new()
        .chain_update(&bytes[..SEAL_AT])
        .chain_update(&bytes[HEADER_SIZE..])
        .finalize();
    bytes[SEAL_AT..HEADER_SIZE].copy_from_slice(&seal);
    bytes
}
