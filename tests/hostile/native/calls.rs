//! The kernel's calls to the hypervisor.

use super::parts::*;
use crate::guest::*;
use crate::random::Random;

pub fn unknown_hypercalls(random: &mut Random) -> Images {
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

pub fn hypercalls(random: &mut Random) -> Images {
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

pub fn flushes(random: &mut Random) -> Images {
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

pub fn software_interrupts(random: &mut Random) -> Images {
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

pub fn cpuid(random: &mut Random) -> Images {
    let mut guest = native(random);
    guest.ask_leaves(random.one_of(&LEAVES), random.below(8), CPUID);
    guest.survive()
}
