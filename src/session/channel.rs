//! The host's end of a channel: what goes to a process in the guest, what comes, and how much is under way.

use crate::agent::Channels;
use crate::session::guest::Guest;
use guest::channel::{Command, Message};
use guest::{CHANNEL_PIECE, CHANNEL_WINDOW, Exit, Frame, WindowSize};
use std::collections::VecDeque;
use std::sync::Arc;

/// The guest is told of output that was taken once it is so much.
const TOLD_MIN: usize = CHANNEL_WINDOW / 4;

/// A process in the guest, on a channel of its own.
pub struct Channel {
    number: u32,
    channels: Arc<Channels>,
    /// Input that the guest has no room for yet.
    waiting: VecDeque<u8>,
    has_input_ended: bool,
    is_end_told: bool,
    /// The bytes of input that the guest has, and was not done with.
    given: usize,
    /// The bytes of output that were taken, and the guest was not told of it.
    taken: usize,
}

impl Channel {
    /// Starts the process.
    pub fn open(channels: &Arc<Channels>, command: Command, guest: &Guest) -> Self {
        let number = channels.open();
        guest.send(Frame::Open(number, command));
        Self {
            number,
            channels: Arc::clone(channels),
            waiting: VecDeque::new(),
            has_input_ended: false,
            is_end_told: false,
            given: 0,
            taken: 0,
        }
    }

    /// Returns how much input the guest has no room for yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn has_input_ended(&self) -> bool {
        self.has_input_ended
    }

    /// Sends input, now or when there is room.
    pub fn give(&mut self, bytes: &[u8], guest: &Guest) {
        self.waiting.extend(bytes);
        self.pump(guest);
    }

    pub fn end_input(&mut self, guest: &Guest) {
        self.has_input_ended = true;
        self.pump(guest);
    }

    /// Takes output of one stream.
    pub fn take_output(&mut self, guest: &Guest) -> Option<(u8, Vec<u8>)> {
        let (stream, bytes) = self.channels.take_output(self.number)?;
        self.taken += bytes.len();
        if self.taken >= TOLD_MIN {
            self.channels.reopen(self.number, self.taken);
            self.send(Message::OutputTaken(self.taken as u32), guest);
            self.taken = 0;
        }
        Some((stream, bytes))
    }

    /// Returns how much input was passed on since this was asked last, and sends more.
    pub fn take_passed_on(&mut self, guest: &Guest) -> usize {
        let bytes = self.channels.take_passed_on(self.number);
        self.given -= bytes;
        self.pump(guest);
        bytes
    }

    /// Returns how the process has ended, once all its output was taken.
    pub fn take_end(&self) -> Option<Exit> {
        self.channels.take_end(self.number)
    }

    /// Sends a signal to its process group.
    pub fn signal(&self, number: i32, guest: &Guest) {
        self.send(Message::Signal(number as u8), guest);
    }

    pub fn resize(&self, size: WindowSize, guest: &Guest) {
        self.send(Message::Resize(size), guest);
    }

    /// Sends as much input as the guest has room for.
    fn pump(&mut self, guest: &Guest) {
        while !self.waiting.is_empty() && self.given < CHANNEL_WINDOW {
            let room = (CHANNEL_WINDOW - self.given).min(CHANNEL_PIECE);
            let count = room.min(self.waiting.len());
            let bytes: Vec<_> = self.waiting.drain(..count).collect();
            self.given += count;
            self.channels.give_input(self.number, count);
            self.send(Message::Input(bytes), guest);
        }
        if self.has_input_ended && self.waiting.is_empty() && !self.is_end_told {
            self.is_end_told = true;
            self.send(Message::InputEnd, guest);
        }
    }

    fn send(&self, message: Message, guest: &Guest) {
        guest.send(Frame::Channel(self.number, message));
    }
}
