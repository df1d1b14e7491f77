//! User mode: the ways there and back, and the instructions that either mode may not execute.

use super::parts::*;
use crate::guest::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

/// Instructions that are not for user mode, or that come from there.
pub const FAULTS: [&[u8]; 26] = [
    &[0xf4],             // hlt
    &[0xfa],             // cli
    &[0xfb],             // sti
    &[0xe4, 0x80],       // in al, 0x80
    &[0xe6, 0x80],       // out 0x80, al
    &[0x0f, 0x32],       // rdmsr
    &[0x0f, 0x30],       // wrmsr
    &[0x0f, 0x33],       // rdpmc
    &[0x0f, 0x20, 0xc0], // mov rax, cr0
    &[0x0f, 0x22, 0xd8], // mov cr3, rax
    &[0x0f, 0x23, 0xf8], // mov dr7, rax
    &[0x0f, 0x01, 0x17], // lgdt [rdi]
    &[0x0f, 0x01, 0x07], // sgdt [rdi]
    &[0x0f, 0x00, 0xd8], // ltr ax
    &[0x0f, 0x01, 0xf8], // swapgs
    &[0x48, 0x0f, 0x07], // sysret
    &[0x48, 0xcf],       // iretq
    &[0x0f, 0x05],       // syscall
    &[0x0f, 0x34],       // sysenter
    &[0x0f, 0x01, 0x3f], // invlpg [rdi]
    &[0x0f, 0x06],       // clts
    &[0x0f, 0x01, 0xcb], // stac
    &[0x0f, 0x01, 0xca], // clac
    &[0x0f, 0x08],       // invd
    &[0x0f, 0x01, 0xd1], // xsetbv
    &[0x0f, 0x00, 0xc8], // str eax
];

pub fn round_trips(random: &mut Random) -> Images {
    let mut guest = usual(random);
    for _ in 0..8 {
        switch(&mut guest, CELL | random.below(0x80));
        set_cell(&mut guest, random.u8());
        let body: &[u8] = random.one_of(&[
            &[0x0f, 0x05],
            &[0xcd, 0x80],
            &[0xcc],
            &[0xf4],
            &[0x31, 0xc0, 0x48, 0x8b, 0x00], // xor eax, eax; mov rax, [rax]
        ]);
        user_mode(&mut guest, RFLAGS, body);
    }
    guest.survive()
}

pub fn frames(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..8 {
        let start = guest.here() + 22;
        let mut frame = [start, USER_CODE, RFLAGS, USER_STACK, USER_DATA];
        for _ in 0..1 + random.below(2) {
            let word = random.below(5) as usize;
            frame[word] = match random.below(5) {
                0 => random.u64(),
                1 => random.address(),
                2 => random.u16().into(),
                3 => random.below(0x80),
                _ => random.below(1 << 22),
            };
        }
        let return_ = random.one_of(&[IRET, &[0x48, 0xcf], IRET]);
        if random.below(4) == 0 {
            guest.mov(Reg::Rsp, random.address());
            guest.attempt(return_);
        } else if random.below(4) == 0 {
            guest.put(DATA, bytes(frame));
            guest.mov(Reg::Rsp, DATA);
            guest.attempt(return_);
        } else {
            return_with(&mut guest, frame, &[]);
        }
    }
    guest.survive()
}

pub fn system_returns(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..8 {
        // Behind four instructions of 10 bytes, and the return of 2.
        let start = guest.here() + 42;
        let address = match random.below(3) {
            0 => random.address(),
            _ => start,
        };
        let rflags = match random.below(3) {
            0 => random.u64(),
            1 => random.below(1 << 22),
            _ => RFLAGS,
        };
        guest.mov(Reg::Rcx, address);
        guest.mov(Reg::R11, rflags);
        guest.mov(Reg::Rsp, random.address());
        guest.attempt(&[SYSRET, UD2].concat());
    }
    guest.survive()
}

pub fn user_faults(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..8 {
        guest.mov(Reg::Rdi, random.one_of(&[DATA, MEMORY, LOCAL_APIC]));
        guest.mov(Reg::Rcx, random.below(0x1000));
        let body = match random.below(2) {
            0 => vec![0xcd, random.u8()],
            _ => random.one_of(&FAULTS).to_vec(),
        };
        user_mode(&mut guest, RFLAGS, &body);
    }
    guest.survive()
}

pub fn random_user(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..16 {
        let length = 1 + random.below(64) as usize;
        user_mode(&mut guest, RFLAGS, &random.bytes(length));
    }
    guest.survive()
}

pub fn privileged(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..16 {
        guest.mov(Reg::Rdi, random.one_of(&[DATA, MEMORY, LOCAL_APIC]));
        guest.mov(Reg::Rcx, random.below(0x1000));
        guest.mov(Reg::Rax, random.below(0x1_0000));
        match random.one_of(&FAULTS) {
            // That would be the end of it: it halts, or none emulates it.
            [0xf4] | [0x0f, 0x01, 0xca | 0xcb] => {}
            instruction => guest.attempt(instruction),
        }
    }
    guest.attempt(random.one_of(&FAULTS));
    guest.survive()
}

