//! The channels of commands in a session's guest: what comes there on its way from the vCPU thread to the main
//! thread, and how much may be under way.

use crate::devices::Violation;
use guest::channel::Message;
use guest::{CHANNEL_WINDOW, Exit};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The open channels, by their numbers.
#[derive(Default)]
pub struct Channels(Mutex<BTreeMap<u32, Channel>>, AtomicU32);

#[derive(Default)]
struct Channel {
    /// Output in its order: of which stream, how many bytes, and these.
    runs: VecDeque<(u8, usize)>,
    bytes: VecDeque<u8>,
    /// The bytes of output that the guest was not told of that they were taken.
    held: usize,
    /// The bytes of input that the guest has, and those that it passed on since somebody asked.
    given: usize,
    passed_on: usize,
    ended: Option<Exit>,
}

impl Channels {
    /// Opens a channel; returns its number. The main thread calls this, before the guest hears of it.
    pub fn open(&self) -> u32 {
        let number = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        self.all().insert(number, Channel::default());
        number
    }

    /// Takes output of one stream. The main thread calls this.
    pub fn take_output(&self, number: u32) -> Option<(u8, Vec<u8>)> {
        let mut all = self.all();
        let channel = all.get_mut(&number)?;
        let (stream, count) = channel.runs.pop_front()?;
        Some((stream, channel.bytes.drain(..count).collect()))
    }

    /// Notes that the guest is told that so much output was taken. The main thread calls this.
    pub fn reopen(&self, number: u32, count: usize) {
        if let Some(channel) = self.all().get_mut(&number) {
            channel.held -= count;
        }
    }

    /// Notes that the guest is sent so much input. The main thread calls this.
    pub fn give_input(&self, number: u32, count: usize) {
        if let Some(channel) = self.all().get_mut(&number) {
            channel.given += count;
        }
    }

    /// Returns how much input was passed on since this was asked last. The main thread calls this.
    pub fn take_passed_on(&self, number: u32) -> usize {
        let mut all = self.all();
        let channel = all.get_mut(&number);
        channel.map_or(0, |channel| std::mem::take(&mut channel.passed_on))
    }

    /// Returns how the command has ended, once all its output was taken; then the channel is gone. The main
    /// thread calls this.
    pub fn take_end(&self, number: u32) -> Option<Exit> {
        let mut all = self.all();
        let channel = all.get(&number)?;
        let exit = channel.ended.filter(|_| channel.runs.is_empty())?;
        all.remove(&number);
        Some(exit)
    }

