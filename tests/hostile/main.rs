//! Hostile guests: bare machine code, generated from seeds, in the real machine on the real KVM.
//!
//! Each family is a table of behaviours. A variant is a family and a seed: the seed selects the
//! behaviour and decides its numbers. Each variant must end in a way that its behaviour allows,
//! before its time is up. When a family is through, the process must hold what it held before.
//!
//! `HOSTILE_SEED=vsock:123` runs that variant alone, and prints how it ended with `--nocapture`;
//! `HOSTILE_BASE=1000` makes each family's seeds begin there.

mod cpu;
mod driver;
mod family;
mod guest;
mod kernel_log;
mod loader;
mod machine;
mod memory;
mod native;
mod output;
mod ports;
mod process;
mod random;
mod services;
mod turn;
mod virtqueue;
mod vsock;

use family::Family;

/// The families, each with its number of variants.
const FAMILIES: [(&Family, u64); 8] = [
    (&cpu::FAMILY, 160),
    (&ports::FAMILY, 120),
    (&virtqueue::FAMILY, 220),
    (&vsock::FAMILY, 220),
    (&output::FAMILY, 160),
    (&memory::FAMILY, 120),
    (&services::FAMILY, 160),
    (&loader::FAMILY, 120),
];

#[test]
fn a_processor_set_to_anything_ends_in_an_outcome() {
    cpu::FAMILY.run(160);
}

#[test]
fn every_port_takes_every_width_in_both_directions() {
    ports::sweep();
}

#[test]
fn what_is_not_there_is_counted_from_a_guests_job_on() {
    ports::counts();
}

#[test]
fn any_use_of_ports_and_device_registers_ends_in_an_outcome() {
    ports::FAMILY.run(120);
}

#[test]
fn any_virtqueue_ends_in_an_outcome() {
    virtqueue::FAMILY.run(220);
}

#[test]
fn any_vsock_packet_ends_in_an_outcome() {
    vsock::FAMILY.run(220);
}

#[test]
fn anything_that_a_guest_says_ends_in_an_outcome() {
    output::FAMILY.run(160);
}

#[test]
fn ten_gib_of_output_cost_no_memory() {
    output::ten_gib();
}

#[test]
fn a_console_keeps_its_end_alone() {
    output::full_console();
}

#[test]
fn any_use_of_memory_ends_in_an_outcome() {
    memory::FAMILY.run(120);
}

#[test]
fn any_request_for_a_service_ends_in_an_outcome() {
    services::FAMILY.run(160);
}

#[test]
fn what_a_stopped_guest_had_gathered_is_read_inside_its_memory() {
    services::buffer_of_a_stopped_guest();
}

#[test]
fn any_images_end_in_an_outcome() {
    loader::FAMILY.run(120);
}

#[test]
fn the_log_of_the_hosts_kernel_is_read() {
    kernel_log::is_read();
}

#[test]
fn a_kernel_that_asks_to_run_natively_does_or_is_refused() {
    native::is_given_or_refused();
}

#[test]
fn any_kernel_that_runs_natively_ends_in_an_outcome() {
    if native::is_available() {
        native::FAMILY.run_natives(700);
    }
}

#[test]
fn what_nobody_runs_for_a_native_kernel_is_named() {
    if native::is_available() {
        native::UNKNOWN.run_natives(6);
    }
    native::is_named();
}

#[test]
fn a_native_kernel_with_any_flags_ends_in_an_outcome() {
    native::sweep();
}

#[test]
fn a_native_kernel_that_loses_its_cell_ends_in_an_outcome() {
    native::lost_cell();
}

#[test]
fn every_family_takes_a_kernel_that_runs_natively() {
    if !native::is_available() {
        return;
    }
    for (family, variants) in FAMILIES {
        family.run_natively(variants);
    }
}

#[test]
fn a_confined_process_takes_the_same_guests() {
    let natives = native::is_available().then_some(&[&native::FAMILY, &native::UNKNOWN][..]);
    family::run_confined(&FAMILIES.map(|(family, _)| family), natives);
}