pub fn steps(random: &mut Random) -> Images {
    const TRAP: u64 = 0x100;
    let mut guest = native(random);
    for _ in 0..8 {
        match random.below(5) {
            0 => user_mode(&mut guest, RFLAGS | TRAP, &[0x90, 0x0f, 0x05]),
            1 => {
                guest.mov(Reg::Rsp, u64::from(STACK) - 0x100);
                guest.mov(Reg::Rax, RFLAGS | TRAP);
                // push rax; popf; nop
                guest.attempt(&[0x50, 0x9d, 0x90]);
            }
            2 => {
                guest.mov(Reg::Rsp, u64::from(STACK) - 0x100);
                guest.mov(Reg::Rax, RFLAGS | TRAP);
                let call = random.one_of(&[HYPERCALL, CPUID, IRET, SYSRET]);
                guest.attempt(&[&[0x50, 0x9d], call].concat());
            }
            3 => guest.attempt(&[0xcc]),
            _ => {
                // mov drN, rax; then of it all, mov dr7, rax
                let number = random.below(4) as u8;
                guest.mov(Reg::Rax, random.address());
                guest.attempt(&[0x0f, 0x23, 0xc0 | number << 3]);
                guest.mov(Reg::Rax, random.u32().into());
                guest.attempt(&[0x0f, 0x23, 0xf8]);
            }
        }
    }
    guest.survive()
}

/// Sets the state that user mode may set, so that the host has to handle it.
pub fn odd_processor(random: &mut Random) -> Images {
    const SETS: [&[u8]; 11] = [
        &[0x0f, 0x01, 0xef],             // wrpkru
        &[0xf3, 0x48, 0x0f, 0xae, 0xd8], // wrgsbase rax
        &[0xf3, 0x48, 0x0f, 0xae, 0xd0], // wrfsbase rax
        &[0x0f, 0xae, 0x17],             // ldmxcsr [rdi]
        &[0xd9, 0x2f],                   // fldcw [rdi]
        // fninit; fldz; fld1; fdivrp; fwait
        &[0xdb, 0xe3, 0xd9, 0xee, 0xd9, 0xe8, 0xde, 0xf1, 0x9b],
        &[0xfd],                   // std
        &[0x0f, 0xae, 0x0f],       // fxrstor [rdi]
        &[0xc5, 0xfc, 0x77],       // vzeroall
        &[0x66, 0x0f, 0xae, 0xf0], // tpause eax
        &[0xf3, 0x0f, 0xae, 0xf0], // umonitor rax
    ];
    const TRAP: u64 = 0x100;
    let mut guest = native(random);
    guest.put(DATA, random.bytes(4096));
    for _ in 0..8 {
        let anywhere = random.below(MEMORY);
        guest.mov(Reg::Rdi, random.one_of(&[DATA, DATA + 1, anywhere]));
        guest.mov(Reg::Rax, random.u64());
        guest.mov(Reg::Rcx, 0);
        guest.mov(Reg::Rdx, 0);
        let sets = random.one_of(&SETS);
        match random.below(4) {
            // A kernel that lacks one of them ends here.
            0 => guest.attempt(sets),
            _ => user_mode(&mut guest, RFLAGS, sets),
        }
        let rflags = random.below(1 << 22) & !TRAP;
        guest.mov(Reg::Rsp, u64::from(STACK) - 0x100);
        guest.mov(Reg::Rax, rflags);
        guest.attempt(&[0x50, 0x9d]); // push rax; popf
        match random.below(3) {
            0 => guest.input(0, 1),
            1 => user_mode(&mut guest, rflags | 2, &[]),
            _ => guest.ask(2, 0),
        }
    }
    guest.survive()
}

pub fn selectors(random: &mut Random) -> Images {
    const LOADS: [&[u8]; 8] = [
        &[0x8e, 0xd8],       // mov ds, eax
        &[0x8e, 0xc0],       // mov es, eax
        &[0x8e, 0xe0],       // mov fs, eax
        &[0x8e, 0xe8],       // mov gs, eax
        &[0x8e, 0xd0],       // mov ss, eax
        &[0x0f, 0x00, 0xd0], // lldt ax
        &[0x0f, 0x00, 0xd8], // ltr ax
        &[0x48, 0xff, 0x2f], // jmp far [rdi]
    ];
    let mut guest = native(random);
    for _ in 0..16 {
        let selector = match random.below(3) {
            0 => random.u16().into(),
            1 => random.below(0x100),
            _ => random.one_of(&[0x10, 0x18, 0x23, 0x2b, 0x33, 0x40, 0x7b]),
        };
        guest.put(DATA + 0x100 + selector, bytes([guest.here(), selector]));
        guest.mov(Reg::Rdi, DATA + 0x100 + selector);
        guest.mov(Reg::Rax, selector);
        let load = random.one_of(&LOADS);
        match random.below(4) {
            0 => guest.attempt(load),
            _ => user_mode(&mut guest, RFLAGS, load),
        }
    }
    guest.survive()
}
