//! The format of a template file: the layout of its header, and the checks of it.
//!
//! | offset | bytes | field, numbers in little-endian |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | version of this format |
//! | 12 | 4 | length of the description |
//! | 16 | 8 | length of the file |
//! | 24 | 8 | length of the state |
//! | 32 | 8 | offset of the memory |
//! | 40 | 8 | length of the memory |
//! | 48 | 8 | how long building took, in ms |
//! | 56 | 8 | when it was built, in seconds since 1970 |
//! | 64 | 32 | key |
//! | 96 | 256 | description, UTF-8, then zeroes |
//! | 352 | 32 | digest of the memory |
//! | 384 | 32 | seal: SHA-256 of all of the above and the state |
//!
//! The state follows at once, the memory at [`MEMORY_OFFSET`]. The bytes between them are not read.

use crate::template::Key;
use crate::units::PAGE;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The bytes of a header.
pub const HEADER_SIZE: usize = SEAL_AT + 32;
/// The most bytes of state.
pub const MAX_STATE: usize = 1 << 20;
/// The most bytes of a description.
const MAX_DESCRIPTION: usize = 256;
/// The offset of the memory: past the longest state, and aligned so that a huge page of the file
/// can be one of the guest.
pub const MEMORY_OFFSET: u64 = 2 << 20;

const MAGIC: [u8; 8] = *b"sandbox\x1a";
/// The version of the format. Raise it with any change to what this file writes.
const VERSION: u32 = 1;
const STATE_LENGTH_AT: usize = 24;
const SEAL_AT: usize = 384;

const _: () = assert!(HEADER_SIZE == 416);
const _: () = assert!((HEADER_SIZE + MAX_STATE) as u64 <= MEMORY_OFFSET);
const _: () = assert!(MEMORY_OFFSET.is_multiple_of(PAGE as u64));

/// The reason why a file is not a template of ours, as a clause about "it".
pub type Refusal = &'static str;

/// The header of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub key: Key,
    /// A description for people.
    pub description: String,
    /// The size in bytes.
    pub memory_size: u64,
    pub memory_digest: [u8; 32],
    /// The time that building took, rounded to milliseconds in the file.
    pub build_time: Duration,
    /// The time of creation, in seconds since 1970.
    pub created: u64,
}

/// Returns the length of a file with this much memory, or `None` if the memory is not a number of
/// whole pages or is too long.
pub fn file_length(memory_size: u64) -> Option<u64> {
    let whole = memory_size > 0 && memory_size.is_multiple_of(PAGE as u64);
    whole
        .then(|| MEMORY_OFFSET.checked_add(memory_size))
        .flatten()
}

impl Header {
    /// Encodes the header, followed by the state. It is an error if a part is longer than its
    /// field, or if the memory's length is invalid.
    pub fn encode(&self, state: &[u8]) -> Result<Vec<u8>> {
        let length = self.description.len();
        ensure!(
            length <= MAX_DESCRIPTION,
            "a description of {length} bytes is too long"
        );
        ensure!(
            state.len() <= MAX_STATE,
            "a state of {} bytes is too long",
            state.len()
        );
        let milliseconds = u64::try_from(self.build_time.as_millis())?;
        let mut description = [0; MAX_DESCRIPTION];
        description[..length].copy_from_slice(self.description.as_bytes());

        let mut bytes = Vec::with_capacity(HEADER_SIZE + state.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((length as u32).to_le_bytes());
        for number in [
            file_length(self.memory_size).context("the size of the memory is invalid")?,
            state.len() as u64,
            MEMORY_OFFSET,
            self.memory_size,
            milliseconds,
            self.created,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.key.as_str().bytes());
        bytes.extend(description);
        bytes.extend(self.memory_digest);
        bytes.extend(seal(&bytes, state));
        bytes.extend(state);
        Ok(bytes)
    }

    /// Decodes a header followed by its state. There must be no more bytes and no fewer.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let (header, state) = bytes.split_first_chunk().ok_or("its header is cut short")?;
        if state.len() != state_length(header)? {
            return Err("its state has another length than it says");
        }
        if seal(&header[..SEAL_AT], state) != header[SEAL_AT..] {
            return Err("its checksum is wrong");
        }
        Self::parse(header).ok_or("its header makes no sense")
    }

