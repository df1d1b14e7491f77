//! A hostile kernel that has a software KVM run it natively: its interrupt flag is a cell in its
//! memory, it asks the hypervisor by software interrupts, and its own mode and user mode are both the
//! processor's user mode.

use crate::family::{Behaviour, ENDS, Family, STAYS, turn_of_all, watched};
use crate::guest::*;
use crate::kernel_log::KernelLog;
use crate::machine::{
    self, End,
    Ends::{self, *},
};
use crate::random::Random;
use sandbox::layout::*;
use sandbox::outcome::{Crash, Outcome};
use sandbox::session::Session;
use std::sync::LazyLock;
use std::time::Duration;

/// For guests of which only this is known: that they end, or time does.
const ANYHOW: &[Ends] = &[
    Survives,
    Stays,
    TripleFault,
    Halts,
    Resets,
    Unsupported,
    LeavesKvm,
];

pub const FAMILY: Family = Family {
    name: "native",
    behaviours: &[
        Behaviour {
            name: "calls the hypervisor with numbers that there are not",
            guest: unknown_hypercalls,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "calls the hypervisor with each number and anything",
            guest: hypercalls,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "flushes addresses of any number without end",
            guest: flushes,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "writes anything to the MSR of its mode",
            guest: any_mode,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its cell where there is no memory",
            guest: cell_in_a_hole,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its cell in the runtime image",
            guest: cell_in_the_image,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its cell among its own tables",
            guest: cell_in_tables,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "unmaps the page of its cell",
            guest: unmapped_cell,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "switches its mode on and off all the time",
            guest: back_and_forth,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "goes to user mode and back with any flags",
            guest: round_trips,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has tables that user mode may not use",
            guest: private_tables,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has no tables for user mode, or wild ones",
            guest: user_tables,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "returns to user mode with frames of anything",
            guest: frames,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "returns from system calls to anywhere",
            guest: system_returns,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "does in user mode what only a kernel may",
            guest: user_faults,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "runs random bytes in user mode",
            guest: random_user,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "does natively all that must be emulated",
            guest: privileged,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "raises each software interrupt",
            guest: software_interrupts,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "asks for all leaves of CPUID by its interrupt",
            guest: cpuid,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its stacks for events anywhere",
            guest: stacks,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its descriptor tables anywhere",
            guest: descriptor_tables,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its entries and bases anywhere",
            guest: entries,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "sets its control registers to anything",
            guest: control_registers,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "changes its tables all the time",
            guest: table_flood,
            patience: STAYS,
            ends: &[Stays],
        },
        Behaviour {
            name: "sends itself interrupts of any kind",
            guest: interrupts,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "has its timer interrupt it all the time",
            guest: timer_flood,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "halts with its cell off",
            guest: halt,
            patience: ENDS,
            ends: &[Halts],
        },
        Behaviour {
            name: "halts for ever with its cell on",
            guest: long_halt,
            patience: STAYS,
            ends: &[Stays],
        },
        Behaviour {
            name: "halts until its timer wakes it",
            guest: woken,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "halts with its cell anywhere",
            guest: halt_anywhere,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "changes its cell and its tables under events",
            guest: changing,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "steps through its kernel and its user mode",
            guest: steps,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "looks for the kernel of its host",
            guest: host_kernel,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "leaves the processor as no program does",
            guest: odd_processor,
            patience: STAYS,
            ends: ANYHOW,
        },
        Behaviour {
            name: "loads selectors of anything",
            guest: selectors,
            patience: STAYS,
            ends: ANYHOW,
        },
    ],
    peak: 72 << 20,
};

/// What a guest has that wants a user mode.
const GDT: u64 = 0x23_0000;
const GDT_POINTER: u64 = 0x23_0800;
const TSS: u64 = 0x23_1000;
const FRAMES: u64 = 0x24_0000;
const USER_STACK: u64 = 0x2f_f000;
const TSS_SELECTOR: u16 = 0x40;
const USER_CODE: u64 = 0x33;
const USER_DATA: u64 = 0x2b;
const RFLAGS: u64 = 0x202;

/// CR3 follows the mode; events come with GS swapped; CR2 is in the cell; and so on.
const ALL_FLAGS: u64 = 0x7f;

