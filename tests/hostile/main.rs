//! Hostile guests: bare machine code, generated from seeds, in the real machine on the real KVM.
//!
//! Each family is a table of behaviours. A variant is a family and a seed: the seed names the
//! behaviour and decides its numbers. Each variant must end as its behaviour may, before its
//! time is up; and when a family is through, the process must hold what it held before.
//!
//! `HOSTILE_SEED=vsock:123` runs that variant alone and prints how it ended; `HOSTILE_BASE=1000`
//! starts each family's seeds there.

mod cpu;
mod family;
mod guest;
mod machine;
mod process;
mod random;

#[test]
fn a_processor_set_to_anything_ends_in_an_outcome() {
    cpu::FAMILY.run(160);
}
