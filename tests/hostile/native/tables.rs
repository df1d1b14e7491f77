//! The kernel's page tables, descriptor tables, stacks and control registers.

use super::parts::*;
use crate::guest::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

/// Uses tables that user mode may not use, which makes the guest fault forever.
pub fn private_tables(random: &mut Random) -> Images {
    const PRIVATE: u64 = 3;
    let mut guest = native(random);
    let entry = random.one_of(&[0_u64, 1, 2]);
    let tables = DATA + 0x1_0000;
    let rights = |level| if level == entry { PRIVATE } else { SHARED };
    guest.put(tables, bytes([(tables + 0x1000) | rights(0)]));
    guest.put(tables + 0x1000, bytes([(tables + 0x2000) | rights(1)]));
    let pages = (0..512).map(|i| i << 21 | 0x80 | rights(2));
    guest.put(tables + 0x2000, bytes(pages));
    match random.below(2) {
        0 => hypercall(&mut guest, SET_CR3, [tables, 0, 0]),
        _ => {
            guest.mov(Reg::Rax, tables);
            guest.attempt(&[0x0f, 0x22, 0xd8]); // mov cr3, rax
        }
    }
    guest.survive()
}

pub fn user_tables(random: &mut Random) -> Images {
    let mut guest = usual(random);
    switch(&mut guest, CELL | flags(random) | 1);
    guest.mov(Reg::Rdi, USER_TABLES);
    let entry = match random.below(4) {
        0 => 0,
        1 => random.u64(),
        2 => page(random) | random.below(0x100),
        _ => USER_TABLES | SHARED,
    };
    guest.mov(Reg::Rax, entry);
    guest.raw(&[0x48, 0x89, 0x07]); // mov [rdi], rax
    if random.below(2) == 0 {
        hypercall(&mut guest, FLUSH, [0; 3]);
    }
    for _ in 0..4 {
        user_mode(&mut guest, RFLAGS, &[0x0f, 0x05]); // syscall
        if random.below(2) == 0 {
            hypercall(&mut guest, SET_CR3, [page(random), random.u64(), 0]);
        }
    }
    guest.survive()
}

pub fn stacks(random: &mut Random) -> Images {
    let mut guest = native(random);
    guest.mov(Reg::Rdi, TSS + 4);
    guest.mov(Reg::Rax, random.address());
    guest.raw(&[0x48, 0x89, 0x07]); // mov [rdi], rax
    if random.below(2) == 0 {
        hypercall(
            &mut guest,
            LOAD_TR,
            [TSS_SELECTOR.into(), random.address(), 0],
        );
    }
    user_mode(&mut guest, RFLAGS, &[]);
    guest.mov(
        Reg::Rsp,
        random.one_of(&[VSOCK_MMIO, RUNTIME, MEMORY, DATA]) + 0x80,
    );
    guest.attempt(UD2);
    guest.mov(Reg::Rsp, random.address());
    guest.attempt(&[0x50]); // push rax
    guest.attempt(UD2);
    guest.survive()
}

pub fn descriptor_tables(random: &mut Random) -> Images {
    const LOADS: [&[u8]; 3] = [
        &[0x0f, 0x01, 0x17], // lgdt [rdi]
        &[0x0f, 0x01, 0x1f], // lidt [rdi]
        &[0x0f, 0x00, 0x17], // lldt [rdi]
    ];
    let mut guest = native(random);
    let mut pointer = random.u16().to_le_bytes().to_vec();
    pointer.extend(random.address().to_le_bytes());
    guest.put(DATA, pointer);
    for _ in 0..2 {
        match random.below(2) {
            0 => {
                guest.mov(Reg::Rdi, DATA);
                guest.attempt(random.one_of(&LOADS));
            }
            _ => {
                let number = 0x1004 + random.below(3);
                let arguments = [random.address(), random.u16().into(), random.address()];
                hypercall(&mut guest, number, arguments);
            }
        }
    }
    guest.attempt(UD2);
    user_mode(&mut guest, RFLAGS, &[]);
    guest.survive()
}

