//! A driver in miniature against the transport and the device, as a guest would use them.

use super::packet::{HEADER_SIZE, Header, Operation};
use super::*;
use crate::devices::irq::IrqLines;
use crate::devices::virtio_mmio::VirtioMmio;
use proptest::prelude::*;
use vm_memory::{ByteValued, Bytes, GuestAddress};

const MEMORY: usize = 1 << 20;
const SIZE: u16 = 8;
const BUFFERS: u64 = 0x8_0000;
const CID: u64 = 3;
const GUEST_PORT: u32 = 1025;

const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// Remembers what it received; sends what it is told.
#[derive(Default)]
struct Recorder {
    received: Vec<u8>,
    to_send: Vec<u8>,
}

impl Peer for Recorder {
    fn connected(&mut self) {}

    fn disconnected(&mut self) {}

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.received.extend(bytes);
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        let count = room.min(self.to_send.len());
        self.to_send.drain(..count).collect()
    }

    fn is_done(&self) -> bool {
        false
    }
}

struct Driver {
    memory: GuestMemoryMmap,
    device: VirtioMmio<Recorder>,
    /// Next free descriptor and available index of each queue.
    next: [u16; QUEUES],
}

/// Where a queue's descriptor table, available ring and used ring lie.
fn rings(queue: usize) -> [u64; 3] {
    let base = 0x1000 * (1 + 3 * queue as u64);
    [base, base + 0x1000, base + 0x2000]
}

impl Driver {
    /// A device about to be used, with `to_send` waiting.
    fn new(to_send: &[u8]) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let recorder = Recorder {
            received: Vec::new(),
            to_send: to_send.to_vec(),
        };
        let irq = IrqLines::default().line(5);
        let device = VirtioMmio::new(Vsock::new(CID, recorder), irq).unwrap();
        let mut driver = Self {
            memory,
            device,
            next: [0; QUEUES],
        };
        driver.negotiate();
        driver
    }

    /// Initialization in the order of virtio 1.2, 3.1.1.
    fn negotiate(&mut self) {
        for status in [0, 1, 3] {
            self.write(0x070, status);
        }
        for (half, features) in [(0, 0), (1, 1)] {
            self.write(0x024, half);
            self.write(0x020, features);
        }
        self.write(0x070, 11);
        for queue in 0..QUEUES {
            self.write(0x030, queue as u32);
            self.write(0x038, SIZE.into());
            for (register, address) in [0x080, 0x090, 0x0a0].into_iter().zip(rings(queue)) {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(0x044, 1);
        }
        self.write(0x070, 15);
    }

    fn write(&mut self, register: u64, value: u32) -> bool {
        self.device.write(register, &value.to_le_bytes())
    }

    fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Makes a chain of one buffer available.
    fn offer(&mut self, queue: usize, address: u64, length: u32, flags: u16, next: u16) {
        let [table, available, _] = rings(queue);
        let index = self.next[queue];
        let slot = u64::from(index % SIZE);
        let memory = &self.memory;
        let put = |value: u16, at: u64| memory.write_obj(value, GuestAddress(at)).unwrap();
        memory
            .write_obj(address, GuestAddress(table + 16 * slot))
            .unwrap();
        memory
            .write_obj(length, GuestAddress(table + 16 * slot + 8))
            .unwrap();
        put(flags, table + 16 * slot + 12);
        put(next, table + 16 * slot + 14);
        put(slot as u16, available + 4 + 2 * slot);
        self.next[queue] = index.wrapping_add(1);
        put(self.next[queue], available + 2);
    }

    fn send(&mut self, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        let bytes = [header.as_slice(), payload].concat();
        self.memory
            .write_slice(&bytes, GuestAddress(BUFFERS))
            .unwrap();
        self.offer(TRANSMIT, BUFFERS, bytes.len() as u32, 0, 0);
        assert!(self.write(0x050, TRANSMIT as u32), "a kick is seen");
        self.device.process(&self.memory)
    }

    /// Gives the device a buffer and reads what it put there.
    fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let [_, _, used] = rings(RECEIVE);
        let address = BUFFERS + 0x2_0000;
        let index = || self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap();
        let before = index();
        self.offer(RECEIVE, address, 4096, WRITE, 0);
        self.device.process(&self.memory).unwrap();
        let after = self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap();
        if before == after {
            self.next[RECEIVE] = self.next[RECEIVE].wrapping_sub(1);
            let available = GuestAddress(rings(RECEIVE)[1] + 2);
            self.memory
                .write_obj(self.next[RECEIVE], available)
                .unwrap();
            return None;
        }
        let header: Header = self.memory.read_obj(GuestAddress(address)).unwrap();
        let mut payload = vec![0; u32::from(header.len) as usize];
        let at = GuestAddress(address + HEADER_SIZE as u64);
        self.memory.read_slice(&mut payload, at).unwrap();
        Some((header, payload))
    }

    fn connect(&mut self) {
        self.send(&packet(Operation::Request, 0), &[]).unwrap();
        let (answer, _) = self.receive().expect("an answer");
        assert_eq!(answer.operation(), Ok(Operation::Response));
    }

    fn received(&self) -> &[u8] {
        &self.device.peer().received
    }
}

