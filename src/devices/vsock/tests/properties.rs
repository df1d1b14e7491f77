//! Properties that hold for any driver.

use crate::devices::Violation;
use crate::devices::irq::IrqLines;
use crate::devices::virtio_mmio::VirtioMmio;
use crate::devices::vsock::packet::{HEADER_SIZE, Header, Operation};
use crate::devices::vsock::tests::driver::*;
use crate::devices::vsock::{ANSWERS_MAX, QUEUES, TRANSMIT, Vsock};
use proptest::collection::vec;
use proptest::prelude::*;
use vm_memory::{ByteValued, Bytes, GuestAddress};

/// Generates addresses in memory, around its hole and its end, and anywhere.
fn any_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..MEMORY,
        HOLE.start - 0x100..HOLE.end,
        MEMORY - 0x100..MEMORY + 0x100,
        any::<u64>(),
    ]
}

/// Generates rings at any address that their alignment allows, and closely packed ones.
fn any_rings() -> impl Strategy<Value = [u64; 3]> {
    let near = || 0x1000..0x1200u64;
    prop_oneof![
        [any_address(), any_address(), any_address()],
        [near(), near(), near()],
    ]
    .prop_map(|[table, available, used]| [table & !15, available & !1, used & !3])
}

fn any_operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop::sample::select(vec![
        Request,
        Response,
        Reset,
        Shutdown,
        Data,
        CreditUpdate,
        CreditRequest,
    ])
}

/// Generates any headers, and headers of our connection in which some fields are arbitrary.
fn near_header() -> impl Strategy<Value = Header> {
    (any::<[u8; HEADER_SIZE]>(), 0..9u16, any::<bool>()).prop_map(|(bytes, operation, ours)| {
        let mut header = *Header::from_slice(&bytes).unwrap();
        if ours {
            header = Header {
                op: operation.into(),
                len: (u32::from(header.len) % 100).into(),
                buf_alloc: header.buf_alloc,
                fwd_cnt: (u32::from(header.fwd_cnt) % 100).into(),
                ..packet(Operation::Data, 0)
            };
        }
        header
    })
}

