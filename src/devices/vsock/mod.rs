//! A virtio-vsock device (virtio 1.2, 5.10) whose peer is this very process.
//!
//! There is one connection at a time, which the guest opens to [`guest::PORT`] of the host.

mod connection;
mod packet;

use crate::devices::Violation;
pub use connection::Connection;
use packet::{Header, Operation};
use std::collections::VecDeque;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestMemoryMmap, Le64};

/// The virtio device type (5.10.1).
pub const DEVICE_ID: u32 = virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
/// The number of queues: receive, transmit and event (5.10.2).
pub const QUEUES: usize = 3;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Upper bound on the answers that wait for a receive buffer; a driver that asks for more has stopped
/// reading.
const ANSWERS_MAX: usize = 64;

/// The host's end of the connection with the guest.
pub trait Peer {
    /// Notes that the guest opened the connection.
    fn connected(&mut self);
    /// Notes that the guest reset the device under an open connection.
    fn disconnected(&mut self);
    /// Takes bytes that the guest sent.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Violation>;
    /// Returns bytes for the guest, at most `room`; empty when there are none.
    fn transmit(&mut self, room: usize) -> Vec<u8>;
    /// Returns whether nothing more is wanted of the guest.
    fn is_done(&self) -> bool;
}

/// The device. Its peer is lent to it, since the peer does more than talk over this connection.
pub struct Vsock {
    config: [u8; 8],
    connection: Option<Connection>,
    answers: VecDeque<Header>,
}

impl Vsock {
    pub fn new(guest_cid: u64) -> Self {
        Self {
            config: u64::from(Le64::from(guest_cid)).to_le_bytes(),
            connection: None,
            answers: VecDeque::new(),
        }
    }

    /// Sets the connection that was open when the machine was saved.
    pub fn with_connection(mut self, connection: Option<Connection>) -> Self {
        self.connection = connection;
        self
    }

    /// Returns the open connection, to be saved, or `None` if there are answers under way, which
    /// are not saved.
    pub fn connection_at_rest(&self) -> Option<Option<Connection>> {
        self.answers.is_empty().then(|| self.connection.clone())
    }

    /// Returns the configuration space, which is the guest's CID (5.10.4).
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    pub fn reset(&mut self, peer: &mut impl Peer) {
        if self.connection.take().is_some() {
            peer.disconnected();
        }
        self.answers.clear();
    }

    /// Takes all packets that the driver sent, and gives it all that fit. Returns whether any buffer
    /// was used.
    ///
    /// A driver can have made available at most as many chains as the queue's size (2.7.6). If its
    /// buffers lie over its rings, our own writes can make more available; we stop nevertheless.
    pub fn process(
        &mut self,
        queues: &mut [Queue; QUEUES],
        memory: &GuestMemoryMmap,
        peer: &mut impl Peer,
    ) -> Result<bool, Violation> {
        let taken = self.take(&mut queues[TRANSMIT], memory, peer)?;
        let given = self.give(&mut queues[RECEIVE], memory, peer)?;
        Ok(taken || given)
    }

    fn take(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        peer: &mut impl Peer,
    ) -> Result<bool, Violation> {
        let mut used = false;
        for _ in 0..queue.size() {
            if peer.is_done() {
                break;
            }
            let Some(chain) = queue.pop_descriptor_chain(memory) else {
                break;
            };
            let head = chain.head_index();
            let (header, payload) = packet::read(chain, memory)?;
            queue.add_used(memory, head, 0)?;
            used = true;
            self.handle(&header, &payload, peer)?;
        }
        Ok(used)
    }

    fn give(
        &mut self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        peer: &mut impl Peer,
    ) -> Result<bool, Violation> {
        let mut used = false;
        for _ in 0..queue.size() {
            if !self.has_something_to_give() {
                break;
            }
            let Some(chain) = queue.pop_descriptor_chain(memory) else {
                break;
            };
            let head = chain.head_index();
            let room = packet::payload_room(chain.clone())?;
            let (header, payload) = match self.next_packet(room, peer) {
                Some(packet) => packet,
                None => {
                    let position = queue.next_avail().wrapping_sub(1);
                    queue.set_next_avail(position);
                    break;
                }
            };
            let written = packet::write(chain, memory, &header, &payload)?;
            queue.add_used(memory, head, written)?;
            used = true;
        }
        Ok(used)
    }

    fn has_something_to_give(&self) -> bool {
        !self.answers.is_empty() || self.connection.as_ref().is_some_and(|c| c.room() > 0)
    }

    /// Returns the next packet for the guest: an answer that waits, or else data, if there is any.
    fn next_packet(&mut self, room: usize, peer: &mut impl Peer) -> Option<(Header, Vec<u8>)> {
        if let Some(header) = self.answers.pop_front() {
            return Some((header, Vec::new()));
        }
        let connection = self.connection.as_mut()?;
        let payload = peer.transmit(room.min(connection.room()));
        if payload.is_empty() {
            return None;
        }
        Some((connection.data(payload.len() as u32), payload))
    }

    fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        peer: &mut impl Peer,
    ) -> Result<(), Violation> {
        let operation = header.operation()?;
        if !header.is_for_the_host(u64::from_le_bytes(self.config)) {
            return self.answer(header.refusal());
        }
        let free = self.connection.is_none();
        let known = self.connection.as_mut().filter(|c| c.is_of(header));
        match (operation, known) {
            (Operation::Reset, None) => Ok(()),
            (Operation::Request, None) if free && header.is_to_port(guest::PORT) => {
                let (connection, answer) = Connection::accept(header);
                self.connection = Some(connection);
                peer.connected();
                self.answer(answer)
            }
            (_, None) => self.answer(header.refusal()),
            (Operation::Reset, Some(_)) => {
                self.connection = None;
                Ok(())
            }
            (Operation::Shutdown, Some(_)) => {
                self.connection = None;
                self.answer(header.refusal())
            }
            (Operation::Data, Some(connection)) => {
                connection.update(header)?;
                let news = connection.received(payload.len() as u32)?;
                peer.receive(payload)?;
                news.map_or(Ok(()), |news| self.answer(news))
            }
            (Operation::CreditUpdate, Some(connection)) => connection.update(header),
            (Operation::CreditRequest, Some(connection)) => {
                connection.update(header)?;
                let news = connection.credit_update();
                self.answer(news)
            }
            (Operation::Request | Operation::Response, Some(_)) => Err(Violation(format!(
                "vsock {operation:?} on a connection that is open"
            ))),
        }
    }

    fn answer(&mut self, header: Header) -> Result<(), Violation> {
        if self.answers.len() == ANSWERS_MAX {
            return Err(Violation("vsock answers that are never read".into()));
        }
        self.answers.push_back(header);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
