//! Hypercalls that no kernel would make (`vm::hypercall`).

use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{DATA, Guest, Images, MEMORY, Reg, SHARED, bytes};
use crate::machine::{self, Ends::*};
use crate::random::Random;
use crate::turn::{turn_of_all, watched};
use ::guest::hypercall::*;
use sandbox::internals::vm::layout::*;

/// The size of the output buffer, which JOB announces and FLUSH empties, and of its header.
const BUFFER: u64 = buffer::SIZE as u64;
const HEADER: u64 = buffer::HEADER as u64;
/// The hypercalls that move memory.
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
            name: "has its buffer anywhere, and lies about what it holds",
            guest: buffers,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "changes its buffer all the time",
            guest: changing_buffer,
            patience: STAYS,
            ends: &[Stays],
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

/// Returns an address outside the guest's own code, page tables and handlers, so that it goes on.
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
    for service in (0..RANDOM).chain(FLUSH + 1..=u8::MAX) {
        guest.ask(service, random.u8());
    }
    guest.survive()
}

/// Uses page tables of which only the first 512 GiB are valid.
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

/// Uses addresses in the runtime image. None of the hypercalls may have an effect.
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

/// Uses addresses that are not canonical. None of the hypercalls may have an effect: the addresses
/// are no other names for its page tables.
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

/// Goes past the end of memory. As much as fits must be done, and the rest left in RCX.
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
    use ::guest::stream::{EVENTS, REPORTS, STDERR, STDIN, STDOUT};
    let stream = match random.below(256) as u8 {
        STDOUT | STDERR | REPORTS | EVENTS => STDIN,
        stream => stream,
    };
    let registers = [(Reg::Rsi, DATA), (Reg::Rcx, random.u64()), (Reg::Rdi, 0)];
    guest.service(WRITE, stream, registers);
    guest.survive()
}

/// Announces a buffer.
fn have_buffer(guest: &mut Guest, address: u64) {
    let registers = [(Reg::Rdi, DATA), (Reg::Rsi, address), (Reg::Rcx, 0)];
    guest.service(JOB, 0, registers);
}

/// Writes a buffer's header: sent, filled, stream.
fn store_header(guest: &mut Guest, address: u64, header: [u32; 3]) {
    for (at, number) in (address..).step_by(4).zip(header) {
        guest.store(at, number);
    }
}

fn any_header(random: &mut Random) -> [u32; 3] {
    const LENGTH: u32 = (BUFFER - HEADER) as u32;
    let any = random.u64() as u32;
    let near = [0, 1, 1000, LENGTH - 1, LENGTH, LENGTH + 1, u32::MAX, any];
    let stream = random.one_of(&[1, 2, 1, 2, 0, 3, 5, 0x101, any]);
    [random.one_of(&near), random.one_of(&near), stream]
}

fn buffers(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    for _ in 0..16 {
        let anywhere = harmless(random);
        let near_the_end = MEMORY - HEADER - random.below(2 * BUFFER);
        let address = random.one_of(&[DATA, near_the_end, anywhere]);
        have_buffer(&mut guest, address);
        if address < MEMORY - HEADER {
            store_header(&mut guest, address, any_header(random));
        }
        guest.ask(FLUSH, random.u8());
    }
    guest.survive()
}

fn changing_buffer(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    have_buffer(&mut guest, DATA);
    let headers: Vec<_> = (0..8).map(|_| any_header(random)).collect();
    guest.forever(|guest| {
        for header in headers {
            store_header(guest, DATA, header);
        }
    });
    guest.images()
}

/// Checks the buffer of a guest that never flushes it: its bytes are taken if all of them are in
/// memory.
pub fn buffer_of_a_stopped_guest() {
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let last = MEMORY - BUFFER;
    for (address, header, told) in [
        (DATA, [0, 1000, 1], [1000, 0]),
        (DATA + 1, [999, 1000, 2], [0, 1]),
        (last, [0, (BUFFER - HEADER) as u32, 1], [BUFFER - HEADER, 0]),
        (last, [0, (BUFFER - HEADER) as u32 + 1, 1], [0, 0]),
        (last, [u32::MAX, 1, 1], [0, 0]),
        (last, [0, 1000, 3], [0, 0]),
        (last + 1, [0, 1, 1], [0, 0]),
        (MEMORY - HEADER, [0, 1, 1], [0, 0]),
    ] {
        let mut guest = Guest::new();
        have_buffer(&mut guest, address);
        store_header(&mut guest, address, header);
        let images = guest.spin();
        let report = watched("a buffer", 2 * ENDS, || machine::run(&images, STAYS, ENDS));
        assert!(Stays.covers(&report.end), "{}", report.end);
        let totals = report.output.map(|of| of.total);
        assert_eq!(totals, told, "{header:?} at {address:#x}");
        assert_eq!(report.output.map(|of| of.delivered), told);
    }
    for nowhere in [MEMORY - 1, MEMORY, RUNTIME, VSOCK_MMIO, u64::MAX] {
        let mut guest = Guest::new();
        have_buffer(&mut guest, nowhere);
        let images = guest.spin();
        let report = watched("no buffer", 2 * ENDS, || machine::run(&images, STAYS, ENDS));
        assert!(Stays.covers(&report.end), "{}", report.end);
        assert_eq!(report.output.map(|of| of.total), [0, 0], "{nowhere:#x}");
    }
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
            (Reg::Rdx, HYPERCALL_PORT.into()),
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