const IRET: &[u8] = &[0xcd, 0x17];
const SYSRET: &[u8] = &[0xcd, 0x19];
const CPUID: &[u8] = &[0xcd, 0x1a];
const HYPERCALL: &[u8] = &[0xcd, 0x1b];
const WRMSR: &[u8] = &[0x0f, 0x30];
const UD2: &[u8] = &[0x0f, 0x0b];

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const SFMASK: u32 = 0xc000_0084;
const EFER: u32 = 0xc000_0080;

/// Numbers of hypercalls.
const FIRST: u64 = 0x1000;
const SET_CR3: u64 = 0x1001;
const SET_MSR: u64 = 0x1003;
const LOAD_TR: u64 = 0x1006;
const FLUSH: u64 = 0x1007;
const HALT: u64 = 0x1009;
const SET_CELL: u64 = 0x100c;
const FLUSH_MANY: u64 = 0x100e;
const LAST: u64 = 0x100e;
const UNKNOWN: u64 = (-38_i64) as u64;

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
fn asks_and_gets_it() -> bool {
    let mut guest = asking(NATIVE_MSR);
    guest.mov(Reg::Rax, 0);
    guest.raw(&[0x8c, 0xc8]); // mov eax, cs
    guest.raw(&[0x83, 0xe0, 3]); // and eax, 3
    guest.require(Reg::Rax, 3);
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// The MSR that is not there is refused as any other that is not there.
fn asks_and_is_refused(msr: u32) -> bool {
    let mut guest = asking(msr);
    guest.require(Reg::Rsp, STACK.into());
    Survives.covers(&machine::run(&guest.survive(), ENDS, ENDS).end)
}

/// One whose stack pointer tells whether asking for the mode was a fault.
fn asking(msr: u32) -> Guest {
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
            let report = watched(&what, 2 * ENDS, || machine::run(&images, ENDS, ENDS));
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
        let what = format!("a lost cell, {seed}");
        let report = watched(&what, 2 * ENDS, || {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(MEANWHILE);
                    runtime.set_len(0).expect("a file");
                });
                machine::run_on(&runtime, Session::cold, &images, 2 * STAYS, 2 * STAYS)
            })
        });
        log.assert_unhurt(&what);
        let lost = matches!(report.end, End::Ended(Outcome::Crashed(Crash::MemoryLost)));
        assert!(lost, "{what}: {}", report.end);
    }
}

/// A guest whose kernel runs natively from here on, with flags of anything. It catches faults, on
/// a stack of their own or as they come, and has what a user mode needs.
fn native(random: &mut Random) -> Guest {
    let mut guest = usual(random);
    switch(&mut guest, CELL | flags(random));
    guest
}

/// One with all flags.
fn native_as_ours(random: &mut Random) -> Guest {
    let mut guest = usual(random);
    switch(&mut guest, CELL | ALL_FLAGS);
    guest
}

/// The same before it asks.
fn usual(random: &mut Random) -> Guest {
    prepared(random.below(2))
}

fn prepared(fault_stack: u64) -> Guest {
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

fn switch(guest: &mut Guest, value: u64) {
    guest.msr(NATIVE_MSR, value);
    guest.attempt(WRMSR);
}

fn hypercall(guest: &mut Guest, number: u64, arguments: [u64; 3]) {
    let registers = [Reg::Rbx, Reg::Rcx, Reg::Rdx];
    for (register, value) in registers.into_iter().zip(arguments) {
        guest.mov(register, value);
    }
    guest.mov(Reg::Rax, number);
    guest.attempt(HYPERCALL);
}

/// Any flags, all of them most of the time.
fn flags(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => ALL_FLAGS,
        _ => random.below(0x80),
    }
}

/// Runs this in user mode. A fault there, at its end at the latest, goes on here.
fn user_mode(guest: &mut Guest, rflags: u64, body: &[u8]) {
    // Behind three instructions: two of 10 bytes, and the return of 2.
    let start = guest.here() + 22;
    return_with(
        guest,
        [start, USER_CODE, rflags, USER_STACK, USER_DATA],
        body,
    );
}

fn return_with(guest: &mut Guest, frame: [u64; 5], body: &[u8]) {
    // One for each: there are more bytes of code than this between two of them.
    let at = FRAMES + 2 * (guest.here() - CODE);
    guest.put(at, bytes(frame));
    guest.mov(Reg::Rsp, at);
    guest.attempt(&[IRET, body, UD2].concat());
}