pub fn entries(random: &mut Random) -> Images {
    const MSRS: [u32; 10] = [
        STAR,
        LSTAR,
        0xc000_0083,
        SFMASK,
        EFER,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
        0x174,
        0x176,
    ];
    let mut guest = native(random);
    for _ in 0..8 {
        let value = match random.below(2) {
            0 => random.u64(),
            _ => random.address(),
        };
        let msr = random.one_of(&MSRS);
        match random.below(2) {
            0 => hypercall(&mut guest, SET_MSR, [msr.into(), value, value >> 32]),
            _ => {
                guest.msr(msr, value);
                guest.attempt(WRMSR);
            }
        }
        user_mode(&mut guest, RFLAGS, &[0x0f, 0x05]); // syscall
    }
    guest.survive()
}

pub fn control_registers(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..4 {
        let value = match random.below(4) {
            0 => random.u64(),
            1 => u64::from(random.u32()) | 0x8000_0001,
            // One bit is not as it was.
            2 => 0x8000_0033 ^ 1 << random.below(32),
            _ => 0x6a0 ^ 1 << random.below(26),
        };
        match random.below(2) {
            0 => hypercall(&mut guest, FIRST + random.below(3), [value, 0, 0]),
            _ => {
                guest.mov(Reg::Rax, value);
                guest.attempt(random.one_of(&CONTROL_MOVES));
            }
        }
        user_mode(&mut guest, RFLAGS, &[]);
    }
    guest.survive()
}

/// Uses thousands of roots that lead to the same tables, with user mode under some of them.
pub fn table_flood(random: &mut Random) -> Images {
    let mut guest = native_as_ours(random);
    let first = DATA + 0x10_0000;
    let last = MEMORY - 0x20_0000;
    // Every so many roots.
    let rarely = random.one_of(&[1, 16, 10_000]);
    guest.forever(|guest| {
        guest.mov(Reg::Rbx, first);
        guest.repeat((last - first) / 0x2000 / rarely, |guest| {
            for _ in 0..rarely.min(16) {
                guest.mov(Reg::Rax, BOOT_PDPT | SHARED);
                for offset in [0, UPPER_ENTRY, 0x1000, 0x1000 + UPPER_ENTRY] {
                    guest.raw(&[0x48, 0x89, 0x83]); // mov [rbx + offset], rax
                    guest.raw(&(offset as u32).to_le_bytes());
                }
                guest.mov(Reg::Rax, SET_CR3);
                guest.attempt(HYPERCALL);
                guest.raw(&[0x48, 0x81, 0xc3, 0, 0x20, 0, 0]); // add rbx, 8192
            }
            user_mode(guest, RFLAGS, &[]);
        });
    });
    guest.images()
}

/// Accesses the addresses where the KVM has its own memory, and where Linux has its memory, text,
/// stacks and entries (Documentation/arch/x86/x86_64/mm.rst). The guest maps none of them, so each
/// access is a fault in the guest.
pub fn host_kernel(random: &mut Random) -> Images {
    const PLACES: [(u64, u64); 11] = [
        (0xffff_8000_0000_0000, 1 << 39),
        (0xffff_8000_0000_0000, 1 << 21),
        (0xffff_8880_0000_0000, 1 << 46),
        (0xffff_c900_0000_0000, 1 << 45),
        (0xffff_ea00_0000_0000, 1 << 40),
        (0xffff_fe00_0000_0000, 1 << 14),
        (0xffff_fe00_0000_0000, 1 << 39),
        (0xffff_ffff_8000_0000, 1 << 29),
        (0xffff_ffff_c000_0000, 1 << 29),
        (0xffff_ffff_ff60_0000, 1 << 12),
        (0xffff_ff80_0000_0000, 1 << 39),
    ];
    const ACCESSES: [&[u8]; 4] = [
        &[0x48, 0x8b, 0x07],       // mov rax, [rdi]
        &[0x48, 0x89, 0x07],       // mov [rdi], rax
        &[0xf0, 0x48, 0x01, 0x07], // lock add [rdi], rax
        &[0xff, 0xe7],             // jmp rdi
    ];
    let mut guest = native(random);
    for _ in 0..32 {
        let (start, size) = random.one_of(&PLACES);
        let address = start + random.below(size);
        guest.mov(Reg::Rdi, address);
        // mov edi, 1: of one that came through.
        let access = [random.one_of(&ACCESSES), &[0xbf, 1, 0, 0, 0]].concat();
        match random.below(2) {
            0 => guest.attempt(&access),
            _ => user_mode(&mut guest, RFLAGS, &access),
        }
        guest.require(Reg::Rdi, address);
    }
    guest.survive()
}
