//! Guests of a few instructions and no kernel, in the real VM: each way to end has its name.

use crate::common::mode;
use sandbox::internals::devices::Violation;
use sandbox::internals::devices::vsock::Peer;
use sandbox::internals::outcome::Crash;
use sandbox::internals::vm::host;
use sandbox::internals::vm::{
    BootImages, Config, End, HypercallHandler, JobLimits, Vm, allow_kicks,
};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LOAD_ADDRESS: u64 = 0x100_0000;
const RUNTIME_SIZE: u64 = 2 << 20;

/// A peer that only knows when to stop.
struct Nobody(Arc<AtomicBool>);

impl Peer for Nobody {
    fn connected(&mut self) {}

    fn disconnected(&mut self) {}

    fn receive(&mut self, _: &[u8]) -> Result<(), Violation> {
        Ok(())
    }

    fn transmit(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn is_done(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl HypercallHandler for Nobody {
    fn output(&mut self, _: u8, _: &[u8]) -> Result<(), Violation> {
        Ok(())
    }

    fn job(&mut self, _: usize) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn limits(&self) -> JobLimits {
        JobLimits {
            withheld: 0,
            pids: 100,
        }
    }

    fn files(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn no_files(&mut self, _: u8) {}

    fn exited(&mut self, _: u8) {}

    fn wants_stdin(&mut self) {}

    fn input(&mut self, _: usize) -> Vec<u8> {
        Vec::new()
    }

    fn has_begun(&self) -> bool {
        true
    }
}

/// Makes an ELF kernel of this code (System V ABI, chapters 4 and 5).
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const PROGRAM_HEADER: u64 = 56;
    let offset = HEADER + PROGRAM_HEADER;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([LOAD_ADDRESS, HEADER, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    file.extend([1u32, 7].map(u32::to_le_bytes).concat());
    let size = code.len() as u64;
    file.extend(
        [offset, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 1]
            .map(u64::to_le_bytes)
            .concat(),
    );
    file.extend(code);
    file
}

/// Runs the code until it ends by itself.
fn run(code: &[u8]) -> End {
    run_for(3000, code)
}

/// Runs the code until it ends, or until so many hundredths of a second are over.
fn run_for(patience: u32, code: &[u8]) -> End {
    allow_kicks().unwrap();
    let kvm = host::open(Path::new("/dev/kvm")).expect("these tests need KVM");
    let runtime: File = tempfile::tempfile().unwrap();
    runtime.set_len(RUNTIME_SIZE).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let config = Config {
        memory: 64 << 20,
        runtime,
        layers: &[],
        images: BootImages {
            kernel: &elf(code),
            agent: b"",
        },
        console: None,
    };
    let peer = Nobody(Arc::clone(&stop));
    let vm = Vm::boot(&kvm, mode(), config, peer).unwrap();
    run_to_its_end(vm, &stop, patience).1
}

/// Runs a machine until it ends, or until `stop` is set after so many hundredths of a second.
pub fn run_to_its_end<H: Peer + HypercallHandler + Send + 'static>(
    mut vm: Vm<H>,
    stop: &AtomicBool,
    patience: u32,
) -> (Vm<H>, End) {
    let kicker = Arc::new(vm.kicker());
    let its_kicker = Arc::clone(&kicker);
    let thread = std::thread::spawn(move || {
        its_kicker.enlist().unwrap();
        let end = vm.run().unwrap();
        (vm, end)
    });
    for tick in 0.. {
        if thread.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        stop.store(tick > patience, Ordering::Release);
        kicker.kick();
    }
    thread.join().unwrap()
}

#[test]
fn an_exception_without_a_handler_is_a_triple_fault() {
    assert_eq!(run(&[0x0f, 0x0b]), End::Crashed(Crash::TripleFault)); // ud2
}

#[test]
fn a_halt_with_interrupts_off_is_for_good() {
    assert_eq!(run(&[0xfa, 0xf4]), End::Crashed(Crash::Halted)); // cli; hlt
}

#[test]
fn a_pulse_on_the_reset_line_is_a_reset() {
    // mov $0xfe, %al; out %al, $0x64; hlt
    assert_eq!(
        run(&[0xb0, 0xfe, 0xe6, 0x64, 0xf4]),
        End::Crashed(Crash::Reset)
    );
}

#[test]
fn a_spin_with_interrupts_off_stops_when_told() {
    assert_eq!(run_for(50, &[0xfa, 0xeb, 0xfe]), End::Done); // cli; jmp .
}

#[test]
fn a_service_at_a_bad_address_does_nothing_and_says_so() {
    // Resets the machine if RCX and RDI are as they were, else faults.
    let code = [
        &[0x48, 0xc7, 0xc1, 0xff, 0xff, 0xff, 0xff][..], // mov $-1, %rcx
        &[0x48, 0xbf, 0, 0, 0, 0, 0x70, 0, 0, 0],        // mov $0x7000000000, %rdi
        &[0x48, 0x89, 0xfb],                             // mov %rdi, %rbx
        &[0xb8, 2, 0, 0, 0, 0xe7, 0xe4],                 // mov $2, %eax; out %eax, $0xe4
        &[0x48, 0xff, 0xc1, 0x75, 0x09],                 // inc %rcx; jnz fault
        &[0x48, 0x39, 0xfb, 0x75, 0x04],                 // cmp %rdi, %rbx; jne fault
        &[0xb0, 0xfe, 0xe6, 0x64],                       // mov $0xfe, %al; out %al, $0x64
        &[0x0f, 0x0b],                                   // fault: ud2
    ]
    .concat();
    assert_eq!(run(&code), End::Crashed(Crash::Reset));
}
