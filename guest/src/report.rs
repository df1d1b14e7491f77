//! The guest's reports beside the program's output, as a stream of records. The interpreter reports
//! how the program ended and what it displays ([`crate::stream::REPORTS`]), the kernel what
//! processes did ([`crate::stream::EVENTS`]).
//!
//! A record is its kind (u8), the length of the rest (u32), and fields, each behind its length
//! (u32). The warm interpreter (`guest/images/python/warm/report.c`) and our kernel (host_events.c
//! there) write them.

use crate::bytes::{Malformed, put_bytes, take_bytes};
pub use crate::hypercall::report::{DISPLAY, EXCEPTION, RESULT};

/// The most fields of a record.
const MAX_FIELDS: usize = 64;

const HEAD: usize = 5;

/// A record of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: u8,
    pub fields: Vec<Vec<u8>>,
}

impl Record {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([self.kind, 0, 0, 0, 0]);
        self.fields.iter().for_each(|field| put_bytes(out, field));
        let length = (out.len() - start - HEAD) as u32;
        out[start + 1..start + HEAD].copy_from_slice(&length.to_le_bytes());
    }

    fn decode(kind: u8, mut payload: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        while !payload.is_empty() {
            if fields.len() == MAX_FIELDS {
                return Err(Malformed("too many fields"));
            }
            fields.push(take_bytes(&mut payload)?);
        }
        Ok(Self { kind, fields })
    }
}

/// A reader of records from a stream that arrives in pieces and may hold anything. Bytes that are
/// no record, or one that is too long, are left out, and the next record begins where they end.
#[derive(Debug, Clone, Default)]
pub struct Records {
    head: Vec<u8>,
    payload: Vec<u8>,
    /// The bytes of the payload that are still to come.
    missing: usize,
    /// Whether the payload is skipped.
    skips: bool,
}

impl Records {
    /// Returns the next record once all of it has arrived; its bytes are taken from `bytes`. `room`
    /// returns the most bytes that a record of this kind may have; no more than that is held.
    pub fn next(
        &mut self,
        bytes: &mut &[u8],
        room: impl Fn(u8) -> usize,
    ) -> Option<Result<Record, Malformed>> {
        if self.head.len() < HEAD {
            self.head.extend(take(bytes, HEAD - self.head.len()));
            let [kind, a, b, c, d] = self.head[..] else {
                return None;
            };
            self.missing = u32::from_le_bytes([a, b, c, d]) as usize;
            self.skips = self.missing > room(kind);
        }
        let piece = take(bytes, self.missing);
        self.missing -= piece.len();
        if !self.skips {
            self.payload.extend(piece);
        }
        if self.missing > 0 {
            return None;
        }
        let kind = self.head[0];
        self.head.clear();
        let payload = std::mem::take(&mut self.payload);
        Some(match self.skips {
            true => Err(Malformed("too long")),
            false => Record::decode(kind, &payload),
        })
    }
}

fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(most.min(bytes.len()));
    *bytes = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ROOM: usize = 1000;

    fn read(records: &mut Records, mut bytes: &[u8]) -> Vec<Result<Record, Malformed>> {
        std::iter::from_fn(|| records.next(&mut bytes, |_| ROOM)).collect()
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let fields = vec(vec(any::<u8>(), 0..40), 0..6);
        (any::<u8>(), fields).prop_map(|(kind, fields)| Record { kind, fields })
    }

    proptest! {
        #[test]
        fn records_survive_any_cut_of_the_stream(
            sent in vec(any_record(), 0..8),
            piece in 1..100usize,
        ) {
            let mut stream = Vec::new();
            sent.iter().for_each(|record| record.encode(&mut stream));
            let mut records = Records::default();
            let pieces = stream.chunks(piece);
            let seen: Vec<_> = pieces.flat_map(|bytes| read(&mut records, bytes)).collect();
            let sent: Vec<_> = sent.into_iter().map(Ok).collect();
            prop_assert_eq!(seen, sent);
        }

        #[test]
        fn what_is_no_record_is_left_out_and_the_next_one_found(
            kind: u8,
            payload in vec(any::<u8>(), 0..2 * ROOM),
            next in any_record(),
        ) {
            let mut stream = vec![kind];
            stream.extend((payload.len() as u32).to_le_bytes());
            stream.extend(&payload);
            next.encode(&mut stream);
            let seen = read(&mut Records::default(), &stream);
            prop_assert_eq!(seen.len(), 2);
            prop_assert!(seen[0].is_err() || payload.len() <= ROOM);
            prop_assert_eq!(&seen[1], &Ok(next));
        }

        #[test]
        fn whatever_is_sent_no_more_is_held_than_there_is_room_for(pieces: Vec<Vec<u8>>) {
            let mut records = Records::default();
            for bytes in pieces {
                read(&mut records, &bytes);
                prop_assert!(records.payload.len() <= ROOM);
                prop_assert!(records.head.len() <= HEAD);
            }
        }
    }

    #[test]
    fn a_record_has_no_more_fields_than_its_limit() {
        let mut stream = Vec::new();
        let fields = vec![Vec::new(); MAX_FIELDS + 1];
        Record { kind: 1, fields }.encode(&mut stream);
        let seen = read(&mut Records::default(), &stream);
        assert_eq!(seen, [Err(Malformed("too many fields"))]);
    }
}