/// A page of its memory, or something near to what a machine has.
fn page(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => random.below(MEMORY) & !0xfff,
        _ => random.address() & !0xfff,
    }
}

fn set_cell(guest: &mut Guest, value: u8) {
    guest.mov(Reg::Rdi, CELL);
    guest.raw(&[0xc6, 0x07, value]); // mov byte ptr [rdi], value
}

fn unknown_hypercalls(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..32 {
        let number = match random.below(4) {
            0 => random.below(FIRST),
            1 => LAST + 1 + random.below(0x1000),
            2 => random.u64() | 1 << 63,
            // The low half is a number that there is.
            _ => (FIRST + random.below(LAST - FIRST + 1)) | 1 << (32 + random.below(31)),
        };
        hypercall(
            &mut guest,
            number,
            [random.u64(), random.address(), random.u64()],
        );
        guest.require(Reg::Rax, UNKNOWN);
    }
    guest.survive()
}

fn hypercalls(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..8 {
        let number = FIRST + random.below(LAST - FIRST + 1);
        let mut argument = || match random.below(4) {
            0 => random.u64(),
            1 => random.below(0x100),
            2 => page(random),
            _ => random.address(),
        };
        let arguments = [argument(), argument(), argument()];
        hypercall(&mut guest, number, arguments);
    }
    guest.survive()
}

fn flushes(random: &mut Random) -> Images {
    let mut guest = native_as_ours(random);
    let count = match random.below(3) {
        0 => random.u64(),
        1 => random.below(1 << 20),
        _ => u64::MAX,
    };
    let number = FLUSH + random.below(2);
    let number = random.one_of(&[number, FLUSH_MANY]);
    let address = random.one_of(&[DATA, CODE, 0]) + random.below(1 << 20);
    guest.repeat(2000, |guest| {
        let arguments = match random.below(2) {
            0 => [address, count, 0],
            _ => [count, address, 0],
        };
        hypercall(guest, number, arguments);
    });
    guest.survive()
}

fn any_mode(random: &mut Random) -> Images {
    let mut guest = usual(random);
    for _ in 0..8 {
        let value = match random.below(4) {
            0 => random.u64(),
            1 => random.address(),
            2 => CELL | random.below(0x1000),
            _ => page(random) | flags(random),
        };
        switch(&mut guest, value);
        guest.input(0, 1);
        if random.below(2) == 0 {
            user_mode(&mut guest, RFLAGS, &[]);
        }
    }
    guest.survive()
}

