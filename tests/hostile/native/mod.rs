//! A hostile kernel that a software KVM runs natively: its interrupt flag is a cell in its memory,
//! it calls the hypervisor by software interrupts, and its own mode and user mode are both the
//! processor's user mode.

mod calls;
mod cell;
mod events;
mod parts;
mod tables;
mod trials;
mod unknown;
mod user;

pub use trials::{is_available, is_given_or_refused, lost_cell, sweep};
pub use unknown::{FAMILY as UNKNOWN, is_named};

use crate::family::{Behaviour, Family};
use crate::machine::Ends::*;

pub const FAMILY: Family = Family {
    name: "native",
    behaviours: &[
        Behaviour::ends(
            "calls the hypervisor with numbers that there are not",
            calls::unknown_hypercalls,
            &[Survives],
        ),
        Behaviour::anyhow(
            "calls the hypervisor with each number and anything",
            calls::hypercalls,
        ),
        Behaviour::anyhow(
            "flushes addresses of any number without end",
            calls::flushes,
        ),
        Behaviour::anyhow("writes anything to the MSR of its mode", cell::any_mode),
        Behaviour::anyhow("has its cell where there is no memory", cell::in_a_hole),
        Behaviour::anyhow("has its cell in the runtime image", cell::in_the_image),
        Behaviour::anyhow("has its cell among its own tables", cell::in_tables),
        Behaviour::anyhow("unmaps the page of its cell", cell::unmapped),
        Behaviour::anyhow(
            "switches its mode on and off all the time",
            cell::back_and_forth,
        ),
        Behaviour::anyhow(
            "goes to user mode and back with any flags",
            user::round_trips,
        ),
        Behaviour::anyhow(
            "has tables that user mode may not use",
            tables::private_tables,
        ),
        Behaviour::anyhow(
            "has no tables for user mode, or wild ones",
            tables::user_tables,
        ),
        Behaviour::anyhow("returns to user mode with frames of anything", user::frames),
        Behaviour::anyhow(
            "returns from system calls to anywhere",
            user::system_returns,
        ),
        Behaviour::anyhow(
            "does in user mode what only a kernel may",
            user::user_faults,
        ),
        Behaviour::anyhow("runs random bytes in user mode", user::random_user),
        Behaviour::anyhow("does natively all that must be emulated", user::privileged),
        Behaviour::anyhow("raises each software interrupt", calls::software_interrupts),
        Behaviour::anyhow(
            "asks for all leaves of CPUID by its interrupt",
            calls::cpuid,
        ),
        Behaviour::anyhow("has its stacks for events anywhere", tables::stacks),
        Behaviour::anyhow(
            "has its descriptor tables anywhere",
            tables::descriptor_tables,
        ),
        Behaviour::anyhow("has its entries and bases anywhere", tables::entries),
        Behaviour::anyhow(
            "sets its control registers to anything",
            tables::control_registers,
        ),
        Behaviour::stays("changes its tables all the time", tables::table_flood),
        Behaviour::anyhow("sends itself interrupts of any kind", events::interrupts),
        Behaviour::anyhow(
            "has its timer interrupt it all the time",
            events::timer_flood,
        ),
        Behaviour::ends("halts with its cell off", events::halt, &[Halts]),
        Behaviour::stays("halts for ever with its cell on", events::long_halt),
        Behaviour::ends("halts until its timer wakes it", events::woken, &[Survives]),
        Behaviour::anyhow("halts with its cell anywhere", events::halt_anywhere),
        Behaviour::anyhow(
            "changes its cell and its tables under events",
            cell::changing,
        ),
        Behaviour::anyhow("steps through its kernel and its user mode", user::steps),
        Behaviour::ends(
            "looks for the kernel of its host",
            tables::host_kernel,
            &[Survives],
        ),
        Behaviour::anyhow(
            "leaves the processor as no program does",
            user::odd_processor,
        ),
        Behaviour::anyhow("loads selectors of anything", user::selectors),
    ],
    peak: 72 << 20,
};
