//! A peer of the vsock device that counts what is asked of it.

use sandbox::internals::devices::Violation;
use sandbox::internals::devices::vsock::Peer;
use std::sync::LazyLock;

/// Remembers what it received; sends a counter's bytes, as many as it is told.
#[derive(Default)]
pub struct Recorder {
    pub received: Vec<u8>,
    pub sent: usize,
    pub to_send: usize,
    /// Packets either way since somebody last looked.
    pub packets: usize,
}

/// So many bytes, 64 KiB at most, at this position of what a [`Recorder`] sends.
pub fn sent_bytes(position: usize, count: usize) -> &'static [u8] {
    const PERIOD: usize = 251;
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..PERIOD as u8)
            .cycle()
            .take(PERIOD + (64 << 10))
            .collect()
    });
    &BYTES[position % PERIOD..][..count]
}

impl Peer for Recorder {
    fn connected(&mut self) {}

    fn disconnected(&mut self) {}

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.packets += 1;
        self.received.extend(bytes);
        Ok(())
    }

    fn transmit(&mut self, room: usize) -> Vec<u8> {
        self.packets += 1;
        let count = room.min(self.to_send);
        let bytes = sent_bytes(self.sent, count).to_vec();
        self.sent += count;
        self.to_send -= count;
        bytes
    }

    fn is_done(&self) -> bool {
        false
    }
}
