//! A terminal, as the program gets it.

use crate::bytes::{Malformed, put_u32, take_u32};

/// The terminal of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// The standard streams that are on it: a bit each, 1 << 0 for standard input.
    pub streams: u32,
    pub size: WindowSize,
}

/// The size of a terminal's window, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

impl Terminal {
    /// The path in the guest, where each program has a terminal whether it uses it or not.
    pub const PATH: &str = "/dev/pts/0";

    /// Returns whether the standard stream with this number is on it.
    pub fn has(self, stream: u8) -> bool {
        self.streams & (1 << stream) != 0
    }

    /// Encodes the terminal, or that there is none.
    pub(crate) fn encode(terminal: Option<Self>, out: &mut Vec<u8>) {
        let streams = terminal.map_or(0, |terminal| terminal.streams);
        let size = terminal.map_or(0, |terminal| terminal.size.number());
        put_u32(out, streams);
        put_u32(out, size);
    }

    pub(crate) fn decode(rest: &mut &[u8]) -> Result<Option<Self>, Malformed> {
        let (streams, size) = (take_u32(rest)?, take_u32(rest)?);
        match (streams, size) {
            (0, 0) => Ok(None),
            (1..=7, size) => Ok(Some(Self {
                streams,
                size: WindowSize::of(size),
            })),
            _ => Err(Malformed("no such terminal")),
        }
    }
}

impl WindowSize {
    /// Returns both numbers in one: the rows are its low half.
    pub(crate) fn number(self) -> u32 {
        u32::from(self.columns) << 16 | u32::from(self.rows)
    }

    pub(crate) fn of(number: u32) -> Self {
        Self {
            rows: number as u16,
            columns: (number >> 16) as u16,
        }
    }
}
