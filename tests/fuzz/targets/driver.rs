//! How a driver brings up the vsock device, and its queues in guest memory.

use sandbox::internals::devices::vsock::QUEUES;
use sandbox::internals::vm::layout::GUEST_CID;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;

pub const GUEST_PORT: u32 = 1025;
/// Bytes of a packet's header, and the kind of socket in it.
pub const HEADER: usize = 44;
pub const STREAM: u16 = 1;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

/// Addresses of a queue's descriptor table, available ring and used ring.
pub type Rings = [u64; 3];

/// Registers and their values, in the order of virtio 1.2, 3.1.1.
pub fn initialization(size: u16, queues: [Rings; QUEUES]) -> Vec<(u64, u32)> {
    let mut writes = vec![(0x070, 0), (0x070, 1), (0x070, 3)];
    for half in [0, 1] {
        writes.extend([(0x024, half), (0x020, half)]);
    }
    writes.push((0x070, 11));
    for (queue, rings) in (0..).zip(queues) {
        writes.extend([(0x030, queue), (0x038, size.into())]);
        for (register, address) in [0x080, 0x090, 0x0a0].into_iter().zip(rings) {
            writes.push((register, address as u32));
            writes.push((register + 4, (address >> 32) as u32));
        }
        writes.push((0x044, 1));
    }
    writes.push((0x070, 15));
    writes
}

/// `struct virtio_vsock_hdr` (5.10.6), from the guest to the host.
pub fn header(operation: u16, buffer: u32, consumed: u32, length: u32) -> [u8; HEADER] {
    let mut bytes = Vec::new();
    bytes.extend(GUEST_CID.to_le_bytes());
    bytes.extend(u64::from(guest::HOST_CID).to_le_bytes());
    bytes.extend(
        [GUEST_PORT, guest::PORT, length]
            .map(u32::to_le_bytes)
            .concat(),
    );
    bytes.extend([STREAM, operation].map(u16::to_le_bytes).concat());
    bytes.extend([0, buffer, consumed].map(u32::to_le_bytes).concat());
    bytes.try_into().unwrap()
}

/// Writes an entry of a descriptor table, if that lies in memory.
pub fn describe(
    memory: &GuestMemoryMmap,
    at: u64,
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
) {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    poke(memory, at, &bytes);
}

/// Writes what of these bytes lies in memory.
pub fn poke(memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) {
    memory
        .write(bytes, GuestAddress(at))
        .map(drop)
        .unwrap_or_default();
}
