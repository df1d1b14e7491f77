//! The output of a guest: on its console, of its program, and from its agent.

use crate::driver::*;
use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{DATA, Guest, Images, Reg};
use crate::machine::{self, CONSOLE_MAX, Ends::*, OUTPUT_MAX};
use crate::process::Footprint;
use crate::random::Random;
use crate::turn::{turn_of_all, watched};
use ::guest::hypercall::WRITE;
use ::guest::{Exit, Frame, encode, stream};
use sandbox::internals::vm::layout::SERIAL_PORT;

/// The bytes by which the process may grow for any amount of output.
const PEAK: u64 = 8 << 20;

pub const FAMILY: Family = Family {
    name: "output",
    behaviours: &[
        Behaviour {
            name: "writes escape sequences to its console",
            guest: escapes,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "writes to its console all the time",
            guest: console_flood,
            patience: STAYS,
            ends: &[Stays],
        },
        Behaviour {
            name: "writes output all the time, of a program that never started",
            guest: output_flood,
            patience: STAYS,
            ends: &[Stays],
        },
        Behaviour {
            name: "says that a frame is longer than it may be",
            guest: long_frames,
            patience: ENDS,
            ends: &[Breaks("malformed frame: too long")],
        },
        Behaviour {
            name: "sends frames that there are not",
            guest: unknown_frames,
            patience: ENDS,
            ends: &[Breaks("malformed frame")],
        },
        Behaviour {
            name: "sends frames out of turn",
            guest: out_of_turn,
            patience: ENDS,
            ends: &[Breaks("out of turn")],
        },
        Behaviour {
            name: "took input that it was never given",
            guest: input,
            patience: ENDS,
            ends: &[Breaks("input taken that was never sent")],
        },
        Behaviour {
            name: "says twice how its program ended",
            guest: two_results,
            patience: ENDS,
            ends: &[Exits(1)],
        },
        Behaviour {
            name: "says nothing more once it has its program",
            guest: silence,
            patience: STAYS,
            ends: &[TimesOut],
        },
        Behaviour {
            name: "sends frames all the time",
            guest: frame_flood,
            patience: STAYS,
            ends: &[TimesOut],
        },
        Behaviour {
            name: "sends random bytes for frames",
            guest: random_frames,
            patience: STAYS,
            ends: &[
                Breaks("malformed frame"),
                Breaks("out of turn"),
                Breaks("input taken"),
                TimesOut,
                Stays,
            ],
        },
    ],
    peak: PEAK,
};

/// Checks that 10 GiB of a program's output are delivered up to its limit, and counted to the end.
pub fn ten_gib() {
    const PIECE: u64 = 1 << 20;
    const PIECES: u64 = 10 << 10;
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut guest = Guest::new();
    guest.repeat(PIECES, |guest| {
        let where_and_how_much = [(Reg::Rsi, DATA), (Reg::Rcx, PIECE), (Reg::Rdi, 0)];
        guest.service(WRITE, stream::STDOUT, where_and_how_much);
    });
    let images = guest.survive();
    let before = Footprint::take();
    let report = watched("10 GiB of output", 5 * ENDS, || {
        machine::run(&images, ENDS, 2 * ENDS)
    });
    assert!(Survives.covers(&report.end), "{}", report.end);
    assert_eq!(report.output[0].total, PIECE * PIECES);
    assert_eq!(report.output[0].delivered, OUTPUT_MAX);
    Footprint::take().assert_as_before(&before, PEAK);
}

/// Writes more than is kept of a console.
pub fn full_console() {
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut guest = Guest::new();
    guest.mov(Reg::Rdx, SERIAL_PORT.into());
    guest.mov(Reg::Rax, b'x'.into());
    guest.repeat(CONSOLE_MAX as u64 + 100, |guest| guest.raw(&[0xee])); // out dx, al
    guest.out(SERIAL_PORT, 1, b'!'.into());
    let images = guest.survive();
    let report = watched("a full console", 2 * ENDS, || {
        machine::run(&images, ENDS, ENDS)
    });
    assert!(Survives.covers(&report.end), "{}", report.end);
    assert_eq!(report.console.len(), CONSOLE_MAX);
    assert_eq!(report.console.last(), Some(&b'!'));
}

fn escapes(random: &mut Random) -> Images {
    const PIECES: [&[u8]; 10] = [
        b"\x1b]0;a title\x07",
        b"\x1b[2J\x1b[H",
        b"\x1b[6n",
        b"\x9b31m",
        b"\xc2\x9b31m",
        b"\xff\xfe\x80",
        b"\r\0\x08\x7f\x0e",
        "\u{202e}\u{2066}\u{200b}".as_bytes(),
        b"a word\n",
        b"\n",
    ];
    let mut guest = Guest::new();
    for _ in 0..40 {
        let piece = match random.below(8) {
            0 => vec![random.u8()],
            _ => random.one_of(&PIECES).to_vec(),
        };
        for byte in piece {
            guest.out(SERIAL_PORT, 1, byte.into());
        }
    }
    guest.survive()
}