proptest! {
    /// Descriptors point anywhere, have any length and are linked in any way, including loops and
    /// tables of further descriptors.
    #[test]
    fn any_descriptor_chain_ends_in_a_result(
        chains in vec((0..QUEUES, any_address(), any::<u32>(), 0..8u16, 0..2 * SIZE), 1..40),
    ) {
        let mut driver = Driver::new(b"something to send");
        driver.connect();
        for (queue, address, length, flags, next) in chains {
            driver.offer(queue, address, length, flags, next);
            if driver.process().is_err() {
                break;
            }
        }
    }

    /// Rings lie over each other, over their buffers and in holes, and indices jump.
    #[test]
    fn one_kick_is_no_more_work_than_a_queue_holds(
        size in 0..10u32,
        queues in [any_rings(), any_rings(), any_rings()],
        content in vec(any::<u8>(), 0x200),
        indices in vec((0..QUEUES, any_address(), any::<u16>()), 1..40),
    ) {
        let mut driver = Driver::new(&[7; 100_000]);
        driver.connect();
        driver.initialize(1 << size, queues);
        driver.memory.write_slice(&content, GuestAddress(0x1000)).unwrap();
        for (queue, address, index) in indices {
            let available = GuestAddress(queues[queue][1].wrapping_add(2));
            driver.memory.write_obj(index, available).unwrap_or_default();
            driver.memory.write_obj(index, GuestAddress(address)).unwrap_or_default();
            driver.peer.asked = 0;
            let result = driver.process();
            prop_assert!(driver.peer.asked <= 256);
            if result.is_err() {
                break;
            }
        }
    }

    #[test]
    fn an_index_that_jumps_is_not_followed(jump in SIZE + 1..=u16::MAX) {
        let mut driver = Driver::new(&[]);
        driver.connect();
        let [_, available, used] = rings(TRANSMIT);
        let index = |at| driver.memory.read_obj::<u16>(GuestAddress(at + 2)).unwrap();
        let before = index(used);
        let jumped = index(available).wrapping_add(jump);
        driver.memory.write_obj(jumped, GuestAddress(available + 2)).unwrap();
        driver.process().unwrap();
        let after: u16 = driver.memory.read_obj(GuestAddress(used + 2)).unwrap();
        prop_assert_eq!(after, before);
    }

    /// Headers have any content, in a well-formed chain. The number of unread answers is bounded.
    #[test]
    fn any_packets_leave_few_answers(headers in vec(near_header(), 1..200)) {
        let mut driver = Driver::new(&[]);
        driver.connect();
        for header in headers {
            if driver.send(&header, &[0; 100]).is_err() {
                break;
            }
        }
        let answers = std::iter::from_fn(|| driver.receive()).take(1000).count();
        prop_assert!(answers <= ANSWERS_MAX);
    }

    /// Registers are written in any order and width, with any values.
    #[test]
    fn any_register_access_leaves_a_device_that_answers(
        accesses in vec((0..0x120u64, any::<[u8; 8]>(), 0..=8usize, any::<u64>()), 1..200),
    ) {
        let mut driver = Driver::new(&[]);
        for (register, data, width, anywhere) in accesses {
            driver.device.write(register, &data[..width], &mut driver.peer);
            driver.device.write(anywhere, &data[..width], &mut driver.peer);
            driver.device.read(register, &mut data.to_vec()[..width]);
            driver.device.read(anywhere, &mut data.to_vec()[..width]);
            prop_assert_eq!(driver.read(0x000), 0x7472_6976);
            if driver.process().is_err() {
                break;
            }
        }
    }

    /// A driver writes anything but a reset once the device is in use.
    #[test]
    fn no_register_changes_a_queue_in_use(
        accesses in vec((0..0x120u64, 1..=u32::MAX), 1..100),
    ) {
        let mut driver = Driver::new(&[]);
        driver.connect();
        for (register, value) in accesses {
            driver.write(register, value);
        }
        driver.send(&packet(Operation::Data, 2), b"on").unwrap();
        prop_assert_eq!(driver.received(), b"on");
    }

    /// The data is cut into packets and buffers of any size, and the device is saved and restored
    /// in between.
    #[test]
    fn both_ends_receive_each_byte_once_and_in_order(
        to_host in vec(any::<u8>(), 0..5000),
        to_guest in vec(any::<u8>(), 0..5000),
        sizes in vec((0..3000usize, 0..3000u32, any::<bool>()), 1..20),
    ) {
        let mut driver = Driver::new(&to_guest);
        driver.connect();
        let (mut rest, mut arrived) = (to_host.as_slice(), Vec::new());
        for (sent, room, save) in sizes {
            let (piece, tail) = rest.split_at(sent.min(rest.len()));
            let mut header = packet(Operation::Data, piece.len() as u32);
            header.fwd_cnt = (arrived.len() as u32).into();
            driver.send(&header, piece).unwrap();
            rest = tail;
            if let Some((_, payload)) = driver.receive_into(HEADER_SIZE as u32 + room) {
                arrived.extend(payload);
            }
            if save {
                driver = save_and_restore(driver);
            }
        }
        prop_assert_eq!(driver.received(), &to_host[..to_host.len() - rest.len()]);
        prop_assert_eq!(&arrived, &to_guest[..arrived.len()]);
        let unsent = &driver.peer.to_send;
        prop_assert_eq!(unsent, &to_guest[arrived.len()..]);
    }

    /// Packets come from two ports, to a host that has one connection.
    #[test]
    fn a_connection_is_opened_used_and_closed_as_the_model_says(
        steps in vec((any_operation(), any::<bool>()), 1..40),
    ) {
        let mut driver = Driver::new(&[]);
        let mut open = None;
        for (operation, ours) in steps {
            let mut header = packet(operation, 0);
            if !ours {
                header.src_port = (GUEST_PORT + 1).into();
            }
            let result = driver.send(&header, &[]);
            let expected = expected(&mut open, operation, ours);
            prop_assert_eq!(result.is_err(), expected.is_err());
            let Ok(answer) = expected else {
                break;
            };
            let received = driver.receive().map(|(header, _)| header.operation().unwrap());
            prop_assert_eq!(received, answer);
        }
    }
}

/// Returns the answer to a packet from one port or the other (`ours`); `open` is the port that has the
/// connection.
fn expected(
    open: &mut Option<bool>,
    operation: Operation,
    ours: bool,
) -> Result<Option<Operation>, Violation> {
    use Operation::*;
    match (operation, *open == Some(ours)) {
        (Request | Response, true) => Err(Violation("out of turn".into())),
        (Request, false) if open.is_none() => {
            *open = Some(ours);
            Ok(Some(Response))
        }
        (Reset, true) => {
            *open = None;
            Ok(None)
        }
        (Shutdown, true) => {
            *open = None;
            Ok(Some(Reset))
        }
        (CreditRequest, true) => Ok(Some(CreditUpdate)),
        (Data | CreditUpdate, true) | (Reset, false) => Ok(None),
        (_, false) => Ok(Some(Reset)),
    }
}

fn save_and_restore(mut driver: Driver) -> Driver {
    if let Some(state) = driver.device.state() {
        let irq = IrqLines::default().line(5);
        driver.device = VirtioMmio::from_state(state, Vsock::new(CID), irq).unwrap();
    }
    driver
}
