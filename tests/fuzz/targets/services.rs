//! A guest kernel that asks for anything, through page tables of any content.

use super::driver::poke;
use super::steps;
use arbitrary::Arbitrary;
use guest::hypercall::buffer;
use kvm_bindings::{kvm_regs, kvm_sregs};
use sandbox::internals::devices::Violation;
use sandbox::internals::vm::buffer::Buffer;
use sandbox::internals::vm::hypercall::serve;
use sandbox::internals::vm::memory::Memory;
use sandbox::internals::vm::{HypercallHandler, JobLimits, RunError};
use std::fs::File;
use std::sync::LazyLock;

const RAM: u64 = 1 << 20;
const RUNTIME: u64 = 2 << 20;
/// PML4, PDPT, PD and PT: they map the first 2 MiB of virtual addresses.
const TABLES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
/// Present and writable.
const RW: u64 = 3;
/// Bytes that we hold for one request at most.
const HELD_MAX: usize = 1 << 20;
/// And that a kernel gathers before it asks.
const BUFFER: usize = buffer::SIZE - buffer::HEADER;

#[derive(Debug, Arbitrary)]
enum Step {
    /// An entry of a table; with `near`, it points into RAM.
    Entry {
        table: u8,
        index: u8,
        entry: u64,
        near: bool,
    },
    Request {
        service: u8,
        operand: u8,
        length: Length,
        to: Place,
        from: Place,
    },
    Root {
        cr3: u64,
    },
}

#[derive(Debug, Arbitrary)]
enum Length {
    Short(u16),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum Place {
    Mapped(u32),
    Any(u64),
}

/// No panic, no write to the runtime image (which would be fatal), and no more done than asked.
pub fn services(data: &[u8]) {
    let memory = memory();
    let mut buffer = Buffer::default();
    let mut sregs = kvm_sregs {
        cr3: TABLES[0],
        ..kvm_sregs::default()
    };
    for step in steps(data) {
        match step {
            Step::Root { cr3 } => sregs.cr3 = cr3,
            Step::Entry {
                table,
                index,
                entry,
                near,
            } => {
                let entry = if near { (entry % RAM) | RW } else { entry };
                let at = TABLES[usize::from(table % 4)] + 8 * u64::from(index);
                poke(memory.ram(), at, &entry.to_le_bytes());
            }
            Step::Request {
                service,
                operand,
                length,
                to,
                from,
            } => {
                let regs = kvm_regs {
                    rax: u64::from(service % 11) | u64::from(operand) << 8,
                    rcx: length.bytes(),
                    rdi: to.address(),
                    rsi: from.address(),
                    ..kvm_regs::default()
                };
                if !request(regs, &sregs, &memory, &mut buffer) {
                    break;
                }
                if let Some((stream, bytes)) = buffer.take(&memory) {
                    assert!(matches!(stream, 1 | 2) && (1..=BUFFER).contains(&bytes.len()));
                }
            }
        }
    }
}

/// Whether the guest goes on.
fn request(before: kvm_regs, sregs: &kvm_sregs, memory: &Memory, buffer: &mut Buffer) -> bool {
    let mut after = before;
    let served = serve(&mut after, sregs, memory, &mut Kernel, buffer, &mut 0);
    let done = before
        .rcx
        .checked_sub(after.rcx)
        .expect("done at most what was asked");
    match before.rax as u8 {
        0 => assert_eq!(after.rdi, before.rdi.wrapping_add(done)),
        1 => {
            assert_eq!(after.rdi, before.rdi.wrapping_add(done));
            assert_eq!(after.rsi, before.rsi.wrapping_add(done));
        }
        2 | 3 | 4 | 7 | 10 => assert!(done <= HELD_MAX as u64),
        _ => assert_eq!(done, 0),
    }
    match served {
        Ok(_) => true,
        Err(RunError::Crashed(_)) => false,
        Err(RunError::Failed(error)) => panic!("{error:#}"),
    }
}

fn memory() -> Memory {
    static IMAGE: LazyLock<File> = LazyLock::new(|| {
        let image = tempfile::tempfile().unwrap();
        image.set_len(RUNTIME).unwrap();
        image
    });
    let memory = Memory::new(RAM, IMAGE.try_clone().unwrap(), Vec::new()).unwrap();
    for (table, next) in TABLES.into_iter().zip(&TABLES[1..]) {
        poke(memory.ram(), table, &(next | RW).to_le_bytes());
    }
    for page in 0..RAM >> 12 {
        let entry = page << 12 | RW;
        poke(memory.ram(), TABLES[3] + 8 * page, &entry.to_le_bytes());
    }
    memory
}

impl Length {
    fn bytes(&self) -> u64 {
        match *self {
            Self::Short(bytes) => bytes.into(),
            Self::Any(bytes) => bytes,
        }
    }
}

impl Place {
    fn address(&self) -> u64 {
        match *self {
            Self::Mapped(address) => u64::from(address) % RAM,
            Self::Any(address) => address,
        }
    }
}

/// Gives all that there is room for.
struct Kernel;

impl HypercallHandler for Kernel {
    fn output(&mut self, stream: u8, bytes: &[u8]) -> Result<(), Violation> {
        assert!(bytes.len() <= HELD_MAX);
        match stream {
            1 | 2 => Ok(()),
            _ => Err(Violation("no such stream".into())),
        }
    }

    fn job(&mut self, room: usize) -> Option<Vec<u8>> {
        Some(vec![1; room])
    }

    fn limits(&self) -> JobLimits {
        JobLimits {
            withheld: 1,
            pids: 1,
        }
    }

    fn files(&mut self, room: usize) -> Vec<u8> {
        vec![2; room]
    }

    fn no_files(&mut self, _errno: u8) {}

    fn exited(&mut self, _status: u8) {}

    fn wants_stdin(&mut self) {}

    fn input(&mut self, room: usize) -> Vec<u8> {
        vec![3; room]
    }

    fn has_begun(&self) -> bool {
        true
    }
}
