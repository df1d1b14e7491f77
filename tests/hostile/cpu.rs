//! Attacks that a guest can make with its processor alone.

use crate::family::{Behaviour, Family, STAYS};
use crate::guest::{CONTROL_MOVES, DEBUG_MOVE, Guest, Images, LEAVES, RECEIVERS, Reg};
use crate::machine::Ends::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

pub const FAMILY: Family = Family {
    name: "cpu",
    behaviours: &[
        Behaviour::ends(
            "halts with interrupts off",
            |_| Guest::new().halt(),
            &[Halts],
        ),
        Behaviour::stays("spins with interrupts off", spin),
        Behaviour::ends(
            "faults without a handler",
            fault,
            &[TripleFault, Unsupported],
        ),
        Behaviour::anyhow("jumps to where there is no code", jump),
        Behaviour::anyhow("has its stack where there is no memory", stack),
        Behaviour::anyhow("sets its control registers to anything", control_registers),
        Behaviour::ends("reads all MSRs of a range", read_msrs, &[Survives]),
        Behaviour::anyhow("writes anything to MSRs", write_msrs),
        Behaviour::ends("asks for all leaves of CPUID", cpuid, &[Survives]),
        Behaviour::ends(
            "floods us with what a software KVM cannot emulate",
            unemulated,
            &[Survives],
        ),
        Behaviour {
            name: "saves and loads its FPU state anywhere",
            guest: fpu_state,
            // A software KVM may try again for ever what it cannot emulate.
            patience: STAYS,
            ends: &[Survives, Stays, TripleFault, Unsupported],
        },
        Behaviour::anyhow("sends itself interrupts of any kind", interrupts),
        Behaviour::anyhow("calls the hypervisor", hypercalls),
        Behaviour::anyhow("runs random bytes", random_code),
    ],
    peak: 72 << 20,
};

fn spin(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let nops = random.below(8);
    guest.forever(|guest| (0..nops).for_each(|_| guest.raw(&[0x90])));
    guest.images()
}

fn fault(random: &mut Random) -> Images {
    const FAULTS: [&[u8]; 6] = [
        &[0x0f, 0x0b],             // ud2
        &[0xcd, 0x80],             // int 0x80
        &[0x31, 0xc9, 0xf7, 0xf1], // xor ecx, ecx; div ecx
        &[0x8e, 0xd8],             // mov ds, eax
        &[0x0f, 0x00, 0xd8],       // ltr ax
        &[0xcc],                   // int3
    ];
    let mut guest = Guest::new();
    guest.mov(Reg::Rax, 0xfff8);
    guest.raw(random.one_of(&FAULTS));
    guest.survive()
}

fn jump(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.mov(Reg::Rax, random.address());
    guest.raw(&[0xff, 0xe0]); // jmp rax
    guest.survive()
}

fn stack(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.mov(Reg::Rsp, random.address());
    guest.attempt(&[0x50]); // push rax
    guest.mov(Reg::Rsp, random.address());
    guest.attempt(&[0x58]); // pop rax
    guest.mov(Reg::Rsp, random.address());
    guest.raw(&[0x0f, 0x0b]); // ud2
    guest.survive()
}

fn control_registers(random: &mut Random) -> Images {
    let moves = [&CONTROL_MOVES[..], &[DEBUG_MOVE]].concat();
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..8 {
        let value = match random.below(3) {
            0 => random.u64(),
            1 => u64::from(random.u32()) | 0x8000_0001,
            _ => random.address(),
        };
        guest.mov(Reg::Rax, value);
        guest.attempt(random.one_of(&moves));
    }
    guest.survive()
}

/// The first numbers of MSRs: architectural, AMD's, KVM's, Hyper-V's.
const MSRS: [u64; 6] = [0, 0xc000_0000, 0xc001_0000, 0x4b56_4d00, 0x4000_0000, 0x800];

fn read_msrs(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.mov(Reg::Rbx, random.one_of(&MSRS) + random.below(16) * 0x100);
    guest.repeat(0x100, |guest| {
        guest.raw(&[0x89, 0xd9]); // mov ecx, ebx
        guest.attempt(&[0x0f, 0x32]); // rdmsr
        guest.raw(&[0xff, 0xc3]); // inc ebx
    });
    guest.survive()
}

