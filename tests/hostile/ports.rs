//! Port and memory-mapped I/O, at every address and of any width.

use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{DATA, Guest, Images, MEMORY, Reg};
use crate::machine::{self, Ends::*, Machine};
use crate::native::is_available;
use crate::random::Random;
use crate::turn::{turn_of_all, watched};
use ::guest::hypercall::JOB;
use sandbox::internals::agent::Session;
use sandbox::internals::vm::bus::Unknown;
use sandbox::internals::vm::layout::*;

pub const FAMILY: Family = Family {
    name: "io",
    behaviours: &[
        Behaviour {
            name: "uses strings of any length on any port",
            guest: strings,
            // A software KVM may try again for ever what it cannot emulate.
            patience: STAYS,
            ends: &[Survives, Stays, TripleFault, Unsupported],
        },
        Behaviour {
            name: "reads and writes where no device is",
            guest: holes,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "straddles the edges of devices",
            guest: edges,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "sets device registers in any order and width",
            guest: registers,
            patience: ENDS,
            ends: &[Survives, ShutsDown],
        },
        Behaviour {
            name: "sets the serial port's registers in any order",
            guest: serial,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "routes interrupts to anything",
            guest: routes,
            patience: STAYS,
            ends: &[Survives, Stays, TripleFault, Unsupported, LeavesKvm, Halts],
        },
        Behaviour {
            name: "asks for a reset",
            guest: |_| {
                let mut guest = Guest::new();
                guest.out(I8042_COMMAND, 1, I8042_RESET.into());
                guest.survive()
            },
            patience: ENDS,
            ends: &[Resets],
        },
    ],
    peak: 8 << 20,
};

/// Tries 65,536 ports × 3 widths × 2 directions, and as many again by a native kernel.
pub fn sweep() {
    let native = is_available();
    let Some(_turn) = turn_of_all() else {
        return;
    };
    for width in [1, 2, 4] {
        for instruction in [0xec, 0xee] {
            let what = format!("{instruction:#x} of {width} bytes");
            sweep_with(&what, instruction, width, |images| images);
            if native {
                sweep_with(&(what + ", natively"), instruction, width, Images::natively);
            }
        }
    }
}

fn sweep_with(what: &str, instruction: u8, width: u8, mode: fn(Images) -> Images) {
    const PORTS: u64 = 1 << 16;
    let mut guest = Guest::new();
    guest.mov(Reg::Rdx, 0);
    guest.repeat(PORTS, |guest| {
        // Neither a service nor a reset.
        guest.mov(Reg::Rax, 0x5a5a_5a5a);
        guest.raw(&crate::guest::io(instruction, width));
        guest.raw(&[0xff, 0xc2]); // inc edx
    });
    let images = mode(guest.survive());
    let report = watched(what, 2 * ENDS, || machine::run(&images, ENDS, ENDS));
    assert!(Survives.covers(&report.end), "{what}: {}", report.end);
    // Each of them, and the guest's last word.
    assert_eq!(report.counters.port_io, PORTS + 1, "{what}");
}

/// Checks that accesses do not count until the guest has its job, as its kernel may look for
/// devices that do not exist.
pub fn counts() {
    const NO_SERVICE: u8 = 0xfe;
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut guest = Guest::new();
    let looks = |guest: &mut Guest| {
        for hole in [MEMORY, VSOCK_MMIO + VSOCK_MMIO_SIZE, IOAPIC - 4] {
            guest.store(hole, 0);
            guest.raw(&[0x8b, 0x07]); // mov eax, [rdi]
        }
        guest.out(SERIAL_PORT - 1, 1, 0);
        guest.input(SERIAL_PORT - 1, 1);
        guest.input(SERIAL_PORT - 1, 4);
        guest.ask(NO_SERVICE, 0);
    };
    looks(&mut guest);
    guest.service(
        JOB,
        0,
        [(Reg::Rdi, DATA), (Reg::Rsi, DATA), (Reg::Rcx, 4096)],
    );
    looks(&mut guest);
    let images = guest.survive();
    let machine = Machine {
        begin: Session::warm,
        ..Machine::usual()
    };
    let report = watched("counts", 2 * ENDS, || {
        machine::run_on(&machine, &images, ENDS, ENDS)
    });
    assert!(Survives.covers(&report.end), "{}", report.end);
    let Unknown {
        addresses,
        ports,
        services,
    } = report.unknown;
    assert_eq!((addresses, ports, services), (6, 3, 1));
}

/// Returns a port that is neither the reset line's nor the hypercalls'.
fn port(random: &mut Random) -> u16 {
    let near = random.one_of(&[SERIAL_PORT, I8042_COMMAND, HYPERCALL_PORT, 0, u16::MAX]);
    let port = match random.below(2) {
        0 => near.wrapping_add(random.below(9) as u16).wrapping_sub(1),
        _ => random.u16(),
    };
    match port {
        I8042_COMMAND | HYPERCALL_PORT => SERIAL_PORT,
        port => port,
    }
}

