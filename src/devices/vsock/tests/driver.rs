//! A driver in miniature against the transport and the device, as a guest would use them.

use crate::devices::Violation;
use crate::devices::irq::IrqLines;
use crate::devices::virtio_mmio::VirtioMmio;
use crate::devices::vsock::packet::{HEADER_SIZE, Header, Operation};
use crate::devices::vsock::{Peer, QUEUES, RECEIVE, TRANSMIT, Vsock};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

/// The size of the memory, which has a hole.
pub const MEMORY: u64 = 1 << 20;
pub const HOLE: std::ops::Range<u64> = 0xc_0000..0xd_0000;
pub const SIZE: u16 = 8;
pub const BUFFERS: u64 = 0x8_0000;
pub const CID: u64 = 3;
pub const GUEST_PORT: u32 = 1025;

pub const WRITE: u16 = 2;

/// A peer that remembers what it receives and sends what it is told to.
#[derive(Default)]
pub struct Recorder {
    pub received: Vec<u8>,
    pub to_send: Vec<u8>,
    /// The number of packets that were asked for.
    pub asked: usize,
}

impl Peer for Recorder {
    fn connected(&mut self) {}

    fn disconnected(&mut self) {}

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.received.extend(bytes);
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        self.asked += 1;
        let count = room.min(self.to_send.len());
        self.to_send.drain(..count).collect()
    }

    fn is_done(&self) -> bool {
        false
    }
}

pub struct Driver {
    pub memory: GuestMemoryMmap,
    pub device: VirtioMmio,
    pub peer: Recorder,
    /// The next free descriptor and available index of each queue.
    pub next: [u16; QUEUES],
}

/// Returns the addresses of a queue's descriptor table, available ring and used ring.
pub fn rings(queue: usize) -> [u64; 3] {
    let base = 0x1000 * (1 + 3 * queue as u64);
    [base, base + 0x1000, base + 0x2000]
}

impl Driver {
    /// Makes a device that is ready for use, with `to_send` waiting.
    pub fn new(to_send: &[u8]) -> Self {
        let regions = [
            (GuestAddress(0), HOLE.start as usize),
            (GuestAddress(HOLE.end), (MEMORY - HOLE.end) as usize),
        ];
        let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
        let peer = Recorder {
            to_send: to_send.to_vec(),
            ..Recorder::default()
        };
        let irq = IrqLines::default().line(5);
        let device = VirtioMmio::new(Vsock::new(CID), irq).unwrap();
        let mut driver = Self {
            memory,
            device,
            peer,
            next: [0; QUEUES],
        };
        driver.negotiate();
        driver
    }

    pub fn negotiate(&mut self) {
        self.initialize(SIZE.into(), [0, 1, 2].map(rings));
    }

    /// Initializes the device in the order of virtio 1.2, 3.1.1.
    pub fn initialize(&mut self, size: u32, queues: [[u64; 3]; QUEUES]) {
        for status in [0, 1, 3] {
            self.write(0x070, status);
        }
        for (half, features) in [(0, 0), (1, 1)] {
            self.write(0x024, half);
            self.write(0x020, features);
        }
        self.write(0x070, 11);
        for (queue, rings) in (0..).zip(queues) {
            self.write(0x030, queue);
            self.write(0x038, size);
            for (register, address) in [0x080, 0x090, 0x0a0].into_iter().zip(rings) {
                self.write(register, address as u32);
                self.write(register + 4, (address >> 32) as u32);
            }
            self.write(0x044, 1);
        }
        self.write(0x070, 15);
    }

    pub fn write(&mut self, register: u64, value: u32) -> bool {
        self.device
            .write(register, &value.to_le_bytes(), &mut self.peer)
    }

    pub fn read(&self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.device.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Makes a chain of one buffer available.
    pub fn offer(&mut self, queue: usize, address: u64, length: u32, flags: u16, next: u16) {
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

    pub fn process(&mut self) -> Result<(), Violation> {
        self.device.process(&self.memory, &mut self.peer)
    }

    pub fn send(&mut self, header: &Header, payload: &[u8]) -> Result<(), Violation> {
        let bytes = [header.as_slice(), payload].concat();
        self.memory
            .write_slice(&bytes, GuestAddress(BUFFERS))
            .unwrap();
        self.offer(TRANSMIT, BUFFERS, bytes.len() as u32, 0, 0);
        assert!(self.write(0x050, TRANSMIT as u32), "a kick is seen");
        self.process()
    }

    /// Gives the device a buffer and reads what it put there.
    pub fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        self.receive_into(4096)
    }

    pub fn receive_into(&mut self, length: u32) -> Option<(Header, Vec<u8>)> {
        let [_, _, used] = rings(RECEIVE);
        let address = BUFFERS + 0x2_0000;
        let index = || self.memory.read_obj::<u16>(GuestAddress(used + 2)).unwrap();
        let before = index();
        self.offer(RECEIVE, address, length, WRITE, 0);
        self.process().unwrap();
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

    pub fn connect(&mut self) {
        self.send(&packet(Operation::Request, 0), &[]).unwrap();
        let (answer, _) = self.receive().expect("an answer");
        assert_eq!(answer.operation(), Ok(Operation::Response));
    }

    pub fn received(&self) -> &[u8] {
        &self.peer.received
    }
}

pub fn packet(operation: Operation, length: u32) -> Header {
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