fn packet(operation: Operation, length: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: u64::from(guest::HOST_CID).into(),
        src_port: GUEST_PORT.into(),
        dst_port: guest::PORT.into(),
        len: length.into(),
        kind: 1.into(),
        op: (operation as u16).into(),
        flags: 0.into(),
        buf_alloc: (64 << 10).into(),
        fwd_cnt: 0.into(),
    }
}

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

proptest! {
    /// Descriptors that point anywhere, of any length, linked in any way, loops included.
    #[test]
    fn any_descriptor_chain_ends_in_a_result(
        chains in proptest::collection::vec(
            (0..QUEUES, any::<u64>(), any::<u32>(), any::<u16>(), 0..2 * SIZE, any::<bool>()),
            1..40,
        ),
    ) {
        let mut driver = Driver::new(b"something to send");
        driver.connect();
        for (queue, address, length, flags, next, near) in chains {
            let address = if near { address % (2 * MEMORY as u64) } else { address };
            driver.offer(queue, address, length, flags | (flags & NEXT), next);
            if driver.device.process(&driver.memory).is_err() {
                break;
            }
        }
    }

    /// Headers of any content, in a well-formed chain.
    #[test]
    fn any_packet_ends_in_a_result(
        packets in proptest::collection::vec((any::<[u8; HEADER_SIZE]>(), any::<bool>()), 1..40),
    ) {
        let mut driver = Driver::new(b"something to send");
        driver.connect();
        for (bytes, ours) in packets {
            let mut header = *Header::from_slice(&bytes).unwrap();
            if ours {
                let known = packet(Operation::Data, 0);
                (header.src_cid, header.dst_cid) = (known.src_cid, known.dst_cid);
                (header.src_port, header.dst_port) = (known.src_port, known.dst_port);
                (header.kind, header.op) = (known.kind, (u16::from(header.op) % 8).into());
                header.len = (u32::from(header.len) % 100).into();
            }
            if driver.send(&header, &[0; 50]).is_err() {
                break;
            }
            driver.receive();
        }
    }

    /// Registers written in any order with any values.
    #[test]
    fn any_register_access_leaves_a_device_that_answers(
        accesses in proptest::collection::vec((0..0x120u64, any::<u32>(), 1..9usize), 1..200),
    ) {
        let mut driver = Driver::new(&[]);
        for (register, value, width) in accesses {
            driver.write(register, value);
            let mut bytes = vec![0; width];
            driver.device.read(register, &mut bytes);
            if driver.device.process(&driver.memory).is_err() {
                break;
            }
        }
    }
}
