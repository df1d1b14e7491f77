//! Channels: processes beside the program, each with a number that no other one gets.

use crate::bytes::{Malformed, put_bytes, put_list, put_u32, take_bytes, take_list, take_u32};
use crate::exit::Exit;
use crate::hypercall::stream;
use crate::terminal::WindowSize;

/// The words of commands that the agent carries out itself, in a process of their user's.
pub mod files {
    /// The first word, which is no name of a program.
    pub const MOVE: &[u8] = b"";
    /// Makes files that come on standard input ([`crate::Header`]).
    pub const PUT: &[u8] = b"put";
    /// Sends the files at the paths that follow, named by their numbers, on standard output.
    pub const GET: &[u8] = b"get";
}

/// A command to run beside the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments, as for execve(2). The program is found through PATH.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, as `NAME=value`.
    pub env: Vec<Vec<u8>>,
    /// The working directory, as an absolute path.
    pub workdir: Vec<u8>,
    /// The name or the number of its user.
    pub user: Vec<u8>,
    /// Whether that may be root.
    pub root: bool,
    /// Whether it has a third output, the descriptor 3, for records ([`crate::report`]).
    pub reports: bool,
    /// The size of its terminal, which all its standard streams are on, if it has one.
    pub terminal: Option<WindowSize>,
}

/// A message on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From the host: bytes for standard input, no more under way than [`crate::CHANNEL_WINDOW`].
    Input(Vec<u8>),
    /// From the host: there is no more standard input.
    InputEnd,
    /// From the host: so many bytes of output were taken, and as many more may come.
    OutputTaken(u32),
    /// From the host: a signal for the command's process group.
    Signal(u8),
    /// From the host: the window of its terminal has this size now.
    Resize(WindowSize),
    /// From the guest: bytes of a standard stream, or of reports, no more under way than [`crate::CHANNEL_WINDOW`].
    Output { stream: u8, bytes: Vec<u8> },
    /// From the guest: so many bytes of standard input were passed on.
    InputTaken(u32),
    /// From the guest: the command has ended, and so has the channel.
    Ended(Exit),
}

const INPUT: u8 = 1;
const INPUT_END: u8 = 2;
const OUTPUT_TAKEN: u8 = 3;
const SIGNAL: u8 = 4;
const RESIZE: u8 = 5;
const OUTPUT: u8 = 6;
const INPUT_TAKEN: u8 = 7;
const ENDED: u8 = 8;

impl Command {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_list(out, &self.argv);
        put_list(out, &self.env);
        put_bytes(out, &self.workdir);
        put_bytes(out, &self.user);
        put_u32(out, self.root.into());
        put_u32(out, self.reports.into());
        put_u32(out, self.terminal.is_some().into());
        put_u32(out, self.terminal.map_or(0, WindowSize::number));
    }

    pub(crate) fn decode(mut rest: &[u8]) -> Result<Self, Malformed> {
        let rest = &mut rest;
        let command = Self {
            argv: take_list(rest)?,
            env: take_list(rest)?,
            workdir: take_bytes(rest)?,
            user: take_bytes(rest)?,
            root: take_u32(rest)? != 0,
            reports: take_u32(rest)? != 0,
            terminal: match (take_u32(rest)?, take_u32(rest)?) {
                (0, _) => None,
                (_, size) => Some(WindowSize::of(size)),
            },
        };
        match rest.is_empty() {
            true => Ok(command),
            false => Err(Malformed("bytes left over")),
        }
    }
}

impl Message {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Input(bytes) => {
                out.push(INPUT);
                out.extend(bytes);
            }
            Self::InputEnd => out.push(INPUT_END),
            Self::OutputTaken(count) => number(OUTPUT_TAKEN, *count, out),
            Self::Signal(signal) => out.extend([SIGNAL, *signal]),
            Self::Resize(size) => number(RESIZE, size.number(), out),
            Self::Output { stream, bytes } => {
                out.extend([OUTPUT, *stream]);
                out.extend(bytes);
            }
            Self::InputTaken(count) => number(INPUT_TAKEN, *count, out),
            Self::Ended(exit) => {
                out.push(ENDED);
                out.extend(exit.encode());
            }
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let Some((&kind, mut rest)) = payload.split_first() else {
            return Err(Malformed("too short"));
        };
        let message = match (kind, rest) {
            (INPUT, bytes) => return Ok(Self::Input(bytes.into())),
            (
                OUTPUT,
                &[
                    stream @ (stream::STDOUT | stream::STDERR | stream::REPORTS),
                    ref bytes @ ..,
                ],
            ) if !bytes.is_empty() => {
                return Ok(Self::Output {
                    stream,
                    bytes: bytes.into(),
                });
            }
            (SIGNAL, &[number @ 1..=64]) => return Ok(Self::Signal(number)),
            (ENDED, exit) => return Ok(Self::Ended(Exit::decode(exit)?)),
            (INPUT_END, _) => Self::InputEnd,
            (OUTPUT_TAKEN, _) => Self::OutputTaken(take_u32(&mut rest)?),
            (RESIZE, _) => Self::Resize(WindowSize::of(take_u32(&mut rest)?)),
            (INPUT_TAKEN, _) => Self::InputTaken(take_u32(&mut rest)?),
            _ => return Err(Malformed("no such message on a channel")),
        };
        match rest.is_empty() {
            true => Ok(message),
            false => Err(Malformed("bytes left over")),
        }
    }
}

fn number(kind: u8, number: u32, out: &mut Vec<u8>) {
    out.push(kind);
    put_u32(out, number);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    pub(crate) fn any_command() -> impl Strategy<Value = Command> {
        let bytes = || vec(any::<u8>(), 0..40);
        let words = || vec(bytes(), 0..6);
        let size = proptest::option::of(any::<u32>().prop_map(WindowSize::of));
        let flags = (any::<bool>(), any::<bool>());
        (words(), words(), bytes(), bytes(), flags, size).prop_map(
            |(argv, env, workdir, user, (root, reports), terminal)| Command {
                argv,
                env,
                workdir,
                user,
                root,
                reports,
                terminal,
            },
        )
    }

    pub(crate) fn any_message() -> impl Strategy<Value = Message> {
        let bytes = || vec(any::<u8>(), 1..2000);
        prop_oneof![
            bytes().prop_map(Message::Input),
            Just(Message::InputEnd),
            any::<u32>().prop_map(Message::OutputTaken),
            (1..=64u8).prop_map(Message::Signal),
            any::<u32>().prop_map(|size| Message::Resize(WindowSize::of(size))),
            (1..=2u8, bytes()).prop_map(|(stream, bytes)| Message::Output { stream, bytes }),
            any::<u32>().prop_map(Message::InputTaken),
            any::<u8>().prop_map(|status| Message::Ended(Exit::Exited(status))),
        ]
    }

    #[test]
    fn output_of_no_stream_or_without_bytes_is_no_message() {
        for payload in [
            &[][..],
            &[OUTPUT],
            &[OUTPUT, 1],
            &[OUTPUT, 0, 7],
            &[OUTPUT, 3, 7],
            &[SIGNAL, 0],
            &[SIGNAL, 65],
            &[ENDED, 0, 0],
            &[INPUT_END, 0],
            &[INPUT_TAKEN, 1, 2, 3, 4, 5],
            &[9],
        ] {
            assert!(Message::decode(payload).is_err(), "{payload:?}");
        }
    }
}
