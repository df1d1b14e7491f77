//! One open connection and its credit (virtio 1.2, 5.10.6.3): plain data.

use crate::devices::Violation;
use crate::devices::vsock::packet::{Header, Operation};
use serde::{Deserialize, Serialize};

/// Upper bound on the bytes that the guest may have under way to us. We consume them at once, so this
/// only decides how seldom we must tell the guest so. Linux sends at most as much as its own buffer's
/// size, 256 KiB, and never asks for credit: it must get an update before that is used up.
const BUFFER: u32 = 256 << 10;

/// An open connection. Its counters are free-running modulo 2^32.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connection {
    /// The header template for packets to the guest on this connection.
    to_guest: Header,
    /// The number of bytes that we sent.
    sent: u32,
    /// The size of the guest's buffer, and how many of our bytes the guest has consumed.
    guest_buffer: u32,
    guest_consumed: u32,
    /// The number of bytes that we received, and the last count that we told the guest.
    received: u32,
    announced: u32,
}

impl Connection {
    /// Opens a connection on the guest's request; the second value is the answer.
    pub fn accept(request: &Header) -> (Self, Header) {
        let mut connection = Self {
            to_guest: request.reply(Operation::Response),
            sent: 0,
            guest_buffer: request.buf_alloc.into(),
            guest_consumed: 0,
            received: 0,
            announced: 0,
        };
        let answer = connection.packet(Operation::Response, 0);
        (connection, answer)
    }

    pub fn is_of(&self, header: &Header) -> bool {
        let ours = self.to_guest;
        header.ports() == (ours.dst_port, ours.src_port)
    }

    /// Returns how many bytes the guest has room for.
    pub fn room(&self) -> usize {
        self.guest_buffer.saturating_sub(self.in_flight()) as usize
    }

    /// Returns the header of a packet with this many bytes of data, at most [`Self::room`].
    pub fn data(&mut self, length: u32) -> Header {
        debug_assert!(length as usize <= self.room());
        self.sent = self.sent.wrapping_add(length);
        self.packet(Operation::Data, length)
    }

    pub fn credit_update(&mut self) -> Header {
        self.packet(Operation::CreditUpdate, 0)
    }

    /// Takes the guest's credit from any of its packets.
    pub fn update(&mut self, header: &Header) -> Result<(), Violation> {
        let consumed = u32::from(header.fwd_cnt);
        if self.sent.wrapping_sub(consumed) > self.in_flight() {
            return Err(Violation("vsock credit for bytes never sent".into()));
        }
        self.guest_consumed = consumed;
        self.guest_buffer = header.buf_alloc.into();
        Ok(())
    }

    /// Counts received bytes. Returns a credit update for the guest when one is due.
    pub fn received(&mut self, length: u32) -> Result<Option<Header>, Violation> {
        self.received = self.received.wrapping_add(length);
        let unannounced = self.received.wrapping_sub(self.announced);
        if unannounced > BUFFER {
            return Err(Violation("vsock data beyond its credit".into()));
        }
        Ok((unannounced > BUFFER / 2).then(|| self.credit_update()))
    }

    /// Returns how many bytes were sent that the guest has not consumed yet.
    fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.guest_consumed)
    }

    fn packet(&mut self, operation: Operation, length: u32) -> Header {
        self.announced = self.received;
        Header {
            op: (operation as u16).into(),
            len: length.into(),
            buf_alloc: BUFFER.into(),
            fwd_cnt: self.received.into(),
            ..self.to_guest
        }
    }
}

#[cfg(test)]
mod tests;
