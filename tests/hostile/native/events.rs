//! The kernel's interrupts, its timer, and halts.

use super::parts::*;
use crate::guest::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

pub fn interrupts(random: &mut Random) -> Images {
    let mut guest = native(random);
    guest.enable_apic();
    for _ in 0..8 {
        set_cell(&mut guest, random.one_of(&[0, 1, 0xff]));
        guest.send_interrupt(random.one_of(&RECEIVERS), random.u32());
        match random.below(4) {
            0 => hypercall(&mut guest, 0, [0; 3]),
            1 => user_mode(&mut guest, RFLAGS, &[]),
            2 => guest.attempt(&[0xfb, 0x90, 0xfa]), // sti; nop; cli
            _ => guest.store(LOCAL_APIC + random.below(0x40) * 0x10, random.u32()),
        }
    }
    guest.survive()
}

/// Sets the timer to fire as often as possible, in user mode or in the kernel.
pub fn timer_flood(random: &mut Random) -> Images {
    let mut guest = native(random);
    set_timer(&mut guest, 1 + random.below(1000) as u32, PERIODIC);
    let body: &[u8] = random.one_of(&[&[0xeb, 0xfe], &[0x0f, 0x05]]);
    let in_user_mode = random.below(2) == 0;
    let halts = random.below(2) == 0;
    guest.forever(|guest| {
        guest.store(LOCAL_APIC + 0xb0, 0);
        set_cell(guest, 1);
        match (in_user_mode, halts) {
            (true, _) => user_mode(guest, RFLAGS, body),
            (false, true) => guest.attempt(&[0xf4]),
            (false, false) => guest.attempt(&[0xeb, 0xfe]),
        }
    });
    guest.images()
}

pub fn halt(random: &mut Random) -> Images {
    let mut guest = native(random);
    set_cell(&mut guest, 0);
    match random.below(3) {
        0 => hypercall(&mut guest, HALT, [0; 3]),
        1 => guest.raw(&[0xfb]), // sti
        _ => {}
    }
    guest.halt()
}

pub fn halting(guest: &mut Guest, random: &mut Random) {
    guest.mov(Reg::Rax, HALT);
    guest.attempt(random.one_of(&[&[0xf4], HYPERCALL]));
}

/// Halts when nothing will ever interrupt the guest.
pub fn long_halt(random: &mut Random) -> Images {
    let mut guest = native(random);
    set_cell(&mut guest, 1 + random.below(255) as u8);
    guest.forever(|guest| halting(guest, random));
    guest.images()
}

/// Halts until an interrupt, which may come after the second at which the host checks a halted
/// guest.
pub fn woken(random: &mut Random) -> Images {
    let mut guest = native_as_ours(random);
    let milliseconds = random.one_of(&[0, 1, 10, 1200]);
    set_timer(&mut guest, milliseconds * 1_000_000 + 1000, 0);
    guest.mov(Reg::Rsp, DATA);
    set_cell(&mut guest, 1);
    // Whoever is woken goes on behind, at the handler's stack.
    let halts = random.one_of(&[&[0xf4, 0xeb, 0xfd][..], &[0xeb, 0xfe]]);
    guest.attempt(halts);
    guest.require(Reg::Rsp, STACK.into());
    guest.survive()
}

pub fn halt_anywhere(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let cell = match random.below(2) {
        0 => page(random),
        _ => random.u64() & 0x000f_ffff_ffff_f000,
    };
    switch(&mut guest, cell | flags(random));
    halting(&mut guest, random);
    guest.halt()
}