/// Uses its flag in all ways that make the hypervisor look at the cell.
fn use_cell(guest: &mut Guest, random: &mut Random) {
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

fn cell_in_a_hole(random: &mut Random) -> Images {
    let mut guest = usual(random);
    for _ in 0..4 {
        let hole = random.one_of(&[
            MEMORY,
            MEMORY - 0x1000,
            VSOCK_MMIO,
            IOAPIC,
            LOCAL_APIC,
            LOW_RAM_END,
            HIGH_RAM,
            RUNTIME + RUNTIME_ALIGNMENT,
            KVM_TSS as u64,
            1 << 45,
            0x000f_ffff_ffff_f000,
            0xffff_ffff_ffff_f000,
        ]);
        switch(&mut guest, hole | flags(random));
        use_cell(&mut guest, random);
    }
    guest.survive()
}

fn cell_in_the_image(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let page = RUNTIME + (random.below(RUNTIME_ALIGNMENT) & !0xfff);
    switch(&mut guest, page | flags(random));
    use_cell(&mut guest, random);
    guest.survive()
}

fn cell_in_tables(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let page = random.one_of(&[
        TABLES,
        USER_TABLES,
        BOOT_PDPT,
        BOOT_PML4,
        GDT,
        TSS,
        CODE,
        STACK as u64 - 0x1000,
        0,
    ]);
    switch(&mut guest, page | flags(random));
    use_cell(&mut guest, random);
    guest.survive()
}

/// Here, as far as its own tables go: the hypervisor goes by physical addresses.
fn unmapped_cell(random: &mut Random) -> Images {
    let mut guest = native(random);
    // From the first GiB everything is gone but the first, or second, 2 MiB.
    let tables = DATA + 0x1_0000;
    let keep = random.one_of(&[1, 3]);
    guest.put(tables, bytes([(tables + 0x1000) | SHARED]));
    guest.put(tables + 0x1000, bytes([(tables + 0x2000) | SHARED]));
    guest.put(
        tables + 0x2000,
        bytes((0..2).map(|i| {
            if keep >> i & 1 == 1 {
                i << 21 | 0x80 | SHARED
            } else {
                0
            }
        })),
    );
    hypercall(&mut guest, SET_CR3, [tables, 0, 0]);
    use_cell(&mut guest, random);
    guest.survive()
}

fn back_and_forth(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let values = [0, CELL, CELL | flags(random), page(random) | flags(random)];
    for _ in 0..16 {
        let value = random.one_of(&values);
        match random.below(4) {
            0 => hypercall(&mut guest, SET_MSR, [NATIVE_MSR.into(), value, 0]),
            1 => hypercall(&mut guest, SET_CELL, [value, 0, 0]),
            _ => switch(&mut guest, value),
        }
        use_cell(&mut guest, random);
    }
    guest.survive()
}

fn round_trips(random: &mut Random) -> Images {
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

/// Which makes it fault for ever.
fn private_tables(random: &mut Random) -> Images {
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

fn user_tables(random: &mut Random) -> Images {
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

fn frames(random: &mut Random) -> Images {
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

fn system_returns(random: &mut Random) -> Images {
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

/// Instructions that are not for user mode, or come from there.
const FAULTS: [&[u8]; 26] = [
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

fn user_faults(random: &mut Random) -> Images {
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

fn random_user(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..16 {
        let length = 1 + random.below(64) as usize;
        user_mode(&mut guest, RFLAGS, &random.bytes(length));
    }
    guest.survive()
}

fn privileged(random: &mut Random) -> Images {
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

fn software_interrupts(random: &mut Random) -> Images {
    let mut guest = native(random);
    for _ in 0..32 {
        guest.mov(Reg::Rax, random.u64());
        guest.mov(Reg::Rcx, random.address());
        guest.mov(Reg::Rsp, u64::from(STACK) - 0x100);
        // The others are not emulated: that is the end of a guest.
        guest.attempt(random.one_of(&[IRET, SYSRET, CPUID, HYPERCALL]));
    }
    guest.attempt(&[0xcd, random.u8()]);
    guest.survive()
}

fn cpuid(random: &mut Random) -> Images {
    let mut guest = native(random);
    guest.mov(
        Reg::Rsi,
        random.one_of(&[0, 0x4000_0000, 0x8000_0000, 0xffff_ff00]),
    );
    let subleaf = random.below(8);
    guest.repeat(0x100, |guest| {
        guest.raw(&[0x89, 0xf0]); // mov eax, esi
        guest.mov(Reg::Rcx, subleaf);
        guest.attempt(CPUID);
        guest.raw(&[0xff, 0xc6]); // inc esi
    });
    guest.survive()
}

fn stacks(random: &mut Random) -> Images {
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

fn descriptor_tables(random: &mut Random) -> Images {
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

fn entries(random: &mut Random) -> Images {
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

fn control_registers(random: &mut Random) -> Images {
    const MOVES: [&[u8]; 4] = [
        &[0x0f, 0x22, 0xc0],       // mov cr0, rax
        &[0x0f, 0x22, 0xd8],       // mov cr3, rax
        &[0x0f, 0x22, 0xe0],       // mov cr4, rax
        &[0x44, 0x0f, 0x22, 0xc0], // mov cr8, rax
    ];
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
                guest.attempt(random.one_of(&MOVES));
            }
        }
        user_mode(&mut guest, RFLAGS, &[]);
    }
    guest.survive()
}

/// Thousands of roots, which lead to the same tables, and user mode under some of them.
fn table_flood(random: &mut Random) -> Images {
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

const APIC_COMMAND: u64 = LOCAL_APIC + 0x300;

fn enable_apic(guest: &mut Guest) {
    guest.store(LOCAL_APIC + 0xf0, 0x1ff);
}

fn interrupts(random: &mut Random) -> Images {
    let mut guest = native(random);
    enable_apic(&mut guest);
    for _ in 0..8 {
        set_cell(&mut guest, random.one_of(&[0, 1, 0xff]));
        guest.store(APIC_COMMAND + 0x10, random.one_of(&[0, 1 << 24, u32::MAX]));
        guest.store(APIC_COMMAND, random.u32() & 0x000c_cfff);
        match random.below(4) {
            0 => hypercall(&mut guest, 0, [0; 3]),
            1 => user_mode(&mut guest, RFLAGS, &[]),
            2 => guest.attempt(&[0xfb, 0x90, 0xfa]), // sti; nop; cli
            _ => guest.store(LOCAL_APIC + random.below(0x40) * 0x10, random.u32()),
        }
    }
    guest.survive()
}

/// As often as it can be had; in user mode, or in the kernel.
fn timer_flood(random: &mut Random) -> Images {
    const PERIODIC: u32 = 0x2_0000;
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

fn halt(random: &mut Random) -> Images {
    let mut guest = native(random);
    set_cell(&mut guest, 0);
    match random.below(3) {
        0 => hypercall(&mut guest, HALT, [0; 3]),
        1 => guest.raw(&[0xfb]), // sti
        _ => {}
    }
    guest.halt()
}

fn halting(guest: &mut Guest, random: &mut Random) {
    guest.mov(Reg::Rax, HALT);
    guest.attempt(random.one_of(&[&[0xf4], HYPERCALL]));
}

/// Nothing will ever interrupt it.
fn long_halt(random: &mut Random) -> Images {
    let mut guest = native(random);
    set_cell(&mut guest, 1 + random.below(255) as u8);
    guest.forever(|guest| halting(guest, random));
    guest.images()
}

fn set_timer(guest: &mut Guest, nanoseconds: u32, mode: u32) {
    const VECTOR: u32 = 0x40;
    guest.store(LOCAL_APIC + 0xf0, 0x1ff);
    // Divided by 1: a cycle of KVM's is a nanosecond.
    guest.store(LOCAL_APIC + 0x3e0, 0xb);
    guest.store(LOCAL_APIC + 0x320, mode | VECTOR);
    guest.store(LOCAL_APIC + 0x380, nanoseconds);
}

/// Also after more than the second after which we look up.
fn woken(random: &mut Random) -> Images {
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

fn halt_anywhere(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let cell = match random.below(2) {
        0 => page(random),
        _ => random.u64() & 0x000f_ffff_ffff_f000,
    };
    switch(&mut guest, cell | flags(random));
    halting(&mut guest, random);
    guest.halt()
}

/// With its timer at work, what an event needs is written to.
fn changing(random: &mut Random) -> Images {
    const PERIODIC: u32 = 0x2_0000;
    let mut guest = native(random);
    set_timer(&mut guest, 200_000, PERIODIC);
    for _ in 0..16 {
        guest.store(LOCAL_APIC + 0xb0, 0);
        set_cell(&mut guest, random.u8());
        let place = random.one_of(&[
            TABLES,
            USER_TABLES,
            TABLES + UPPER_ENTRY,
            TSS + 4,
            GDT + 0x40,
            GDT + 0x10,
            CELL,
            CELL + 8,
        ]);
        let value = match random.below(3) {
            0 => random.u64(),
            1 => page(random) | SHARED,
            _ => BOOT_PDPT | SHARED,
        };
        guest.mov(Reg::Rdi, place);
        guest.mov(Reg::Rax, value);
        guest.attempt(&[0x48, 0x87, 0x07]); // xchg [rdi], rax
        use_cell(&mut guest, random);
        // As it was, unless that fails.
        guest.mov(Reg::Rdi, place);
        guest.attempt(&[0x48, 0x87, 0x07]);
    }
    guest.survive()
}

fn steps(random: &mut Random) -> Images {
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

/// Where the KVM has its own, and where Linux has its memory, text, stacks and entries
/// (Documentation/arch/x86/x86_64/mm.rst). The guest maps none of it, so each access is a fault of its own, to it.
fn host_kernel(random: &mut Random) -> Images {
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

/// What user mode may set, so that the host has to mind it.
fn odd_processor(random: &mut Random) -> Images {
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

fn selectors(random: &mut Random) -> Images {
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
