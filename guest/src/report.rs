//! The guest's reports beside the program's output, as a stream of records. The interpreter reports
//! how the program ended and what it displays ([`crate::stream::REPORTS`]), the kernel what
//! processes did ([`crate::stream::EVENTS`]).
//!
//! A record is its kind (u8), the length of the rest (u32), and fields, each behind its length
//! (u32). The warm interpreter (`guest/images/python/warm/report.c`) and our kernel (host_events.c
//! there) write them.

use crate::bytes::{Malformed, put_bytes};
pub use crate::hypercall::report::{CELL, DISPLAY, EXCEPTION, LOST, RESULT};

/// The most fields of a record.
const MAX_FIELDS: usize = 64;

/// The bytes of the kind and the length of a record, and of the length of a field.
const HEAD: usize = 5;
const LENGTH: usize = 4;

/// The most bytes that are kept of a field that there is no room for.
const BEGINNING: usize = 32 << 10;

/// A record of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub kind: u8,
    pub fields: Vec<Field>,
}

/// A field of a record. There may have been no room for its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    pub bytes: Vec<u8>,
    /// The number of bytes that were left out at the end.
    pub omitted: usize,
}

impl Field {
    pub fn is_whole(&self) -> bool {
        self.omitted == 0
    }
}

impl From<&[u8]> for Field {
    fn from(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            omitted: 0,
        }
    }
}

impl Record {
    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([self.kind, 0, 0, 0, 0]);
        self.fields
            .iter()
            .for_each(|field| put_bytes(out, &field.bytes));
        let length = (out.len() - start - HEAD) as u32;
        out[start + 1..start + HEAD].copy_from_slice(&length.to_le_bytes());
    }
}

/// A reader of records from a stream that arrives in pieces and may hold anything. Bytes that are
/// no record are left out, and the next record begins where they end. Of a field that there is no
/// room for, the beginning is kept.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Bytes of a number that has not arrived whole, behind the kind if it is a record's length.
    number: Vec<u8>,
    partial: Option<Partial>,
}

/// A record whose end has not arrived.
#[derive(Debug, Clone)]
struct Partial {
    record: Record,
    /// The bytes of the record, and of its last field, that are still to come.
    missing: usize,
    missing_of_field: usize,
    /// The bytes that may still be kept of the record, and of its last field.
    room: usize,
    room_of_field: usize,
    malformed: Option<Malformed>,
}

impl Records {
    /// Returns the next record once all of it has arrived; its bytes are taken from `bytes`. `room`
    /// returns the most bytes that a record of this kind may have; no more than that is held.
    pub fn next(
        &mut self,
        bytes: &mut &[u8],
        room: impl Fn(u8) -> usize,
    ) -> Option<Result<Record, Malformed>> {
        if self.partial.is_none() {
            self.number.extend(take(bytes, HEAD - self.number.len()));
            let [kind, a, b, c, d] = self.number[..] else {
                return None;
            };
            self.number.clear();
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            self.partial = Some(Partial::new(kind, length, room(kind)));
        }
        let mut partial = self.partial.take()?;
        while partial.missing > 0 {
            if bytes.is_empty() {
                self.partial = Some(partial);
                return None;
            }
            partial.add(bytes, &mut self.number);
        }
        if !self.number.is_empty() || partial.missing_of_field > 0 {
            partial.malformed.get_or_insert(Malformed("too short"));
        }
        self.number.clear();
        Some(match partial.malformed {
            Some(malformed) => Err(malformed),
            None => Ok(partial.record),
        })
    }
}

impl Partial {
    fn new(kind: u8, length: usize, room: usize) -> Self {
        Self {
            record: Record {
                kind,
                fields: Vec::new(),
            },
            missing: length,
            missing_of_field: 0,
            room,
            room_of_field: 0,
            malformed: None,
        }
    }

    /// Takes more bytes of the record: of a field, or of the length of the next one.
    fn add(&mut self, bytes: &mut &[u8], number: &mut Vec<u8>) {
        if self.malformed.is_some() {
            self.missing -= take(bytes, self.missing).len();
            return;
        }
        if self.missing_of_field == 0 {
            let piece = take(bytes, self.missing.min(LENGTH - number.len()));
            self.missing -= piece.len();
            number.extend(piece);
            if let [a, b, c, d] = number[..] {
                number.clear();
                self.begin_field(u32::from_le_bytes([a, b, c, d]) as usize);
            }
            return;
        }
        let piece = take(bytes, self.missing_of_field);
        self.missing -= piece.len();
        self.missing_of_field -= piece.len();
        let kept = piece.len().min(self.room_of_field);
        self.room_of_field -= kept;
        self.room -= kept;
        if let Some(field) = self.record.fields.last_mut() {
            field.bytes.extend(&piece[..kept]);
            field.omitted += piece.len() - kept;
        }
    }

    fn begin_field(&mut self, length: usize) {
        if length > self.missing {
            self.malformed = Some(Malformed("too short"));
        } else if self.record.fields.len() == MAX_FIELDS {
            self.malformed = Some(Malformed("too many fields"));
        } else {
            self.record.fields.push(Field::default());
            self.missing_of_field = length;
            self.room_of_field = match length <= self.room {
                true => length,
                // There is to be room for smaller ones after it.
                false => (self.room / 2).min(BEGINNING),
            };
        }
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
        let field = vec(any::<u8>(), 0..40).prop_map(|bytes| Field { bytes, omitted: 0 });
        (any::<u8>(), vec(field, 0..6)).prop_map(|(kind, fields)| Record { kind, fields })
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
            prop_assert_eq!(&seen[1], &Ok(next));
        }

        #[test]
        fn whatever_is_sent_no_more_is_held_than_there_is_room_for(pieces: Vec<Vec<u8>>) {
            let mut records = Records::default();
            for bytes in pieces {
                read(&mut records, &bytes);
                let fields = records.partial.iter().flat_map(|partial| &partial.record.fields);
                prop_assert!(fields.map(|field| field.bytes.len()).sum::<usize>() <= ROOM);
                prop_assert!(records.number.len() <= HEAD);
            }
        }
    }

    #[test]
    fn a_record_has_no_more_fields_than_its_limit() {
        let mut stream = Vec::new();
        let fields = vec![Field::default(); MAX_FIELDS + 1];
        Record { kind: 1, fields }.encode(&mut stream);
        let seen = read(&mut Records::default(), &stream);
        assert_eq!(seen, [Err(Malformed("too many fields"))]);
    }

    #[test]
    fn of_a_field_that_is_too_long_the_beginning_is_kept_and_the_others_whole() {
        let [short, long] = [Field::from(&[1; 10][..]), Field::from(&[2; ROOM][..])];
        let mut stream = Vec::new();
        let fields = vec![short.clone(), long, short.clone()];
        Record { kind: 1, fields }.encode(&mut stream);
        for (room, kept) in [(2 * ROOM, ROOM), (ROOM, (ROOM - 10) / 2)] {
            let record = Records::default().next(&mut &stream[..], |_| room);
            let [first, cut, last] = &record.unwrap().unwrap().fields[..] else {
                panic!();
            };
            assert_eq!((first, last), (&short, &short));
            assert_eq!((cut.bytes.len(), cut.omitted), (kept, ROOM - kept));
        }
    }
}
