//! The services that we do in a guest kernel's place, asked for by no kernel (`vm::services`).

use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{DATA, Guest, Images, MEMORY, Reg, SHARED, bytes};
use crate::machine::Ends::*;
use crate::random::Random;
use sandbox::layout::*;

const RANDOM: u8 = 2;
const WRITE: u8 = 3;
const JOB: u8 = 4;
const EXIT: u8 = 5;
const STDIN: u8 = 6;
const FILES: u8 = 7;
const NO_FILES: u8 = 8;
/// Those that move memory.
const MOVES: [u8; 4] = [RANDOM, WRITE, JOB, FILES];

pub const FAMILY: Family = Family {
    name: "services",
    behaviours: &[
        Behaviour {
            name: "asks for services at any address, of any length",
            guest: anywhere,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "asks for services that there are not",
            guest: unknown,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "asks for services with page tables of anything",
            guest: page_tables,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "has the runtime image written to",
            guest: write_to_the_image,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "names addresses that no table translates",
            guest: not_canonical,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "asks for services over the end of its memory",
            guest: over_the_end,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "asks for its job, its files and its input again and again",
            guest: again,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "writes to streams that there are not",
            guest: streams,
            patience: ENDS,
            ends: &[Breaks("output to stream")],
        },
        Behaviour {
            name: "says how a program ended that it never had",
            guest: results,
            patience: ENDS,
            ends: &[Exits(3), NoFiles],
        },
        Behaviour {
            name: "asks with strings and with any width",
            guest: widths,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "fills all of its memory all the time",
            guest: flood,
            patience: STAYS,
            ends: &[Stays],
        },
    ],
    peak: 72 << 20,
};

fn stream(random: &mut Random) -> u8 {
    random.one_of(&[::guest::stream::STDOUT, ::guest::stream::STDERR])
}

/// Not its own code, page tables and handlers: it is to go on.
fn harmless(random: &mut Random) -> u64 {
    match random.address() {
        address if address < DATA => MEMORY - 1 - address % 4096,
        address => address,
    }
}

fn anywhere(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for _ in 0..16 {
        let length = match random.below(3) {
            0 => random.u64(),
            _ => random.u64() >> random.below(64),
        };
        let registers = [
            (Reg::Rdi, harmless(random)),
            (Reg::Rsi, random.address()),
            (Reg::Rcx, length),
        ];
        let service = random.one_of(&MOVES);
        guest.service(service, stream(random), registers);
    }
    guest.survive()
}

fn unknown(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for service in (0..RANDOM).chain(NO_FILES + 1..=u8::MAX) {
        guest.ask(service, random.u8());
    }
    guest.survive()
}

/// Of which only the first 512 GiB are as they should be.
fn page_tables(random: &mut Random) -> Images {
    let tables = DATA + 0x1_0000;
    let mut entries: Vec<_> = (0..4 * 512)
        .map(|_| {
            let target = match random.below(3) {
                0 => tables + random.below(4) * 4096,
                1 => DATA + 0x10_0000 + random.below(256) * 4096,
                _ => harmless(random) & 0x000f_ffff_ffff_f000,
            };
            target | random.below(0x100) | random.below(4)
        })
        .collect();
    entries[0] = BOOT_PDPT | SHARED;
    let mut guest = Guest::new();
    guest.put(tables, bytes(entries));
    guest.mov(Reg::Rax, tables);
    guest.raw(&[0x0f, 0x22, 0xd8]); // mov cr3, rax
    for _ in 0..16 {
        let above = |random: &mut Random| random.u64() | 1 << 40;
        let registers = [
            (Reg::Rdi, above(random)),
            (Reg::Rsi, above(random)),
            (Reg::Rcx, random.below(0x10_0000)),
        ];
        let service = random.one_of(&[RANDOM, WRITE]);
        guest.service(service, stream(random), registers);
    }
    guest.survive()
}

/// None of it is done.
fn write_to_the_image(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for _ in 0..3 {
        let length = 1 + random.below(0x1000);
        let registers = [
            (Reg::Rdi, RUNTIME + random.below(RUNTIME_ALIGNMENT)),
            (Reg::Rsi, DATA),
            (Reg::Rcx, length),
        ];
        guest.service(RANDOM, random.u8(), registers);
        guest.require(Reg::Rcx, length);
    }
    guest.survive()
}

/// None of it is done: they are no other names for its page tables.
fn not_canonical(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for service in [RANDOM, WRITE] {
        let length = 1 + random.below(0x1_0000);
        let address = 1 << (48 + random.below(16)) | random.below(MEMORY);
        let registers = [(Reg::Rdi, address), (Reg::Rsi, address), (Reg::Rcx, length)];
        guest.service(service, stream(random), registers);
        guest.require(Reg::Rcx, length);
    }
    guest.survive()
}

/// What fits is done, and the rest left in RCX.
fn over_the_end(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for service in [RANDOM, WRITE] {
        let (inside, outside) = (1 + random.below(9000), 1 + random.below(9000));
        let registers = [
            (Reg::Rdi, MEMORY - inside),
            (Reg::Rsi, MEMORY - inside),
            (Reg::Rcx, inside + outside),
        ];
        guest.service(service, stream(random), registers);
        guest.require(Reg::Rcx, outside);
    }
    guest.survive()
}

fn again(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.repeat(200, |guest| {
        for _ in 0..8 {
            let registers = [(Reg::Rdi, DATA), (Reg::Rsi, DATA), (Reg::Rcx, random.u64())];
            let service = random.one_of(&[JOB, FILES, STDIN]);
            guest.service(service, random.u8(), registers);
        }
    });
    guest.survive()
}

fn streams(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let stream = match random.below(256) as u8 {
        ::guest::stream::STDOUT | ::guest::stream::STDERR => ::guest::stream::STDIN,
        stream => stream,
    };
    let registers = [(Reg::Rsi, DATA), (Reg::Rcx, random.u64()), (Reg::Rdi, 0)];
    guest.service(WRITE, stream, registers);
    guest.survive()
}

fn results(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let service = random.one_of(&[EXIT, NO_FILES]);
    guest.ask(service, 3);
    guest.survive()
}

fn widths(random: &mut Random) -> Images {
    const INSTRUCTIONS: [&[u8]; 6] = [
        &[0xef],             // out dx, eax
        &[0x66, 0xef],       // out dx, ax
        &[0xed],             // in eax, dx
        &[0xec],             // in al, dx
        &[0xf3, 0x6e],       // rep outsb
        &[0xf3, 0x66, 0x6f], // rep outsw
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..8 {
        for (register, value) in [
            (Reg::Rdx, HOST_SERVICES_PORT.into()),
            (Reg::Rdi, DATA),
            (Reg::Rsi, DATA),
            (Reg::Rcx, random.below(100)),
            (Reg::Rax, RANDOM.into()),
        ] {
            guest.mov(register, value);
        }
        guest.attempt(random.one_of(&INSTRUCTIONS));
    }
    guest.survive()
}

fn flood(_: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.forever(|guest| {
        let registers = [
            (Reg::Rdi, DATA),
            (Reg::Rsi, DATA),
            (Reg::Rcx, MEMORY - DATA),
        ];
        guest.service(RANDOM, 0xff, registers);
    });
    guest.images()
}
