//! The page with the kernel's interrupt flag: anywhere, or gone.

use super::parts::*;
use crate::guest::*;
use crate::random::Random;
use sandbox::internals::vm::layout::*;

pub fn any_mode(random: &mut Random) -> Images {
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

pub fn in_a_hole(random: &mut Random) -> Images {
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

pub fn in_the_image(random: &mut Random) -> Images {
    let mut guest = usual(random);
    let page = RUNTIME + (random.below(RUNTIME_ALIGNMENT) & !0xfff);
    switch(&mut guest, page | flags(random));
    use_cell(&mut guest, random);
    guest.survive()
}

pub fn in_tables(random: &mut Random) -> Images {
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

/// Unmaps the cell in the guest's own tables: the hypervisor goes by physical addresses.
pub fn unmapped(random: &mut Random) -> Images {
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

pub fn back_and_forth(random: &mut Random) -> Images {
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

/// Changes memory that an event needs while the timer runs.
pub fn changing(random: &mut Random) -> Images {
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
