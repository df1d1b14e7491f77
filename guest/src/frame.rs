//! Frames: their encoding, and their decoding from a stream that arrives in pieces.

use crate::bytes::{Malformed, put_list, take_list, take_u32};
use crate::channel::{Command, Message};
use crate::exit::Exit;
use crate::{JobFrame, MAX_PAYLOAD, MAX_START, WindowSize};

/// A message between host and guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// From the guest: the agent is up and waits for the first job.
    Ready,
    /// From the host, once the agent is ready or a program has ended: run this job.
    Start(JobFrame),
    /// From the host: there are bytes for the program's standard input, to be had by hypercall
    /// ([`crate::hypercall::INPUT`]).
    Stdin,
    /// From the host: no more standard input will come than there is now.
    StdinEnd,
    /// From the host: bytes that were typed at the program's terminal.
    Typed(Vec<u8>),
    /// From the host: the window of the program's terminal has this size now.
    Resize(WindowSize),
    /// From the host: a signal for the program.
    Signal(Signal),
    /// From the guest: the agent has passed on so many bytes of what was typed.
    TypedTaken(u32),
    /// From the guest: how the program ended. This is the guest's claim, not a host fact.
    Exit(Exit),
    /// From the host, after an exit: send the files at these absolute paths, named by their numbers
    /// in this list (0, 0/…, 1).
    Collect(Vec<Vec<u8>>),
    /// From the guest: all files were sent.
    Collected,
    /// From the host: run a command beside the program, on the channel with this number.
    Open(u32, Command),
    /// From either: a message on a channel.
    Channel(u32, Message),
}

/// A signal for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    pub number: u8,
    /// Whether all processes of the program's group get it, as from a terminal.
    pub is_for_group: bool,
}

const READY: u8 = 1;
const START: u8 = 2;
const STDIN: u8 = 3;
const STDIN_END: u8 = 4;
const TYPED_TAKEN: u8 = 5;
const EXIT: u8 = 6;
const COLLECT: u8 = 7;
const COLLECTED: u8 = 8;
const SIGNAL: u8 = 9;
const TYPED: u8 = 10;
const RESIZE: u8 = 11;
const OPEN: u8 = 12;
const CHANNEL: u8 = 13;

const HEADER: usize = 5;

/// Appends `frame` to `out`.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; HEADER]);
    let kind = match frame {
        Frame::Ready => READY,
        Frame::Start(job) => {
            job.encode(out);
            START
        }
        Frame::Stdin => STDIN,
        Frame::StdinEnd => STDIN_END,
        Frame::Typed(bytes) => {
            out.extend(bytes);
            TYPED
        }
        Frame::Resize(size) => {
            out.extend(size.number().to_le_bytes());
            RESIZE
        }
        Frame::Signal(signal) => {
            out.extend([signal.number, signal.is_for_group.into()]);
            SIGNAL
        }
        Frame::TypedTaken(count) => {
            out.extend(count.to_le_bytes());
            TYPED_TAKEN
        }
        Frame::Exit(exit) => {
            out.extend(exit.encode());
            EXIT
        }
        Frame::Collect(paths) => {
            put_list(out, paths);
            COLLECT
        }
        Frame::Collected => COLLECTED,
        Frame::Open(channel, command) => {
            out.extend(channel.to_le_bytes());
            command.encode(out);
            OPEN
        }
        Frame::Channel(channel, message) => {
            out.extend(channel.to_le_bytes());
            message.encode(out);
            CHANNEL
        }
    };
    let length = (out.len() - start - HEADER) as u32;
    out[start] = kind;
    out[start + 1..start + HEADER].copy_from_slice(&length.to_le_bytes());
}

/// A decoder of frames from a stream. It holds at most one frame and the bytes that arrived with
/// it.
#[derive(Debug, Clone)]
pub struct Decoder {
    limit: usize,
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// Checks whether all bytes that have arrived were taken.
    pub fn is_empty(&self) -> bool {
        self.consumed == self.buffer.len()
    }

    /// Makes a decoder that refuses payloads over `limit` bytes, whatever their kind.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            consumed: 0,
        }
    }

    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend(bytes);
    }

    /// Returns the next frame if all of it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let rest = &self.buffer[self.consumed..];
        let Some((header, rest)) = rest.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let kind = header[0];
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > limit(kind)?.min(self.limit) {
            return Err(Malformed("too long"));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = decode(kind, payload)?;
        self.consumed += HEADER + length;
        Ok(Some(frame))
    }
}

