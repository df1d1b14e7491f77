//! Packets of any content, in well-formed queues, against a model of one connection.

use super::driver::{
    GUEST_PORT, HEADER, NEXT, RECEIVE, Rings, STREAM, TRANSMIT, WRITE, describe, header,
    initialization, poke,
};
use super::peer::{Recorder, sent_bytes};
use super::steps;
use arbitrary::Arbitrary;
use sandbox::internals::devices::irq::IrqLines;
use sandbox::internals::devices::virtio_mmio::VirtioMmio;
use sandbox::internals::devices::vsock::{QUEUES, Vsock};
use sandbox::internals::vm::layout::GUEST_CID;
use std::ops::ControlFlow;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Descriptors of a queue; two for each buffer.
const SIZE: u16 = 8;
const BUFFER: u64 = 0x1_0000;
const MEMORY: usize = 0x4_0000;

const REQUEST: u16 = 1;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA: u16 = 5;

#[derive(Debug, Arbitrary)]
enum Step {
    /// A packet in two descriptors, the first so long.
    Send {
        packet: Packet,
        payload: u16,
        first: u8,
    },
    /// A buffer of this size, which the device may fill.
    Receive {
        size: u16,
    },
    /// Of the host: so much more for the guest.
    Queue {
        bytes: u16,
    },
    SaveAndRestore,
}

#[derive(Debug, Arbitrary)]
enum Packet {
    /// On the connection that the model knows.
    Ours {
        operation: u8,
        buffer: u32,
        consumed: Consumed,
        claim: Option<u32>,
    },
    Any([u8; HEADER]),
}

#[derive(Debug, Arbitrary)]
enum Consumed {
    All,
    Before(u16),
    Any(u32),
}

/// One connection as the driver sees it, and what came of it.
#[derive(Default)]
struct Model {
    open: bool,
    buffer: u32,
    consumed: u32,
    /// Bytes from the host on this connection, and on all there were.
    arrived: u32,
    arrived_in_all: usize,
    /// What the peer must receive next, and how much it has.
    sent: Vec<u8>,
    sent_in_all: usize,
}

struct Driver {
    memory: GuestMemoryMmap,
    device: VirtioMmio,
    peer: Recorder,
    next: [u16; QUEUES],
    model: Model,
}

/// The peer gets the bytes of the connection, each once and in order; so does the guest, and
/// never more than it has room for.
pub fn vsock(data: &[u8]) {
    let mut driver = Driver::new();
    for step in steps(data) {
        if driver.take(step).is_break() {
            break;
        }
        let received = std::mem::take(&mut driver.peer.received);
        assert_eq!(received, std::mem::take(&mut driver.model.sent));
    }
}

impl Driver {
    /// With a connection that is open.
    fn new() -> Self {
        let mut driver = Self {
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap(),
            device: VirtioMmio::new(Vsock::new(GUEST_CID), IrqLines::default().line(5)).unwrap(),
            peer: Recorder::default(),
            next: [0; QUEUES],
            model: Model::default(),
        };
        for (register, value) in initialization(SIZE, [0, 1, 2].map(rings)) {
            let value = value.to_le_bytes();
            driver.device.write(register, &value, &mut driver.peer);
        }
        let request = header(REQUEST, 0x1_0000, 0, 0);
        assert!(driver.send(&request, 0, 0).is_continue());
        driver
    }

