//! A virtio-mmio driver for the vsock device (virtio 1.2, 3.1 and 4.2), which does whatever a test
//! asks.

use crate::guest::{DATA, Guest};
use sandbox::internals::vm::layout::*;

pub const RECEIVE: u32 = 0;
pub const TRANSMIT: u32 = 1;

/// Registers of the device (virtio 1.2, 4.2.2).
pub const QUEUE_SIZE: u64 = 0x38;
pub const QUEUE_READY: u64 = 0x44;
pub const NOTIFY: u64 = 0x50;
pub const STATUS: u64 = 0x70;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// Descriptor flags (virtio 1.2, 2.7.5).
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// The addresses of the rings, and of the buffers behind them.
const RINGS: u64 = DATA;
pub const BUFFERS: u64 = DATA + 0x1_0000;

#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

/// A split virtqueue (virtio 1.2, 2.7), which has these chains available when the guest starts.
#[derive(Debug, Clone)]
pub struct Queue {
    pub size: u32,
    pub table: u64,
    pub available: u64,
    pub used: u64,
    pub descriptors: Vec<Descriptor>,
    /// The heads of chains.
    pub heads: Vec<u16>,
    /// The available index; in a working driver it is the number of heads.
    pub index: u16,
}

impl Queue {
    /// Makes a queue in which each descriptor is a chain of its own.
    pub fn new(number: u32, descriptors: Vec<Descriptor>) -> Self {
        let rings = RINGS + u64::from(number) * 0x4000;
        Self {
            size: 256,
            table: rings,
            available: rings + 0x1000,
            used: rings + 0x2000,
            heads: (0..descriptors.len() as u16).collect(),
            index: descriptors.len() as u16,
            descriptors,
        }
    }

    /// Puts the rings at the queue's addresses, as far as there is memory.
    pub fn put(&self, guest: &mut Guest) {
        let fits = |address: u64| (DATA..crate::guest::MEMORY - 0x2000).contains(&address);
        if fits(self.table) {
            guest.put(self.table, encode(&self.descriptors));
        }
        if fits(self.available) {
            let mut ring = vec![0, 0];
            ring.extend(self.index.to_le_bytes());
            ring.extend(self.heads.iter().flat_map(|head| head.to_le_bytes()));
            guest.put(self.available, ring);
        }
    }

    /// Configures the queue in the device.
    pub fn configure(&self, guest: &mut Guest, number: u32) {
        let halves = |address: u64| (address as u32, (address >> 32) as u32);
        let (table, available, used) = (
            halves(self.table),
            halves(self.available),
            halves(self.used),
        );
        for (register, value) in [
            (0x30, number),
            (QUEUE_SIZE, self.size),
            (0x80, table.0),
            (0x84, table.1),
            (0x90, available.0),
            (0x94, available.1),
            (0xa0, used.0),
            (0xa4, used.1),
            (QUEUE_READY, 1),
        ] {
            set(guest, register, value);
        }
    }
}

pub fn encode(descriptors: &[Descriptor]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for descriptor in descriptors {
        bytes.extend(descriptor.address.to_le_bytes());
        bytes.extend(descriptor.length.to_le_bytes());
        bytes.extend(descriptor.flags.to_le_bytes());
        bytes.extend(descriptor.next.to_le_bytes());
    }
    bytes
}

pub fn set(guest: &mut Guest, register: u64, value: u32) {
    guest.store(VSOCK_MMIO + register, value);
}

/// Initializes the device, up to the configuration of its queues.
pub fn negotiate(guest: &mut Guest) {
    const VERSION_1: (u32, u32) = (1, 1);
    for (register, value) in [
        (STATUS, ACKNOWLEDGE),
        (STATUS, ACKNOWLEDGE | DRIVER),
        (0x24, VERSION_1.0),
        (0x20, VERSION_1.1),
        (STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK),
    ] {
        set(guest, register, value);
    }
}

/// Initializes the device completely.
pub fn start(guest: &mut Guest, receive: &Queue, transmit: &Queue) {
    negotiate(guest);
    for (number, queue) in [(RECEIVE, receive), (TRANSMIT, transmit)] {
        queue.put(guest);
        queue.configure(guest, number);
    }
    set(
        guest,
        STATUS,
        ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
    );
}

pub fn notify(guest: &mut Guest, queue: u32) {
    set(guest, NOTIFY, queue);
}

/// A packet: `struct virtio_vsock_hdr` (virtio 1.2, 5.10.6), and its payload.
#[derive(Debug, Clone)]
pub struct Packet {
    pub source: (u64, u32),
    pub destination: (u64, u32),
    /// The length of the payload that the header claims.
    pub length: u32,
    pub kind: u16,
    pub operation: u16,
    pub flags: u32,
    pub buffer: u32,
    pub consumed: u32,
    pub payload: Vec<u8>,
}

pub const REQUEST: u16 = 1;
pub const RESET: u16 = 3;
pub const SHUTDOWN: u16 = 4;
pub const READ_WRITE: u16 = 5;
pub const CREDIT_UPDATE: u16 = 6;
pub const CREDIT_REQUEST: u16 = 7;

impl Packet {
    /// Makes a packet from the guest's agent to its host, as a working driver sends it.
    pub fn new(operation: u16, payload: &[u8]) -> Self {
        Self {
            source: (GUEST_CID, 1024),
            destination: (guest::HOST_CID.into(), guest::PORT),
            length: payload.len() as u32,
            kind: 1,
            operation,
            flags: 0,
            buffer: 256 << 10,
            consumed: 0,
            payload: payload.to_vec(),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source.0.to_le_bytes());
        bytes.extend(self.destination.0.to_le_bytes());
        bytes.extend(self.source.1.to_le_bytes());
        bytes.extend(self.destination.1.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.consumed.to_le_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Makes a queue that has these packets to send, one descriptor each.
pub fn sending(guest: &mut Guest, packets: &[Packet]) -> Queue {
    let mut address = BUFFERS + 0x10_0000;
    let mut descriptors = Vec::new();
    for packet in packets {
        let bytes = packet.encode();
        descriptors.push(Descriptor {
            address,
            length: bytes.len() as u32,
            flags: 0,
            next: 0,
        });
        let end = address + bytes.len() as u64;
        guest.put(address, bytes);
        address = end.next_multiple_of(64);
    }
    Queue::new(TRANSMIT, descriptors)
}

/// Makes a queue with so many buffers of this size to receive into.
pub fn receiving(count: u16, length: u32) -> Queue {
    let descriptors = (0..u64::from(count))
        .map(|index| Descriptor {
            address: BUFFERS + index * u64::from(length),
            length,
            flags: WRITE,
            next: 0,
        })
        .collect();
    Queue::new(RECEIVE, descriptors)
}

/// Makes a working driver that sends these packets.
pub fn talking(packets: &[Packet]) -> Guest {
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, packets);
    start(&mut guest, &receiving(16, 4096), &transmit);
    notify(&mut guest, TRANSMIT);
    guest
}