    /// Takes a message of the guest's. The vCPU thread calls this.
    pub fn receive(&self, number: u32, message: Message) -> Result<(), Violation> {
        let mut all = self.all();
        let channel = all.get_mut(&number).filter(|open| open.ended.is_none());
        let channel =
            channel.ok_or_else(|| Violation(format!("{number} is not an open channel")))?;
        match message {
            Message::Output { stream, bytes } => channel.add(stream, &bytes),
            Message::InputTaken(count) => {
                let left = channel.given.checked_sub(count as usize);
                let never = || Violation("input taken that was never sent".into());
                channel.given = left.ok_or_else(never)?;
                channel.passed_on += count as usize;
                Ok(())
            }
            Message::Ended(exit) => {
                channel.ended = Some(exit);
                Ok(())
            }
            other => Err(Violation(format!("the agent sent {other:?} on a channel"))),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u32, Channel>> {
        // Each change is complete before the lock is released, so a poisoned lock is harmless.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    fn add(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        if self.held + bytes.len() > CHANNEL_WINDOW {
            return Err(Violation("more output on a channel than its window".into()));
        }
        self.held += bytes.len();
        self.bytes.extend(bytes);
        match self.runs.back_mut() {
            Some((last, count)) if *last == stream => *count += bytes.len(),
            _ => self.runs.push_back((stream, bytes.len())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest::stream::{STDERR, STDOUT};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn output(stream: u8, bytes: &[u8]) -> Message {
        let bytes = bytes.into();
        Message::Output { stream, bytes }
    }

    fn with_channel() -> Channels {
        let channels = Channels::default();
        assert_eq!(channels.open(), 1);
        channels
    }

    #[test]
    fn output_keeps_its_order_and_comes_before_the_end() {
        let channels = with_channel();
        for (stream, bytes) in [(STDOUT, "a"), (STDOUT, "b"), (STDERR, "c"), (STDOUT, "d")] {
            channels
                .receive(1, output(stream, bytes.as_bytes()))
                .unwrap();
        }
        channels
            .receive(1, Message::Ended(Exit::Exited(3)))
            .unwrap();
        for (stream, bytes) in [(STDOUT, "ab"), (STDERR, "c"), (STDOUT, "d")] {
            assert_eq!(channels.take_end(1), None);
            assert_eq!(channels.take_output(1), Some((stream, bytes.into())));
        }
        assert_eq!(channels.take_output(1), None);
        assert_eq!(channels.take_end(1), Some(Exit::Exited(3)));
        assert_eq!(channels.take_end(1), None);
    }

    #[test]
    fn a_guest_that_sends_what_it_must_not_is_refused() {
        let full = vec![0; CHANNEL_WINDOW];
        let ended = || Message::Ended(Exit::Exited(0));
        for messages in [
            vec![(2, output(STDOUT, b"no channel"))],
            vec![(2, ended())],
            vec![(1, output(STDOUT, &full)), (1, output(STDERR, b"more"))],
            vec![(1, Message::InputTaken(8))],
            vec![(1, Message::InputTaken(4)), (1, Message::InputTaken(4))],
            vec![(1, ended()), (1, output(STDOUT, b"late"))],
            vec![(1, ended()), (1, ended())],
            vec![(1, Message::Input(b"not its to send".into()))],
            vec![(1, Message::InputEnd)],
            vec![(1, Message::OutputTaken(1))],
            vec![(1, Message::Signal(9))],
        ] {
            let channels = with_channel();
            channels.give_input(1, 7);
            let told = format!("{messages:?}").chars().take(90).collect::<String>();
            let messages = messages.into_iter();
            let results = messages.map(|(number, message)| channels.receive(number, message));
            let mut results: Vec<_> = results.collect();
            let last = results.pop().unwrap();
            assert!(results.iter().all(Result::is_ok), "{told}");
            assert!(last.is_err(), "{told}");
        }
    }

    #[test]
    fn a_window_opens_by_as_much_as_was_taken() {
        let channels = with_channel();
        let full = vec![0; CHANNEL_WINDOW];
        channels.receive(1, output(STDOUT, &full)).unwrap();
        assert_eq!(channels.take_output(1).unwrap().1.len(), CHANNEL_WINDOW);
        channels.reopen(1, 10);
        channels.receive(1, output(STDOUT, &[0; 10])).unwrap();
        assert!(channels.receive(1, output(STDOUT, &[0])).is_err());
    }

    proptest! {
        /// Whatever a guest sends, no more is held than a window, and nothing panics.
        #[test]
        fn what_is_held_is_bounded(
            messages in vec((0..3u32, prop_oneof![
                (1..=2u8, 1..CHANNEL_WINDOW).prop_map(|(stream, count)| output(stream, &vec![0; count])),
                any::<u32>().prop_map(Message::InputTaken),
                any::<u8>().prop_map(|status| Message::Ended(Exit::Exited(status))),
            ], any::<bool>()), 0..40),
        ) {
            let channels = with_channel();
            channels.open();
            for (number, message, take) in messages {
                channels.receive(number, message).unwrap_or_default();
                if take && let Some((_, bytes)) = channels.take_output(number) {
                    channels.reopen(number, bytes.len());
                }
                for channel in channels.all().values() {
                    prop_assert!(channel.bytes.len() <= channel.held);
                    prop_assert!(channel.held <= CHANNEL_WINDOW);
                }
            }
        }
    }
}
