//! The modes of a terminal that a program changes by what it writes (ECMA-48, xterm's control
//! sequences).

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vm_memory::mmap::MmapRegion;

/// Modes of DECSET, and whether a terminal has them before a program does anything.
const MODES: [(u16, bool); 15] = [
    // The alternate screen.
    (1049, false),
    (1047, false),
    (47, false),
    // Keys of the cursor send what applications want.
    (1, false),
    // Lines wrap.
    (7, true),
    // The cursor is seen.
    (25, true),
    // The mouse, and the focus of the window, are reported.
    (9, false),
    (1000, false),
    (1002, false),
    (1003, false),
    (1004, false),
    (1006, false),
    (1015, false),
    // What is pasted is marked.
    (2004, false),
    // Output is held back.
    (2026, false),
];
/// The bit after those of the modes: text has a colour or another style.
const STYLED: u32 = 1 << MODES.len();

/// The modes in which a terminal differs from a fresh one, where two processes see them: a bit each.
pub struct Shown(MmapRegion);

impl Shown {
    pub fn new() -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let region = MmapRegion::build(None, size_of::<AtomicU32>(), protection, flags);
        region.map(Self).context("sharing memory")
    }

    fn bits(&self) -> &AtomicU32 {
        // SAFETY: the region is larger, aligned to a page, and lives as long as `self`; it is only ever
        // accessed here.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().cast()) }
    }

    fn set(&self, bit: u32, is_set: bool) {
        match is_set {
            true => self.bits().fetch_or(bit, Ordering::Relaxed),
            false => self.bits().fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Returns what to write so that the terminal is as it was.
    pub fn back(&self) -> String {
        let bits = self.bits().load(Ordering::Relaxed);
        let mut text = String::new();
        for (index, (number, usual)) in MODES.iter().enumerate() {
            if bits & (1 << index) != 0 {
                let end = if *usual { 'h' } else { 'l' };
                text.push_str(&format!("\x1b[?{number}{end}"));
            }
        }
        if bits & STYLED != 0 {
            text.push_str("\x1b[0m");
        }
        text
    }
}

/// A reader of what a program writes, which notes the modes that it changes.
pub struct Modes {
    shown: Arc<Shown>,
    state: State,
}

/// The place in a control sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// After `ESC [`, with the bits of the modes that were named so far, and the last number.
    Sequence {
        is_private: bool,
        named: u32,
        number: u16,
    },
}

impl Modes {
    pub fn new(shown: Arc<Shown>) -> Self {
        Self {
            shown,
            state: State::Text,
        }
    }

    /// Reads what is written to the terminal, in pieces of any size.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.state == State::Text {
                let Some(start) = rest.iter().position(|&byte| byte == b'\x1b') else {
                    return;
                };
                rest = &rest[start..];
            }
            self.state = self.after(rest[0]);
            rest = &rest[1..];
        }
    }

    fn after(&self, byte: u8) -> State {
        const START: State = State::Sequence {
            is_private: false,
            named: 0,
            number: 0,
        };
        match (self.state, byte) {
            (_, b'\x1b') => State::Escape,
            (State::Escape, b'[') => START,
            (State::Escape, b'c') => {
                // A full reset.
                self.shown.bits().store(0, Ordering::Relaxed);
                State::Text
            }
            (
                State::Sequence {
                    is_private,
                    named,
                    number,
                },
                byte,
            ) => match byte {
                b'?' => State::Sequence {
                    is_private: true,
                    named,
                    number,
                },
                b'0'..=b'9' => State::Sequence {
                    is_private,
                    named,
                    number: number
                        .saturating_mul(10)
                        .saturating_add(u16::from(byte - b'0')),
                },
                b';' | b':' => State::Sequence {
                    is_private,
                    named: named | bit(number),
                    number: 0,
                },
                _ => {
                    self.end(byte, is_private, named | bit(number), number);
                    State::Text
                }
            },
            _ => State::Text,
        }
    }

    /// Notes what a sequence that ends with this byte does.
    fn end(&self, byte: u8, is_private: bool, named: u32, number: u16) {
        match byte {
            b'h' | b'l' if is_private => {
                for (index, (_, usual)) in MODES.iter().enumerate() {
                    if named & (1 << index) != 0 {
                        self.shown.set(1 << index, (byte == b'h') != *usual);
                    }
                }
            }
            b'm' if !is_private => self.shown.set(STYLED, number != 0),
            _ => {}
        }
    }
}

/// Returns the bit of the mode with this number.
fn bit(number: u16) -> u32 {
    let index = MODES.iter().position(|(mode, _)| *mode == number);
    index.map_or(0, |index| 1 << index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns what puts a terminal back after these pieces.
    fn back(pieces: &[&[u8]]) -> String {
        let shown = Arc::new(Shown::new().unwrap());
        let mut modes = Modes::new(Arc::clone(&shown));
        pieces.iter().for_each(|piece| modes.read(piece));
        shown.back()
    }

    #[test]
    fn modes_that_were_changed_are_put_back() {
        for (written, expected) in [
            ("hello\r\n", ""),
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?1049h\x1b[?1049l", ""),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?25l\x1b[?25h", ""),
            ("\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l"),
            ("\x1b[?2004h text", "\x1b[?2004l"),
            ("\x1b[31mred", "\x1b[0m"),
            ("\x1b[31mred\x1b[0m", ""),
            ("\x1b[1;31mred\x1b[m", ""),
            ("\x1b[?1049h\x1b[?25l\x1bc", ""),
            ("\x1b[25l\x1b[?99999999999h\x1b]0;title\x07", ""),
        ] {
            assert_eq!(back(&[written.as_bytes()]), expected, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn a_sequence_in_pieces_is_read_as_a_whole(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("\x1b[?1049h"), Just("\x1b[?1049l"), Just("\x1b[?25l"), Just("x"),
                    Just("\x1b["), Just("\x1b[1;2m"), Just("\x1b[m"), Just("?25h"), Just("\x1bc"),
                ],
                0..20,
            ),
            size in 1..9usize,
        ) {
            let text = words.concat();
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(back(&pieces), back(&[text.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            back(&[&bytes]);
        }
    }
}
