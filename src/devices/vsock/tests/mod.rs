//! Tests of the device with a driver in miniature.

mod driver;
mod properties;

use super::*;
use crate::devices::vsock::packet::{HEADER_SIZE, Operation};
use driver::*;
use vm_memory::{Bytes, GuestAddress};

#[test]
fn the_registers_describe_a_vsock_device() {
    let driver = Driver::new(&[]);
    assert_eq!(driver.read(0x000), 0x7472_6976);
    assert_eq!(driver.read(0x004), 2);
    assert_eq!(driver.read(0x008), 19);
    assert_eq!(driver.read(0x070), 15);
    assert_eq!(driver.read(0x100), CID as u32);
}

#[test]
fn data_flows_both_ways() {
    let mut driver = Driver::new(b"from the host");
    driver.connect();
    driver
        .send(&packet(Operation::Data, 14), b"from the guest")
        .unwrap();
    assert_eq!(driver.received(), b"from the guest");
    let (header, payload) = driver.receive().expect("data");
    assert_eq!(header.operation(), Ok(Operation::Data));
    assert_eq!(payload, b"from the host");
    assert!(driver.receive().is_none());
}

#[test]
fn data_without_a_connection_is_answered_with_a_reset() {
    let mut driver = Driver::new(&[]);
    driver.send(&packet(Operation::Data, 4), b"lost").unwrap();
    assert_eq!(driver.received(), b"");
    let (answer, _) = driver.receive().expect("an answer");
    assert_eq!(answer.operation(), Ok(Operation::Reset));
}

#[test]
fn a_second_connection_is_refused_and_the_first_goes_on() {
    let mut driver = Driver::new(&[]);
    driver.connect();
    let mut second = packet(Operation::Request, 0);
    second.src_port = (GUEST_PORT + 1).into();
    driver.send(&second, &[]).unwrap();
    let (answer, _) = driver.receive().expect("an answer");
    assert_eq!(answer.operation(), Ok(Operation::Reset));
    driver.send(&packet(Operation::Data, 2), b"on").unwrap();
    assert_eq!(driver.received(), b"on");
}

#[test]
fn a_length_beyond_the_buffer_is_a_violation() {
    let mut driver = Driver::new(&[]);
    driver.connect();
    assert!(
        driver
            .send(&packet(Operation::Data, 100), b"short")
            .is_err()
    );
    assert!(
        driver
            .send(&packet(Operation::Data, u32::MAX), b"short")
            .is_err()
    );
}

#[test]
fn answers_that_are_never_read_end_the_conversation() {
    let mut driver = Driver::new(&[]);
    driver.connect();
    let flood = (0..1000).try_for_each(|_| driver.send(&packet(Operation::CreditRequest, 0), &[]));
    assert!(flood.is_err());
}

#[test]
fn a_queue_in_use_does_not_change_its_shape() {
    let mut driver = Driver::new(&[]);
    driver.connect();
    driver.write(0x030, TRANSMIT as u32);
    driver.write(0x038, 2);
    driver.write(0x080, 0xdead_0000);
    driver.write(0x044, 0);
    assert_eq!(driver.read(0x044), 1);
    driver.send(&packet(Operation::Data, 2), b"on").unwrap();
    assert_eq!(driver.received(), b"on");
}

/// The receive buffer lies over the available ring, so that each packet from the device makes more
/// buffers available.
#[test]
fn a_ring_that_our_own_packets_refill_ends_with_its_size() {
    let refill: Vec<u8> = (3..10_000u16).flat_map(u16::to_le_bytes).collect();
    let mut driver = Driver::new(&refill);
    driver.connect();
    let [_, available, _] = rings(RECEIVE);
    let index = available + 2;
    for slot in 0..u64::from(SIZE) {
        let entry = GuestAddress(available + 4 + 2 * slot);
        driver.memory.write_obj(1u16, entry).unwrap();
    }
    let header = HEADER_SIZE as u64;
    driver.offer(RECEIVE, index - header, header as u32 + 2, WRITE, 0);
    driver.process().unwrap();
    assert_eq!(driver.peer.asked, usize::from(SIZE));
}

#[test]
fn a_reset_forgets_the_connection() {
    let mut driver = Driver::new(&[]);
    driver.connect();
    driver.next = [0; QUEUES];
    for queue in 0..QUEUES {
        let [_, available, used] = rings(queue);
        for ring in [available, used] {
            driver
                .memory
                .write_obj(0u16, GuestAddress(ring + 2))
                .unwrap();
        }
    }
    driver.negotiate();
    driver.send(&packet(Operation::Data, 4), b"lost").unwrap();
    assert_eq!(driver.received(), b"");
}
