//! The connection with the agent: frames in both directions. It lives as long as its machine.

use crate::devices::Violation;
use guest::{Decoder, Frame, encode};
use std::collections::VecDeque;
use std::time::Instant;

/// The bytes that have arrived and were not taken yet, and those that are to be sent.
pub struct Connection {
    opened: Option<Instant>,
    decoder: Decoder,
    /// Encoded frames for the guest.
    outgoing: VecDeque<u8>,
}

impl Connection {
    pub fn new() -> Self {
        Self {
            opened: None,
            decoder: Decoder::with_limit(guest::MAX_PAYLOAD),
            outgoing: VecDeque::new(),
        }
    }

    /// Notes that the agent has opened the connection.
    pub fn open(&mut self) {
        self.opened = Some(Instant::now());
    }

    /// Returns when the agent opened the connection, which is its first act as PID 1.
    pub fn opened(&self) -> Option<Instant> {
        self.opened
    }

    /// Adds bytes that have arrived.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// Takes the next frame, if all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        Ok(self.decoder.next_frame()?)
    }

    pub fn send(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        encode(frame, &mut bytes);
        self.outgoing.extend(bytes);
    }

    /// Returns whether nothing waits to be sent.
    pub fn has_sent_all(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Returns whether nothing is under way in either direction.
    pub fn is_at_rest(&self) -> bool {
        self.has_sent_all() && self.decoder.is_empty()
    }

    /// Takes the next bytes for the guest, at most `room`.
    pub fn transmit(&mut self, room: usize) -> Vec<u8> {
        let count = room.min(self.outgoing.len());
        // As slices: an iterator would go byte by byte.
        let (first, second) = self.outgoing.as_slices();
        let first = &first[..count.min(first.len())];
        let bytes = [first, &second[..count - first.len()]].concat();
        drop(self.outgoing.drain(..count));
        bytes
    }
}
