//! Whether a host has the mode, and what is tried of it beside the behaviours.

use super::parts::*;
use crate::family::{ENDS, STAYS, turn_of_all, watched};
use crate::guest::*;
use crate::kernel_log::KernelLog;
use crate::machine::Ends::Survives;
use crate::machine::{self, End, Machine};
use crate::random::Random;
use sandbox::outcome::{Crash, Outcome};
use sandbox::vm::layout::*;
use std::sync::LazyLock;
use std::time::Duration;

/// Whether this host's KVM runs a guest's kernel natively if it asks for it; says if not. A variant
/// that is to run alone is run whatever the host does.
pub fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        let available = watched("a look for the mode", 2 * ENDS, asks_and_gets_it);
        if !available {
            println!("this host's KVM runs no guest's kernel natively: that is not tested");
        }
        available
    });
    turn_of_all().is_none_or(|_turn| *AVAILABLE)
}

/// In this mode, and in no other, a kernel finds itself in the processor's user mode.
pub fn asks_and_gets_it() -> bool {
    let mut guest = asking(NATIVE_MSR);
    guest.mov(Reg::Rax, 0);
    guest.raw(&[0x8c, 0xc8]); // mov eax, cs
    guest.raw(&[0x83, 0xe0, 3]); // and eax, 3
    guest.require(Reg::Rax, 3);
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// The MSR that is not there is refused as any other that is not there.
pub fn asks_and_is_refused(msr: u32) -> bool {
    let mut guest = asking(msr);
    guest.require(Reg::Rsp, STACK.into());
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// One whose stack pointer tells whether asking for the mode was a fault.
pub fn asking(msr: u32) -> Guest {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.share_tables();
    guest.mov(Reg::Rsp, DATA);
    guest.msr(msr, CELL | ALL_FLAGS);
    guest.attempt(WRMSR);
    guest
}

/// A guest that asks gets the mode, or is refused: nothing in between.
pub fn is_given_or_refused() {
    let given = is_available();
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let is_refused = |msr| watched("a refusal", 2 * ENDS, || asks_and_is_refused(msr));
    assert_eq!(is_refused(NATIVE_MSR), !given);
    assert!(is_refused(NATIVE_MSR + 0xf), "an MSR that there is not");
}

/// Each combination of flags, and of those that the hypervisor reports: there and back in each way.
pub fn sweep() {
    /// Of the state that the hypervisor keeps in the same word: valid, in user mode.
    const STATE: [u64; 4] = [0, 0x400, 0x800, 0xc00];
    if !is_available() {
        return;
    }
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut log = KernelLog::from_here();
    for flags in 0..=ALL_FLAGS {
        // By turns, in either setting of the VMM.
        let machines = [Machine::usual(), Machine::native()];
        let machine = &machines[flags.count_ones() as usize % 2];
        for (state, fault_stack) in STATE.into_iter().zip([0, 1, 1, 0]) {
            let mut guest = prepared(fault_stack);
            for cell in [0, 1] {
                switch(&mut guest, CELL | state | flags);
                set_cell(&mut guest, cell);
                for body in [&[0x0f, 0x05][..], UD2, &[0xcd, 0x80]] {
                    user_mode(&mut guest, RFLAGS, body);
                }
                guest.mov(Reg::Rcx, guest.here() + 32);
                guest.mov(Reg::R11, RFLAGS);
                guest.attempt(&[SYSRET, UD2].concat());
                hypercall(&mut guest, FLUSH, [0; 3]);
                guest.attempt(UD2);
                switch(&mut guest, 0);
            }
            let images = guest.survive();
            let what = format!("flags {:#x}", state | flags);
            let report = watched(&what, 2 * ENDS, || {
                machine::run_on(machine, &images, ENDS, ENDS)
            });
            log.assert_unhurt(&what);
            assert!(Survives.covers(&report.end), "{what}: {}", report.end);
        }
    }
}

/// The page of the cell goes away under the guest, with the file behind it.
pub fn lost_cell() {
    const MEANWHILE: Duration = Duration::from_millis(50);
    if !is_available() {
        return;
    }
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let mut log = KernelLog::from_here();
    for seed in 0..16 {
        let random = &mut Random::new("lost", seed);
        let mut guest = usual(random);
        let page = RUNTIME + (random.below(RUNTIME_ALIGNMENT) & !0xfff);
        switch(&mut guest, page | flags(random));
        guest.forever(|guest| {
            use_cell(guest, random);
            guest.input(0, 1);
        });
        let images = guest.images();
        let runtime = machine::runtime_image();
        let setting = match seed % 2 {
            0 => Machine::usual(),
            _ => Machine::native(),
        };
        let machine = Machine {
            runtime: &runtime,
            ..setting
        };
        let what = format!("a lost cell, {seed}");
        let report = watched(&what, 2 * ENDS, || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(MEANWHILE);
                    runtime.set_len(0).expect("a file");
                });
                machine::run_on(&machine, &images, 2 * STAYS, 2 * STAYS)
            })
        });
        log.assert_unhurt(&what);
        let lost = matches!(report.end, End::Ended(Outcome::Crashed(Crash::MemoryLost)));
        assert!(lost, "{what}: {}", report.end);
    }
}