fn write_msrs(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..32 {
        guest.mov(Reg::Rcx, random.one_of(&MSRS) + random.below(0x400));
        let value = match random.below(2) {
            0 => random.u64(),
            _ => random.address(),
        };
        guest.mov(Reg::Rax, value & 0xffff_ffff);
        guest.mov(Reg::Rdx, value >> 32);
        guest.attempt(&[0x0f, 0x30]); // wrmsr
    }
    guest.survive()
}

fn cpuid(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.ask_leaves(random.one_of(&LEAVES), random.below(8), &[0x0f, 0xa2]);
    guest.survive()
}

fn unemulated(random: &mut Random) -> Images {
    const INSTRUCTIONS: [&[u8]; 4] = [
        &[0xcc],                   // int3
        &[0x9b],                   // fwait
        &[0x48, 0x0f, 0xae, 0x27], // xsave64 [rdi]
        &[0x48, 0x0f, 0xae, 0x2f], // xrstor64 [rdi]
    ];
    let mut guest = Guest::new();
    enable_xsave(&mut guest);
    guest.mov(Reg::Rdi, crate::guest::DATA);
    guest.mov(Reg::Rax, 7);
    guest.mov(Reg::Rdx, 0);
    let instruction = random.one_of(&INSTRUCTIONS);
    guest.repeat(2000, |guest| guest.attempt(instruction));
    guest.survive()
}

fn enable_xsave(guest: &mut Guest) {
    guest.catch_faults();
    guest.mov(Reg::Rax, 0x4_0620); // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
    guest.attempt(&[0x0f, 0x22, 0xe0]); // mov cr4, rax
    guest.mov(Reg::Rax, 7);
    guest.mov(Reg::Rcx, 0);
    guest.mov(Reg::Rdx, 0);
    guest.attempt(&[0x0f, 0x01, 0xd1]); // xsetbv
}

fn fpu_state(random: &mut Random) -> Images {
    const INSTRUCTIONS: [&[u8]; 4] = [
        &[0x48, 0x0f, 0xae, 0x27],       // xsave64 [rdi]
        &[0x48, 0x0f, 0xae, 0x2f],       // xrstor64 [rdi]
        &[0x48, 0x0f, 0xae, 0x6f, 0x7f], // xrstor64 [rdi + 127]
        &[0x48, 0x0f, 0xae, 0x24, 0x87], // xsave64 [rdi + rax * 4]
    ];
    let mut guest = Guest::new();
    let data = crate::guest::DATA;
    guest.put(data, random.bytes(4096));
    enable_xsave(&mut guest);
    for _ in 0..32 {
        let address = match random.below(2) {
            0 => data + random.below(64) * 64,
            _ => random.address(),
        };
        guest.mov(Reg::Rdi, address);
        guest.mov(Reg::Rax, random.u64());
        guest.mov(Reg::Rdx, random.u64());
        guest.attempt(random.one_of(&INSTRUCTIONS));
    }
    guest.survive()
}

/// Uses the local APIC's interrupt command register: all delivery modes, all vectors.
fn interrupts(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.enable_apic();
    for _ in 0..8 {
        guest.send_interrupt(random.one_of(&RECEIVERS), random.u32());
        guest.store(LOCAL_APIC + random.below(0x40) * 0x10, random.u32());
        if random.below(2) == 0 {
            guest.attempt(&[0xfb, 0x90, 0xfa]); // sti; nop; cli
        }
    }
    guest.survive()
}

fn hypercalls(random: &mut Random) -> Images {
    const CALLS: [&[u8]; 2] = [
        &[0x0f, 0x01, 0xc1], // vmcall
        &[0x0f, 0x01, 0xd9], // vmmcall
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..8 {
        guest.mov(Reg::Rax, random.below(16));
        guest.mov(Reg::Rbx, random.address());
        guest.mov(Reg::Rcx, random.address());
        guest.mov(Reg::Rdx, random.u64());
        guest.mov(Reg::Rsi, random.u64());
        guest.attempt(random.one_of(&CALLS));
    }
    guest.survive()
}

fn random_code(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    if random.below(2) == 0 {
        guest.catch_faults();
    }
    guest.raw(&random.bytes(4096));
    guest.halt()
}
