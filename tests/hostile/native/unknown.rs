//! Instructions that neither the processor nor the hypervisor runs for the kernel.

use super::parts::*;
use crate::family::{Behaviour, ENDS, Family};
use crate::guest::*;
use crate::machine::Ends::Unsupported;
use crate::machine::{self, End, Machine};
use crate::random::Random;
use crate::turn::{turn_of_all, watched};
use sandbox::internals::outcome::{Crash, Outcome};

/// The family of such instructions, each alone: it must be reported by a confined process, too.
pub const FAMILY: Family = Family {
    name: "unknown",
    behaviours: &[Behaviour::ends(
        "executes what nobody runs",
        |random| meets(INSTRUCTIONS[random.below(3) as usize]).0,
        &[Unsupported],
    )],
    peak: 72 << 20,
};

const INSTRUCTIONS: [&[u8]; 3] = [
    &[0x0f, 0x01, 0xca], // clac
    &[0x0f, 0x01, 0xcb], // stac
    &[0xcd, 0x42],       // int 0x42
];

/// Makes a guest that reaches this instruction; returns it with the instruction's address.
fn meets(instruction: &[u8]) -> (Images, u64) {
    let mut guest = native_as_ours(&mut Random::new("unknown", 0));
    let place = guest.here();
    guest.raw(instruction);
    (guest.survive(), place)
}

/// Checks that the instruction's bytes and address are reported, in either setting of the VMM.
pub fn is_named() {
    if !super::is_available() {
        return;
    }
    let Some(_turn) = turn_of_all() else {
        return;
    };
    for machine in [Machine::usual(), Machine::native()] {
        for code in INSTRUCTIONS {
            let (images, place) = meets(code);
            let what = format!("{code:02x?}");
            let run = || machine::run_on(&machine, &images, ENDS, ENDS);
            let end = watched(&what, 2 * ENDS, run).end;
            let End::Ended(Outcome::Crashed(Crash::Unsupported { rip, instruction })) = end else {
                panic!("{what}: {end}");
            };
            assert_eq!(rip, place, "{what}");
            assert!(instruction.starts_with(code), "{what}: {instruction:02x?}");
        }
    }
}