fn console_flood(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.mov(Reg::Rdx, SERIAL_PORT.into());
    guest.mov(Reg::Rax, random.u64());
    guest.forever(|guest| guest.raw(&[0xee])); // out dx, al
    guest.images()
}

fn output_flood(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let stream = random.one_of(&[stream::STDOUT, stream::STDERR]);
    let length = random.one_of(&[0, 1, 4097, 1 << 20, u64::MAX]);
    guest.forever(|guest| {
        let where_and_how_much = [(Reg::Rsi, DATA), (Reg::Rcx, length), (Reg::Rdi, 0)];
        guest.service(WRITE, stream, where_and_how_much);
    });
    guest.images()
}

/// Makes a guest whose agent sends these bytes on an open connection.
fn saying(bytes: &[u8]) -> Guest {
    let mut packets = vec![Packet::new(REQUEST, &[])];
    packets.extend(
        bytes
            .chunks(1000)
            .map(|piece| Packet::new(READ_WRITE, piece)),
    );
    talking(&packets)
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| encode(frame, &mut bytes));
    bytes
}

fn long_frames(random: &mut Random) -> Images {
    const LIMITS: [(u8, u32); 6] = [(1, 0), (2, 65_536), (3, 0), (4, 0), (5, 4), (6, 3)];
    let (kind, limit) = random.one_of(&LIMITS);
    let length = random.one_of(&[limit + 1, u32::MAX, 1 << 31]);
    let mut bytes = vec![kind];
    bytes.extend(length.to_le_bytes());
    saying(&bytes).survive()
}

fn unknown_frames(random: &mut Random) -> Images {
    let mut bytes = match random.below(2) {
        0 => frames(&[Frame::Ready]),
        _ => Vec::new(),
    };
    bytes.push(9 + random.below(247) as u8);
    bytes.extend([0; 4]);
    saying(&bytes).survive()
}

fn out_of_turn(random: &mut Random) -> Images {
    let exit = Frame::Exit(Exit::Exited(1));
    let bytes = match random.below(6) {
        0 => frames(&[Frame::Ready, Frame::Ready]),
        1 => frames(&[exit]),
        2 => frames(&[Frame::TypedTaken(0)]),
        3 => frames(&[Frame::Ready, Frame::StdinEnd]),
        4 => frames(&[Frame::Ready, Frame::Stdin]),
        _ => frames(&[Frame::Ready, Frame::Start(guest::JobFrame::default())]),
    };
    saying(&bytes).survive()
}

fn input(random: &mut Random) -> Images {
    let taken = 1 + random.below(u32::MAX.into()) as u32;
    saying(&frames(&[Frame::Ready, Frame::TypedTaken(taken)])).survive()
}

fn two_results(_: &mut Random) -> Images {
    let exits = [1, 2].map(|status| Frame::Exit(Exit::Exited(status)));
    let [first, second] = exits;
    saying(&frames(&[Frame::Ready, first, second])).survive()
}

/// Sends a part of a frame that never ends, or nothing.
fn silence(random: &mut Random) -> Images {
    let mut bytes = frames(&[Frame::Ready]);
    let exit = frames(&[Frame::Exit(Exit::Exited(1))]);
    bytes.extend(&exit[..random.below(exit.len() as u64) as usize]);
    saying(&bytes).spin()
}

/// Sends the same packet again and again.
fn frame_flood(random: &mut Random) -> Images {
    let count = 1 + random.below(6000) as usize;
    let flood = frames(&vec![Frame::TypedTaken(0); count]);
    let packets = [
        Packet::new(REQUEST, &[]),
        Packet::new(READ_WRITE, &frames(&[Frame::Ready])),
        Packet::new(READ_WRITE, &flood),
    ];
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &packets);
    // Every head but the first two.
    transmit.heads.resize(256, 2);
    let receive = receiving(256, 64);
    start(&mut guest, &receive, &transmit);
    guest.forever(|guest| {
        notify(guest, TRANSMIT);
        for ring in [transmit.available, receive.available] {
            guest.mov(Reg::Rdi, ring + 2);
            guest.raw(&[0x66, 0xff, 0x07]); // inc word ptr [rdi]
        }
        guest.store(transmit.available + 4, 0x0002_0002);
    });
    guest.images()
}

fn random_frames(random: &mut Random) -> Images {
    let mut bytes = match random.below(2) {
        0 => frames(&[Frame::Ready]),
        _ => Vec::new(),
    };
    for _ in 0..random.below(20) {
        bytes.push(random.below(8) as u8);
        bytes.extend((random.below(8) as u32).to_le_bytes());
        bytes.extend(random.bytes(4));
    }
    saying(&bytes).spin()
}
