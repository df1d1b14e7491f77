//! The check whether a host has native mode, and trials of it besides the behaviours.

use super::parts::*;
use crate::family::{ENDS, STAYS};
use crate::guest::*;
use crate::kernel_log::KernelLog;
use crate::machine::Ends::Survives;
use crate::machine::{self, End, Machine};
use crate::random::Random;
use crate::turn::{turn_of_all, watched};
use sandbox::internals::outcome::{Crash, Outcome};
use sandbox::internals::vm::layout::*;
use std::sync::LazyLock;
use std::time::Duration;

/// Checks whether this host's KVM runs a guest's kernel natively if it asks for it, and prints if
/// not. A variant that must run alone is run whatever the host does.
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

/// Checks whether a kernel finds itself in the processor's user mode, which is so only in native
/// mode.
pub fn asks_and_gets_it() -> bool {
    let mut guest = asking(NATIVE_MSR);
    guest.mov(Reg::Rax, 0);
    guest.raw(&[0x8c, 0xc8]); // mov eax, cs
    guest.raw(&[0x83, 0xe0, 3]); // and eax, 3
    guest.require(Reg::Rax, 3);
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// Checks whether this MSR is refused like one that does not exist.
pub fn asks_and_is_refused(msr: u32) -> bool {
    let mut guest = asking(msr);
    guest.require(Reg::Rsp, STACK.into());
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// Makes a guest whose stack pointer shows whether asking for the mode was a fault.
pub fn asking(msr: u32) -> Guest {
    let mut guest = Guest::new();
    guest.catch_faults();
    guest.share_tables();
    guest.mov(Reg::Rsp, DATA);
    guest.msr(msr, CELL | ALL_FLAGS);
    guest.attempt(WRMSR);
    guest
}

/// Checks that a guest that asks gets the mode or is refused: there is nothing in between.
pub fn is_given_or_refused() {
    let given = is_available();
    let Some(_turn) = turn_of_all() else {
        return;
    };
    let is_refused = |msr| watched("a refusal", 2 * ENDS, || asks_and_is_refused(msr));
    assert_eq!(is_refused(NATIVE_MSR), !given);
    assert!(is_refused(NATIVE_MSR + 0xf), "an MSR that there is not");
}

/// Tries each combination of flags with each state that the hypervisor reports: there and back in
/// each way.
pub fn sweep() {
    /// The state that the hypervisor keeps in the same word: valid, in user mode.
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

/// Removes the page of the cell under the guest, with the file behind it.
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
