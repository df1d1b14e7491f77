//! Parts of a kernel that runs natively: how it gets there, calls the hypervisor, and has a user
//! mode.

use crate::guest::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

/// The structures of a guest that wants a user mode.
pub const GDT: u64 = 0x23_0000;
pub const GDT_POINTER: u64 = 0x23_0800;
pub const TSS: u64 = 0x23_1000;
pub const FRAMES: u64 = 0x24_0000;
pub const USER_STACK: u64 = 0x2f_f000;
pub const TSS_SELECTOR: u16 = 0x40;
pub const USER_CODE: u64 = 0x33;
pub const USER_DATA: u64 = 0x2b;
pub const RFLAGS: u64 = 0x202;

/// All flags: CR3 follows the mode; events come with GS swapped; CR2 is in the cell; and so on.
pub const ALL_FLAGS: u64 = 0x7f;

pub const IRET: &[u8] = &[0xcd, 0x17];
pub const SYSRET: &[u8] = &[0xcd, 0x19];
pub const CPUID: &[u8] = &[0xcd, 0x1a];
pub const HYPERCALL: &[u8] = &[0xcd, 0x1b];
pub const WRMSR: &[u8] = &[0x0f, 0x30];
pub const UD2: &[u8] = &[0x0f, 0x0b];

pub const STAR: u32 = 0xc000_0081;
pub const LSTAR: u32 = 0xc000_0082;
pub const SFMASK: u32 = 0xc000_0084;
pub const EFER: u32 = 0xc000_0080;

/// The numbers of hypercalls.
pub const FIRST: u64 = 0x1000;
pub const SET_CR3: u64 = 0x1001;
pub const SET_MSR: u64 = 0x1003;
pub const LOAD_TR: u64 = 0x1006;
pub const FLUSH: u64 = 0x1007;
pub const HALT: u64 = 0x1009;
pub const SET_CELL: u64 = 0x100c;
pub const FLUSH_MANY: u64 = 0x100e;
pub const LAST: u64 = 0x100e;
pub const UNKNOWN: u64 = (-38_i64) as u64;

/// Makes a guest whose kernel runs natively from here on, with any flags. It catches faults, on a
/// stack of their own or on the current one, and has the structures for a user mode.
pub fn native(random: &mut Random) -> Guest {
    let mut guest = usual(random);
    switch(&mut guest, CELL | flags(random));
    guest
}

/// Makes a guest whose kernel runs natively with all flags.
pub fn native_as_ours(random: &mut Random) -> Guest {
    let mut guest = usual(random);
    switch(&mut guest, CELL | ALL_FLAGS);
    guest
}

/// Makes such a guest before it asks to run natively.
pub fn usual(random: &mut Random) -> Guest {
    prepared(random.below(2))
}

pub fn prepared(fault_stack: u64) -> Guest {
    let mut guest = Guest::new();
    guest.catch_faults_on(fault_stack);
    guest.share_tables();
    let handler = guest.handler();
    let descriptors = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0,
        // A busy TSS cannot be loaded; this one is available.
        0x0000_8900_0000_0067 | (TSS & 0xff_ffff) << 16 | (TSS >> 24 & 0xff) << 56,
        TSS >> 32,
    ];
    guest.put(GDT, bytes(descriptors));
    let mut pointer = 0xff_u16.to_le_bytes().to_vec();
    pointer.extend(GDT.to_le_bytes());
    guest.put(GDT_POINTER, pointer);
    guest.put(TSS + 4, bytes([UPPER_HALF + u64::from(STACK)]));
    guest.put(TSS + 0x24, bytes([UPPER_HALF + u64::from(STACK)]));
    guest.mov(Reg::Rdi, GDT_POINTER);
    guest.raw(&[0x0f, 0x01, 0x17]); // lgdt [rdi]
    guest.mov(Reg::Rax, TSS_SELECTOR.into());
    guest.raw(&[0x0f, 0x00, 0xd8]); // ltr ax
    for (msr, value) in [
        (EFER, 0xd01),
        (STAR, 0x0023_0010_0000_0000),
        (LSTAR, handler),
        (SFMASK, 0x4_7700),
    ] {
        guest.msr(msr, value);
        guest.raw(WRMSR);
    }
    guest
}

pub fn switch(guest: &mut Guest, value: u64) {
    guest.msr(NATIVE_MSR, value);
    guest.attempt(WRMSR);
}

pub fn hypercall(guest: &mut Guest, number: u64, arguments: [u64; 3]) {
    let registers = [Reg::Rbx, Reg::Rcx, Reg::Rdx];
    for (register, value) in registers.into_iter().zip(arguments) {
        guest.mov(register, value);
    }
    guest.mov(Reg::Rax, number);
    guest.attempt(HYPERCALL);
}

/// Returns any flags, and often all of them.
pub fn flags(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => ALL_FLAGS,
        _ => random.below(0x80),
    }
}

/// Runs this in user mode. A fault there, at its end at the latest, goes on here.
pub fn user_mode(guest: &mut Guest, rflags: u64, body: &[u8]) {
    // Behind three instructions: two of 10 bytes, and the return of 2.
    let start = guest.here() + 22;
    return_with(
        guest,
        [start, USER_CODE, rflags, USER_STACK, USER_DATA],
        body,
    );
}

pub fn return_with(guest: &mut Guest, frame: [u64; 5], body: &[u8]) {
    // One for each: there are more bytes of code than this between two of them.
    let at = FRAMES + 2 * (guest.here() - CODE);
    guest.put(at, bytes(frame));
    guest.mov(Reg::Rsp, at);
    guest.attempt(&[IRET, body, UD2].concat());
}

/// Returns a page of the guest's memory, or one near something that a machine has.
pub fn page(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => random.below(MEMORY) & !0xfff,
        _ => random.address() & !0xfff,
    }
}

pub fn set_cell(guest: &mut Guest, value: u8) {
    guest.mov(Reg::Rdi, CELL);
    guest.raw(&[0xc6, 0x07, value]); // mov byte ptr [rdi], value
}

/// Uses the interrupt flag in all ways that make the hypervisor look at the cell.
pub fn use_cell(guest: &mut Guest, random: &mut Random) {
    for _ in 0..4 {
        match random.below(6) {
            0 => guest.attempt(UD2),
            1 => user_mode(guest, RFLAGS, &[]),
            2 => hypercall(guest, 0, [0; 3]),
            3 => guest.attempt(&[0xfb, 0x90, 0xfa]), // sti; nop; cli
            4 => guest.input(0, 1),
            _ => {
                guest.mov(Reg::Rdi, random.address());
                guest.attempt(&[0x48, 0x8b, 0x07]); // mov rax, [rdi]
            }
        }
    }
}

/// The mode of [`set_timer`] in which it fires again and again.
pub const PERIODIC: u32 = 0x2_0000;

/// Makes the local APIC interrupt the guest after so many nanoseconds.
pub fn set_timer(guest: &mut Guest, nanoseconds: u32, mode: u32) {
    const VECTOR: u32 = 0x40;
    guest.enable_apic();
    // Divided by 1: a cycle of KVM's is a nanosecond.
    guest.store(LOCAL_APIC + 0x3e0, 0xb);
    guest.store(LOCAL_APIC + 0x320, mode | VECTOR);
    guest.store(LOCAL_APIC + 0x380, nanoseconds);
}
