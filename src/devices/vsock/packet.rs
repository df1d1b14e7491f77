//! vsock packets in descriptor chains (virtio 1.2, 5.10.6).

use crate::devices::Violation;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::ops::Deref;
use virtio_queue::DescriptorChain;
use vm_memory::{ByteValued, GuestMemoryMmap, Le16, Le32, Le64};

/// Upper bound on the payload of one packet, which Linux keeps to (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const PAYLOAD_MAX: u32 = 64 << 10;
/// The socket type SOCK_STREAM (5.10.6.2).
const STREAM: u16 = 1;
const HOST_CID: u64 = guest::HOST_CID as u64;

/// `struct virtio_vsock_hdr`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<u8>", try_from = "Vec<u8>")]
#[repr(C, packed)]
pub struct Header {
    pub src_cid: Le64,
    pub dst_cid: Le64,
    pub src_port: Le32,
    pub dst_port: Le32,
    pub len: Le32,
    pub kind: Le16,
    pub op: Le16,
    pub flags: Le32,
    pub buf_alloc: Le32,
    pub fwd_cnt: Le32,
}

// SAFETY: the fields are little-endian integers, packed without padding; any bytes are a value.
unsafe impl ByteValued for Header {}

pub const HEADER_SIZE: usize = size_of::<Header>();

impl From<Header> for Vec<u8> {
    fn from(header: Header) -> Self {
        header.as_slice().to_vec()
    }
}

impl TryFrom<Vec<u8>> for Header {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::from_slice(&bytes)
            .copied()
            .ok_or("not the length of a vsock header")
    }
}

/// The operations that we know (5.10.6); 0 is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Header {
    pub fn operation(&self) -> Result<Operation, Violation> {
        Ok(match u16::from(self.op) {
            1 => Operation::Request,
            2 => Operation::Response,
            3 => Operation::Reset,
            4 => Operation::Shutdown,
            5 => Operation::Data,
            6 => Operation::CreditUpdate,
            7 => Operation::CreditRequest,
            op => return Err(Violation(format!("no vsock operation {op}"))),
        })
    }

    pub fn is_for_the_host(&self, guest_cid: u64) -> bool {
        u64::from(self.dst_cid) == HOST_CID
            && u64::from(self.src_cid) == guest_cid
            && u16::from(self.kind) == STREAM
    }

    /// Returns the source and destination ports.
    pub fn ports(&self) -> (Le32, Le32) {
        (self.src_port, self.dst_port)
    }

    pub fn is_to_port(&self, port: u32) -> bool {
        u32::from(self.dst_port) == port
    }

    /// Returns a packet in the opposite direction, without payload or credit.
    pub fn reply(&self, operation: Operation) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: (operation as u16).into(),
            ..Self::default()
        }
    }

    /// Returns the answer to a packet for which there is no connection.
    pub fn refusal(&self) -> Self {
        self.reply(Operation::Reset)
    }
}

/// Reads the packet in a chain from the driver. The header is copied once, then checked.
pub fn read<M>(
    chain: DescriptorChain<M>,
    memory: &GuestMemoryMmap,
) -> Result<(Header, Vec<u8>), Violation>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    check_length(chain.clone())?;
    let mut reader = chain.reader(memory)?;
    let header: Header = reader.read_obj()?;
    let length = u32::from(header.len);
    if length > PAYLOAD_MAX {
        return Err(Violation(format!("vsock packet of {length} bytes")));
    }
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload)?;
    Ok((header, payload))
}

/// Checks the number of descriptors in a chain. A chain has no more than its queue (2.7.5.3.1), and
/// ours have fewer still; an indirect table, which we did not offer, could have 65,535.
fn check_length<M>(chain: DescriptorChain<M>) -> Result<(), Violation>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    const DESCRIPTORS_MAX: usize = 64;
    match chain.take(DESCRIPTORS_MAX + 1).count() {
        0..=DESCRIPTORS_MAX => Ok(()),
        _ => Err(Violation("vsock descriptor chain without end".into())),
    }
}

/// Returns how many bytes of payload a chain from the driver has room for.
pub fn payload_room<M>(chain: DescriptorChain<M>) -> Result<usize, Violation>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    check_length(chain.clone())?;
    // The sum cannot overflow: it has at most 64 terms of 32 bits.
    let room: u64 = chain.writable().map(|part| u64::from(part.len())).sum();
    usize::try_from(room)?
        .checked_sub(HEADER_SIZE)
        .map(|room| room.min(PAYLOAD_MAX as usize))
        .ok_or_else(|| Violation("vsock receive buffer without room for a header".into()))
}

/// Writes a packet into a chain from the driver; returns the number of bytes written.
pub fn write<M>(
    chain: DescriptorChain<M>,
    memory: &GuestMemoryMmap,
    header: &Header,
    payload: &[u8],
) -> Result<u32, Violation>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let mut writer = chain.writer(memory)?;
    writer.write_all(header.as_slice())?;
    writer.write_all(payload)?;
    Ok(u32::try_from(writer.bytes_written())?)
}