fn strings(random: &mut Random) -> Images {
    const INSTRUCTIONS: [&[u8]; 6] = [
        &[0xf3, 0x6e],       // rep outsb
        &[0xf3, 0x66, 0x6f], // rep outsw
        &[0xf3, 0x6f],       // rep outsd
        &[0xf3, 0x6c],       // rep insb
        &[0xf3, 0x66, 0x6d], // rep insw
        &[0xf3, 0x6d],       // rep insd
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..4 {
        let address = match random.below(3) {
            0 => MEMORY - random.below(64),
            1 => random.address(),
            _ => DATA,
        };
        guest.mov(Reg::Rsi, address);
        guest.mov(Reg::Rdi, address);
        guest.mov(Reg::Rcx, random.below(2000));
        guest.mov(Reg::Rdx, port(random).into());
        if random.below(4) == 0 {
            guest.raw(&[0xfd]); // std
        }
        guest.attempt(random.one_of(&INSTRUCTIONS));
        guest.raw(&[0xfc]); // cld
    }
    guest.survive()
}

/// Instructions that move between RAX and the memory at RDI.
const ACCESSES: [&[u8]; 8] = [
    &[0x88, 0x07],       // mov [rdi], al
    &[0x66, 0x89, 0x07], // mov [rdi], ax
    &[0x89, 0x07],       // mov [rdi], eax
    &[0x48, 0x89, 0x07], // mov [rdi], rax
    &[0x8a, 0x07],       // mov al, [rdi]
    &[0x66, 0x8b, 0x07], // mov ax, [rdi]
    &[0x8b, 0x07],       // mov eax, [rdi]
    &[0x48, 0x8b, 0x07], // mov rax, [rdi]
];

fn access(guest: &mut Guest, address: u64, random: &mut Random) {
    guest.mov(Reg::Rdi, address);
    guest.mov(Reg::Rax, random.u64());
    guest.attempt(random.one_of(&ACCESSES));
}

fn holes(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..64 {
        let above = random.one_of(&[MEMORY, 1 << 30, LOW_RAM_END, RUNTIME + RUNTIME_ALIGNMENT]);
        access(&mut guest, above + random.below(1 << 29), random);
    }
    guest.survive()
}

fn edges(random: &mut Random) -> Images {
    let edges = [
        VSOCK_MMIO,
        VSOCK_MMIO + 0x100,
        VSOCK_MMIO + VSOCK_MMIO_SIZE,
        IOAPIC,
        IOAPIC + IOAPIC_SIZE,
        MEMORY,
        RUNTIME,
        RUNTIME + RUNTIME_ALIGNMENT,
    ];
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..64 {
        let edge = random.one_of(&edges);
        access(&mut guest, edge + random.below(16) - 8, random);
    }
    guest.survive()
}

fn registers(random: &mut Random) -> Images {
    const STATUS: u64 = VSOCK_MMIO + 0x70;
    let mut guest = Guest::new();
    guest.catch_faults();
    for _ in 0..64 {
        match random.below(4) {
            0 => guest.store(STATUS, 1 << random.below(9)),
            1 => guest.store(STATUS, random.u32()),
            2 => guest.store(VSOCK_MMIO + random.below(0x44) * 4, random.below(4) as u32),
            _ => access(&mut guest, VSOCK_MMIO + random.below(0x120), random),
        }
    }
    guest.survive()
}

fn serial(random: &mut Random) -> Images {
    const MODEM_CONTROL: u16 = SERIAL_PORT + 4;
    const LOOPBACK: u32 = 0x10;
    let mut guest = Guest::new();
    for _ in 0..100 {
        let register = SERIAL_PORT + random.below(SERIAL_PORTS.into()) as u16;
        match random.below(8) {
            0 => guest.input(register, 1),
            1 => guest.out(MODEM_CONTROL, 1, LOOPBACK),
            2..5 => guest.out(SERIAL_PORT, 1, random.u32()),
            _ => guest.out(register, 1, random.u32()),
        }
    }
    guest.survive()
}

/// Sets redirection entries, then makes the serial port raise its line.
fn routes(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.store(LOCAL_APIC + 0xf0, 0x1ff);
    for _ in 0..16 {
        guest.store(IOAPIC, random.below(0x48) as u32);
        guest.store(IOAPIC + 0x10, random.u32() & !0x1_0000);
    }
    let pin = SERIAL_IRQ * 2 + 0x10;
    for (register, value) in [(pin, random.u32() & !0x1_0000), (pin + 1, random.u32())] {
        guest.store(IOAPIC, register);
        guest.store(IOAPIC + 0x10, value);
    }
    const INTERRUPT_ENABLE: u16 = SERIAL_PORT + 1;
    for _ in 0..4 {
        guest.out(INTERRUPT_ENABLE, 1, 0);
        guest.out(INTERRUPT_ENABLE, 1, 0xf);
        guest.attempt(&[0xfb, 0x90, 0xfa]); // sti; nop; cli
    }
    guest.survive()
}
