//! Accesses to memory: to all of it, to addresses without memory, and to read-only memory.

use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{DATA, Guest, Images, MEMORY, Reg, bytes};
use crate::machine::{Ends::*, RUNTIME_CONTENT};
use crate::random::Random;
use sandbox::internals::vm::layout::*;

pub const FAMILY: Family = Family {
    name: "memory",
    behaviours: &[
        Behaviour {
            name: "touches all of it",
            guest: touch,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "writes to the runtime image",
            guest: write_to_the_image,
            patience: ENDS,
            ends: &[Survives, TripleFault, Unsupported, LeavesKvm],
        },
        Behaviour {
            name: "lets KVM write its clocks and flags anywhere",
            guest: shared_pages,
            patience: ENDS,
            // Its page tables are among the places.
            ends: &[Survives, TripleFault, Unsupported],
        },
        Behaviour {
            name: "has its page tables anywhere",
            guest: page_tables,
            patience: STAYS,
            ends: &[Survives, Stays, TripleFault, Unsupported, LeavesKvm],
        },
        Behaviour {
            name: "has its descriptor tables anywhere",
            guest: descriptor_tables,
            patience: STAYS,
            ends: &[Survives, Stays, TripleFault, Unsupported, LeavesKvm],
        },
        Behaviour {
            name: "copies and fills without end",
            guest: strings,
            patience: STAYS,
            // Where it fills its own code, it may come to its last instruction without the one before.
            ends: &[Survives, Stays, TripleFault, Halts, Unsupported, LeavesKvm],
        },
    ],
    peak: 72 << 20,
};

fn touch(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let read_first = random.below(2) == 0;
    guest.mov(Reg::Rdi, DATA);
    guest.repeat((MEMORY - DATA) / 4096, |guest| {
        if read_first {
            guest.raw(&[0x48, 0x8b, 0x07]); // mov rax, [rdi]
        }
        guest.raw(&[0x48, 0x89, 0x3f]); // mov [rdi], rdi
        guest.raw(&[0x48, 0x81, 0xc7, 0, 0x10, 0, 0]); // add rdi, 4096
    });
    guest.survive()
}

/// Writes to the runtime image, which must read as before, in the guest and on the host.
fn write_to_the_image(random: &mut Random) -> Images {
    const WRITES: [&[u8]; 9] = [
        &[0x88, 0x07],                   // mov [rdi], al
        &[0x48, 0x89, 0x07],             // mov [rdi], rax
        &[0x48, 0x87, 0x07],             // xchg [rdi], rax
        &[0xf0, 0x48, 0x0f, 0xb1, 0x0f], // lock cmpxchg [rdi], rcx
        &[0xf0, 0x48, 0xff, 0x07],       // lock inc qword ptr [rdi]
        &[0x48, 0x09, 0x07],             // or [rdi], rax
        &[0xf3, 0x48, 0xab],             // rep stosq
        &[0xf3, 0x48, 0xa5],             // rep movsq
        &[0x48, 0x89, 0xfc, 0x50],       // mov rsp, rdi; push rax
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..8 {
        let address = RUNTIME + 16 * random.below(RUNTIME_ALIGNMENT / 16);
        guest.mov(Reg::Rdi, address);
        guest.mov(Reg::Rsi, DATA);
        guest.mov(Reg::Rcx, random.below(64));
        guest.mov(Reg::Rax, random.u64());
        guest.attempt(random.one_of(&WRITES));
        guest.mov(Reg::Rdi, address);
        guest.raw(&[0x48, 0x8b, 0x07]); // mov rax, [rdi]
        let (content, _) = RUNTIME_CONTENT.split_at(8);
        let content = content.try_into().expect("eight bytes");
        guest.require(Reg::Rax, u64::from_le_bytes(content));
    }
    guest.survive()
}

/// Uses the MSRs by which a guest names a page that KVM writes to
/// (Documentation/virt/kvm/x86/msr.rst).
fn shared_pages(random: &mut Random) -> Images {
    const MSRS: [u64; 10] = [
        0x11,
        0x12,
        0x4b56_4d00,
        0x4b56_4d01,
        0x4b56_4d02,
        0x4b56_4d03,
        0x4b56_4d04,
        0x4b56_4d05,
        0x4b56_4d06,
        0x4b56_4d07,
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..16 {
        let value = random.address() | random.below(2);
        guest.mov(Reg::Rcx, random.one_of(&MSRS));
        guest.mov(Reg::Rax, value & 0xffff_ffff);
        guest.mov(Reg::Rdx, value >> 32);
        guest.attempt(&[0x0f, 0x30]); // wrmsr
        // Comes back to us, so that KVM enters the guest anew and writes.
        guest.input(0, 1);
    }
    guest.survive()
}

/// Makes page-table entries that point at anything, often at a table of such entries.
fn page_tables(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    let tables = DATA + 0x1_0000;
    let entries = (0..4 * 512).map(|_| {
        let target = match random.below(3) {
            0 => tables + random.below(4) * 4096,
            _ => random.address() & 0x000f_ffff_ffff_f000,
        };
        target | random.below(0x100) | 1
    });
    guest.put(tables, bytes(entries));
    let root = match random.below(3) {
        0 => random.address() & !0xfff,
        _ => tables + random.below(4) * 4096,
    };
    guest.mov(Reg::Rax, root);
    guest.attempt(&[0x0f, 0x22, 0xd8]); // mov cr3, rax
    guest.survive()
}

fn descriptor_tables(random: &mut Random) -> Images {
    const LOADS: [&[u8]; 2] = [
        &[0x0f, 0x01, 0x17], // lgdt [rdi]
        &[0x0f, 0x01, 0x1f], // lidt [rdi]
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    let mut pointer = random.u16().to_le_bytes().to_vec();
    pointer.extend(random.address().to_le_bytes());
    guest.put(DATA, pointer);
    guest.mov(
        Reg::Rdi,
        if random.below(4) == 0 {
            random.address()
        } else {
            DATA
        },
    );
    guest.attempt(random.one_of(&LOADS));
    guest.mov(Reg::Rax, random.below(0x1_0000));
    guest.attempt(&[0x8e, 0xd8]); // mov ds, eax
    guest.attempt(&[0x0f, 0x0b]); // ud2
    guest.survive()
}

fn strings(random: &mut Random) -> Images {
    const STRINGS: [&[u8]; 4] = [
        &[0xf3, 0xaa],       // rep stosb
        &[0xf3, 0x48, 0xab], // rep stosq
        &[0xf3, 0xa4],       // rep movsb
        &[0xf3, 0x48, 0xa5], // rep movsq
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    let (from, to) = (random.address(), random.address());
    guest.mov(Reg::Rsi, random.one_of(&[DATA, MEMORY - 64, from]));
    guest.mov(Reg::Rdi, random.one_of(&[DATA, MEMORY - 64, to]));
    guest.mov(Reg::Rcx, random.one_of(&[1 << 63, u64::MAX, 1 << 32, 1000]));
    guest.attempt(random.one_of(&STRINGS));
    guest.survive()
}