    fn parse(header: &[u8; HEADER_SIZE]) -> Option<Self> {
        let mut fields = Fields(header);
        let _magic_and_version: [u8; 12] = fields.take()?;
        let length = u32::from_le_bytes(fields.take()?);
        let length_of_file = fields.number()?;
        let _state_length = fields.number()?;
        let memory_offset = fields.number()?;
        let memory_size = fields.number()?;
        let build_time = Duration::from_millis(fields.number()?);
        let created = fields.number()?;
        let key: [u8; Key::LENGTH] = fields.take()?;
        let description: [u8; MAX_DESCRIPTION] = fields.take()?;
        let (description, rest) = description.split_at_checked(length as usize)?;
        let header = Self {
            key: Key::parse(str::from_utf8(&key).ok()?)?,
            description: str::from_utf8(description).ok()?.into(),
            memory_size,
            memory_digest: fields.take()?,
            build_time,
            created,
        };
        let sound = memory_offset == MEMORY_OFFSET
            && file_length(memory_size) == Some(length_of_file)
            && rest.iter().all(|&byte| byte == 0);
        sound.then_some(header)
    }
}

/// Returns the number of bytes of state that follow this header, at most [`MAX_STATE`]. The rest of
/// the header is not checked yet.
pub fn state_length(header: &[u8; HEADER_SIZE]) -> Result<usize, Refusal> {
    if !header.starts_with(&MAGIC) {
        return Err("it is not a template");
    }
    if !header[MAGIC.len()..].starts_with(&VERSION.to_le_bytes()) {
        return Err("its format is of another version");
    }
    Fields(&header[STATE_LENGTH_AT..])
        .number()
        .and_then(|length| usize::try_from(length).ok())
        .filter(|&length| length <= MAX_STATE)
        .ok_or("its state is longer than any")
}

/// Computes the seal of the header's fields and the state. The fields have a fixed length, so no
/// byte can move between the two.
fn seal(header: &[u8], state: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(header)
        .chain_update(state)
        .finalize()
        .into()
}

/// The part of a header that is not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const STATE: &[u8] = b"the state of a machine";

    fn header() -> Header {
        Header {
            key: Key::of(&[b"test"]),
            description: "Python 3 with 256 MiB".into(),
            memory_size: 256 << 20,
            memory_digest: [7; 32],
            build_time: Duration::from_millis(2_345),
            created: 1_700_000_000,
        }
    }

    /// Returns a file of the right shape with any content, under a seal that fits.
    fn sealed(mut bytes: Vec<u8>, state: &[u8]) -> Vec<u8> {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let length = (state.len() as u64).to_le_bytes();
        bytes[STATE_LENGTH_AT..][..8].copy_from_slice(&length);
        let seal = seal(&bytes[..SEAL_AT], state);
        bytes[SEAL_AT..].copy_from_slice(&seal);
        bytes.extend(state);
        bytes
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let bytes = header().encode(STATE).unwrap();
        assert_eq!(bytes.len(), HEADER_SIZE + STATE.len());
        assert_eq!(Header::decode(&bytes), Ok(header()));
        assert_eq!(sealed(bytes[..HEADER_SIZE].into(), STATE), bytes);
    }

    #[test]
    fn every_single_bit_flip_is_refused() {
        let mut bytes = header().encode(STATE).unwrap();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn what_is_cut_short_or_grown_is_refused() {
        let mut bytes = header().encode(STATE).unwrap();
        for length in 0..bytes.len() {
            assert!(Header::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        bytes.push(0);
        assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn a_sealed_header_that_makes_no_sense_is_refused() {
        let good = header().encode(&[]).unwrap();
        assert!(Header::decode(&sealed(good.clone(), &[])).is_ok());
        for (offset, byte) in [
            (13, 2),    // a description longer than its field
            (16, 1),    // another length of the file
            (33, 1),    // another offset of the memory
            (40, 1),    // a memory that is no number of pages
            (64, b'G'), // no key
            (96, 0xff), // no UTF-8
            (351, 1),   // something past the description
        ] {
            let mut bytes = good.clone();
            bytes[offset] = byte;
            let refusal = Header::decode(&sealed(bytes, &[]));
            assert_eq!(refusal, Err("its header makes no sense"), "{offset}");
        }
    }

    #[test]
    fn too_much_is_not_encoded() {
        let mut header = header();
        assert!(header.encode(&vec![0; MAX_STATE]).is_ok());
        assert!(header.encode(&vec![0; MAX_STATE + 1]).is_err());
        header.description = "x".repeat(MAX_DESCRIPTION + 1);
        assert!(header.encode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_refused(bytes in vec(any::<u8>(), 0..2 * HEADER_SIZE)) {
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn any_sealed_bytes_are_a_header_or_refused(
            bytes in vec(any::<u8>(), HEADER_SIZE),
            state in vec(any::<u8>(), 0..64),
            like_ours in vec((0..SEAL_AT, any::<u8>()), 0..3),
        ) {
            prop_assert!(Header::decode(&sealed(bytes, &state)).is_err());
            let mut near = header().encode(&[]).unwrap();
            for (offset, byte) in like_ours {
                near[offset] = byte;
            }
            if let Ok(header) = Header::decode(&sealed(near, &state)) {
                prop_assert!(file_length(header.memory_size).is_some());
                prop_assert!(header.encode(&state).is_ok());
            }
        }
    }
}