    /// `Break`: the device refuses to go on.
    fn take(&mut self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Send {
                packet,
                payload,
                first,
            } => {
                let header = self.fill_in(packet, payload.into());
                self.send(&header, payload.into(), first.into())
            }
            Step::Receive { size } => self.receive(size.into()),
            Step::Queue { bytes } => {
                self.peer.to_send += usize::from(bytes);
                ControlFlow::Continue(())
            }
            Step::SaveAndRestore => {
                self.save_and_restore();
                ControlFlow::Continue(())
            }
        }
    }

    fn fill_in(&self, packet: Packet, payload: u32) -> [u8; HEADER] {
        match packet {
            Packet::Any(bytes) => bytes,
            Packet::Ours {
                operation,
                buffer,
                consumed,
                claim,
            } => {
                let consumed = match consumed {
                    Consumed::All => self.model.arrived,
                    Consumed::Before(bytes) => self.model.arrived.wrapping_sub(bytes.into()),
                    Consumed::Any(count) => count,
                };
                let length = claim.unwrap_or(payload);
                header(u16::from(operation % 9), buffer, consumed, length)
            }
        }
    }

    fn send(&mut self, header: &[u8; HEADER], payload: usize, first: usize) -> ControlFlow<()> {
        let start = self.model.sent_in_all;
        let payload = sent_bytes(start, payload);
        let bytes = [header, payload].concat();
        poke(&self.memory, BUFFER, &bytes);
        let first = first.min(bytes.len()) as u32;
        self.offer(TRANSMIT, [first, bytes.len() as u32 - first], 0);
        if self.device.process(&self.memory, &mut self.peer).is_err() {
            return ControlFlow::Break(());
        }
        self.model.sent(header, payload);
        ControlFlow::Continue(())
    }

    fn receive(&mut self, size: u32) -> ControlFlow<()> {
        let used = GuestAddress(rings(RECEIVE)[2] + 2);
        let before: u16 = self.memory.read_obj(used).unwrap();
        self.offer(RECEIVE, [size / 2, size - size / 2], WRITE);
        if self.device.process(&self.memory, &mut self.peer).is_err() {
            return ControlFlow::Break(());
        }
        let after: u16 = self.memory.read_obj(used).unwrap();
        if before == after {
            self.next[RECEIVE] = self.next[RECEIVE].wrapping_sub(1);
            self.publish(RECEIVE);
            return ControlFlow::Continue(());
        }
        let mut bytes = vec![0; size as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(BUFFER))
            .unwrap();
        self.model.arrived(&bytes);
        ControlFlow::Continue(())
    }

    fn save_and_restore(&mut self) {
        let Some(state) = self.device.state() else {
            return;
        };
        let irq = IrqLines::default().line(5);
        self.device = VirtioMmio::from_state(state, Vsock::new(GUEST_CID), irq).unwrap();
    }

    /// Makes a chain of two descriptors available, which are [`BUFFER`] and what follows.
    fn offer(&mut self, queue: usize, lengths: [u32; 2], flags: u16) {
        let [table, available, _] = rings(queue);
        let slot = self.next[queue] % SIZE;
        let [first, second] = lengths;
        let rest = BUFFER + u64::from(first);
        describe(&self.memory, table, BUFFER, first, flags | NEXT, 1);
        describe(&self.memory, table + 16, rest, second, flags, 0);
        let entry = available + 4 + 2 * u64::from(slot);
        poke(&self.memory, entry, &[0, 0]);
        self.next[queue] = self.next[queue].wrapping_add(1);
        self.publish(queue);
    }

    fn publish(&self, queue: usize) {
        let index = self.next[queue].to_le_bytes();
        poke(&self.memory, rings(queue)[1] + 2, &index);
    }
}

impl Model {
    /// The device took a packet.
    fn sent(&mut self, header: &[u8; HEADER], payload: &[u8]) {
        let of_ours = number(header, 0, 8) == GUEST_CID
            && number(header, 8, 8) == u64::from(guest::HOST_CID)
            && number(header, 16, 4) == u64::from(GUEST_PORT)
            && number(header, 20, 4) == u64::from(guest::PORT)
            && number(header, 28, 2) == u64::from(STREAM);
        let operation = number(header, 30, 2) as u16;
        if !of_ours || !(self.open || operation == REQUEST) {
            return;
        }
        self.open = !matches!(operation, RESET | SHUTDOWN);
        self.buffer = number(header, 36, 4) as u32;
        self.consumed = number(header, 40, 4) as u32;
        match operation {
            REQUEST => (self.arrived, self.consumed) = (0, 0),
            DATA => {
                let length = number(header, 24, 4) as usize;
                self.sent.extend(&payload[..length]);
                self.sent_in_all += length;
            }
            _ => {}
        }
    }

    /// The device filled a buffer.
    fn arrived(&mut self, bytes: &[u8]) {
        if number(bytes, 30, 2) as u16 != DATA {
            return;
        }
        let length = number(bytes, 24, 4) as u32;
        let in_flight = self.arrived.wrapping_sub(self.consumed);
        assert!(self.open);
        assert!(length > 0 && in_flight <= self.buffer && length <= self.buffer - in_flight);
        let payload = &bytes[HEADER..HEADER + length as usize];
        assert_eq!(payload, sent_bytes(self.arrived_in_all, payload.len()));
        self.arrived = self.arrived.wrapping_add(length);
        self.arrived_in_all += payload.len();
    }
}

/// Where a queue's descriptor table, available ring and used ring lie.
fn rings(queue: usize) -> Rings {
    let base = 0x1000 + 0x300 * queue as u64;
    [base, base + 0x100, base + 0x200]
}

/// A little-endian number of `size` bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let bytes = bytes[at..at + size].iter().rev();
    bytes.fold(0, |value, &byte| value << 8 | u64::from(byte))
}
