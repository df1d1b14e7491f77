//! Tests of the credit of a connection.

use super::*;
use proptest::prelude::*;

fn from_guest(buf_alloc: u32, fwd_cnt: u32) -> Header {
    Header {
        buf_alloc: buf_alloc.into(),
        fwd_cnt: fwd_cnt.into(),
        ..Header::default()
    }
}

#[test]
fn credit_goes_down_with_data_and_up_with_consumption() {
    let (mut connection, _) = Connection::accept(&from_guest(100, 0));
    assert_eq!(connection.room(), 100);
    connection.data(70);
    assert_eq!(connection.room(), 30);
    connection.update(&from_guest(100, 50)).unwrap();
    assert_eq!(connection.room(), 80);
}

#[test]
fn a_shrunk_buffer_leaves_no_room_instead_of_a_negative_one() {
    let (mut connection, _) = Connection::accept(&from_guest(100, 0));
    connection.data(70);
    connection.update(&from_guest(10, 0)).unwrap();
    assert_eq!(connection.room(), 0);
}

#[test]
fn consumption_never_goes_back() {
    let (mut connection, _) = Connection::accept(&from_guest(100, 0));
    connection.data(70);
    connection.update(&from_guest(100, 50)).unwrap();
    assert!(connection.update(&from_guest(100, 49)).is_err());
}

#[test]
fn data_beyond_our_buffer_is_refused() {
    let (mut connection, _) = Connection::accept(&from_guest(100, 0));
    assert!(connection.received(BUFFER + 1).is_err());
}

proptest! {
    /// Compares with a model of unbounded integers, across the wrap of the counters.
    #[test]
    fn credit_agrees_with_a_model(
        start in any::<u32>(),
        steps in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u32>()), 1..200),
    ) {
        let (mut connection, _) = Connection::accept(&from_guest(0, 0));
        connection.sent = start;
        connection.guest_consumed = start;
        let (mut sent, mut consumed) = (u64::from(start), u64::from(start));
        for (consume, send, buffer) in steps {
            consumed = sent.min(consumed + u64::from(consume));
            connection.update(&from_guest(buffer, consumed as u32)).unwrap();
            let room = u64::from(buffer).saturating_sub(sent - consumed);
            prop_assert_eq!(connection.room() as u64, room);
            let length = room.min(send.into());
            connection.data(length as u32);
            sent += length;
        }
    }

    /// The count of consumed bytes is accepted from its last value up to the count of sent
    /// bytes, anywhere on the circle of the counters.
    #[test]
    fn consumption_is_between_what_was_and_what_was_sent(
        start: u32,
        sent: u32,
        consumed: u32,
        claim: u32,
    ) {
        let (mut connection, _) = Connection::accept(&from_guest(0, 0));
        let consumed = consumed.min(sent);
        connection.sent = start.wrapping_add(sent);
        connection.guest_consumed = start.wrapping_add(consumed);
        let accepted = connection.update(&from_guest(0, start.wrapping_add(claim))).is_ok();
        prop_assert_eq!(accepted, (consumed..=sent).contains(&claim));
    }

    /// Data within our credit is accepted, and one byte more is refused.
    #[test]
    fn our_credit_agrees_with_a_model(
        start: u32,
        packets in proptest::collection::vec(1..=64u32 << 10, 1..100),
    ) {
        let (mut connection, _) = Connection::accept(&from_guest(0, 0));
        connection.received = start;
        connection.announced = start;
        let mut credit = BUFFER;
        for length in packets {
            prop_assert!(connection.clone().received(credit + 1).is_err());
            credit -= length;
            if let Some(news) = connection.received(length).unwrap() {
                prop_assert_eq!(u32::from(news.fwd_cnt), connection.received);
                credit = BUFFER;
            }
        }
    }
}