fn limit(kind: u8) -> Result<usize, Malformed> {
    match kind {
        READY | STDIN | STDIN_END | COLLECTED => Ok(0),
        SIGNAL => Ok(2),
        TYPED_TAKEN | RESIZE => Ok(4),
        EXIT => Ok(3),
        TYPED | CHANNEL => Ok(MAX_PAYLOAD),
        START | COLLECT | OPEN => Ok(MAX_START),
        _ => Err(Malformed("unknown kind")),
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Frame, Malformed> {
    Ok(match kind {
        READY => Frame::Ready,
        START => Frame::Start(JobFrame::decode(payload)?),
        STDIN => Frame::Stdin,
        STDIN_END => Frame::StdinEnd,
        TYPED_TAKEN => Frame::TypedTaken(number(payload)?),
        TYPED => Frame::Typed(payload.to_vec()),
        RESIZE => Frame::Resize(WindowSize::of(number(payload)?)),
        SIGNAL => match *payload {
            [number @ 1..=64, flag @ 0..=1] => Frame::Signal(Signal {
                number,
                is_for_group: flag == 1,
            }),
            _ => return Err(Malformed("no such signal")),
        },
        EXIT => Frame::Exit(Exit::decode(payload)?),
        COLLECT => Frame::Collect(take_list(&mut &*payload)?),
        COLLECTED => Frame::Collected,
        OPEN | CHANNEL => {
            let mut rest = payload;
            let channel = take_u32(&mut rest)?;
            match kind {
                OPEN => Frame::Open(channel, Command::decode(rest)?),
                _ => Frame::Channel(channel, Message::decode(rest)?),
            }
        }
        _ => return Err(Malformed("unknown kind")),
    })
}

fn number(payload: &[u8]) -> Result<u32, Malformed> {
    let bytes = payload.try_into().map_err(|_| Malformed("too short"))?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::tests::{any_command, any_message};
    use proptest::prelude::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..2000);
        prop_oneof![
            Just(Frame::Ready),
            Just(Frame::Stdin),
            Just(Frame::StdinEnd),
            Just(Frame::Collected),
            proptest::collection::vec(bytes(), 0..4).prop_map(Frame::Collect),
            bytes().prop_map(Frame::Typed),
            any::<u32>().prop_map(|size| Frame::Resize(WindowSize::of(size))),
            any::<u32>().prop_map(Frame::TypedTaken),
            (1..=64u8, any::<bool>()).prop_map(|(number, is_for_group)| Frame::Signal(Signal {
                number,
                is_for_group
            })),
            any::<u8>().prop_map(|status| Frame::Exit(Exit::Exited(status))),
            any::<u8>().prop_map(|errno| Frame::Exit(Exit::NotStarted(errno))),
            (1..=64u8, any::<bool>()).prop_map(|(signal, out_of_memory)| Frame::Exit(
                Exit::Signaled {
                    signal,
                    out_of_memory
                }
            )),
            crate::job::tests::any_job().prop_map(Frame::Start),
            (any::<u32>(), any_command())
                .prop_map(|(number, command)| Frame::Open(number, command)),
            (any::<u32>(), any_message())
                .prop_map(|(number, message)| Frame::Channel(number, message)),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(
            frames in proptest::collection::vec(any_frame(), 0..8),
            piece in 1..700usize,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| encode(frame, &mut stream));
            let mut decoder = Decoder::with_limit(MAX_START);
            let mut seen = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_but_never_a_panic(bytes: Vec<u8>) {
            let mut decoder = Decoder::with_limit(MAX_START);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }

        /// Whatever length the peer claims, at most a frame is held, with the bytes that arrived
        /// with it.
        #[test]
        fn what_is_held_is_bounded(
            pieces in proptest::collection::vec(
                (1..14u8, any::<u32>(), 0..2 * MAX_PAYLOAD as u32), 1..8,
            ),
        ) {
            let mut decoder = Decoder::with_limit(MAX_PAYLOAD);
            for (kind, claim, length) in pieces {
                let mut bytes = vec![kind];
                bytes.extend((claim % (2 * MAX_PAYLOAD as u32)).to_le_bytes());
                bytes.resize(HEADER + length as usize, 0);
                decoder.push(&bytes);
                let result = loop {
                    match decoder.next_frame() {
                        Ok(Some(_)) => {}
                        other => break other,
                    }
                };
                if result.is_err() {
                    break;
                }
                let held = decoder.buffer.len() - decoder.consumed;
                prop_assert!(held < HEADER + MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_payload_arrives() {
        let mut decoder = Decoder::with_limit(MAX_START);
        decoder.push(&[TYPED, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(Malformed("too long")));
        let mut decoder = Decoder::with_limit(MAX_PAYLOAD);
        decoder.push(&[START, 1, 0, 1, 0]);
        assert_eq!(decoder.next_frame(), Err(Malformed("too long")));
    }
}
