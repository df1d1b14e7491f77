//! The MP configuration table (MultiProcessor Specification 1.4, chapter 4): one processor, one I/O
//! APIC, and the ISA interrupts wired to its pins. There is no ACPI to describe them.

use crate::devices::ioapic::PINS;
use crate::vm::layout::{IOAPIC, LOCAL_APIC, MP_TABLE};
use anyhow::{Context, Result};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const SPEC_1_4: u8 = 4;
const APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
const PROCESSOR_ID: u8 = 0;
const IOAPIC_ID: u8 = 1;
const ISA_BUS: u8 = 0;
const POINTER_SIZE: u64 = 16;
const HEADER_SIZE: usize = 44;

/// Writes the floating pointer, and the table behind it.
pub fn write(ram: &GuestMemoryMmap) -> Result<()> {
    let table = table();
    let mut pointer = Vec::from(*b"_MP_");
    pointer.extend(((MP_TABLE + POINTER_SIZE) as u32).to_le_bytes());
    pointer.extend([1, SPEC_1_4, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    pointer.extend(table);
    write_at(ram, &pointer)
}

fn write_at(ram: &GuestMemoryMmap, bytes: &[u8]) -> Result<()> {
    ram.write_slice(bytes, GuestAddress(MP_TABLE))
        .context("writing the MP table")
}

fn table() -> Vec<u8> {
    let (entries, count) = entries();
    let mut table = Vec::from(*b"PCMP");
    table.extend(((HEADER_SIZE + entries.len()) as u16).to_le_bytes());
    table.extend([SPEC_1_4, 0]);
    table.extend(b"SANDBOX MICROVM     ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend((LOCAL_APIC as u32).to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

/// Returns the entries in the order that the specification requires, and their number.
fn entries() -> (Vec<u8>, u16) {
    const PROCESSOR: u8 = 0;
    const BUS: u8 = 1;
    const IO_APIC: u8 = 2;
    const IO_INTERRUPT: u8 = 3;
    const LOCAL_INTERRUPT: u8 = 4;
    const ENABLED: u8 = 1;
    const BOOT_PROCESSOR: u8 = 2;
    const ALL_APICS: u8 = 0xff;
    const INT: u8 = 0;
    const NMI: u8 = 1;
    const EXT_INT: u8 = 3;
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut put = |entry: &[u8]| {
        bytes.extend(entry);
        count += 1;
    };
    let mut processor = [0; 20];
    processor[..4].copy_from_slice(&[
        PROCESSOR,
        PROCESSOR_ID,
        APIC_VERSION,
        ENABLED | BOOT_PROCESSOR,
    ]);
    put(&processor);
    put(&[BUS, ISA_BUS, b'I', b'S', b'A', b' ', b' ', b' ']);
    let mut ioapic = vec![IO_APIC, IOAPIC_ID, IOAPIC_VERSION, ENABLED];
    ioapic.extend((IOAPIC as u32).to_le_bytes());
    put(&ioapic);
    for irq in 0..PINS.min(16) as u8 {
        put(&[IO_INTERRUPT, INT, 0, 0, ISA_BUS, irq, IOAPIC_ID, irq]);
    }
    put(&[LOCAL_INTERRUPT, EXT_INT, 0, 0, ISA_BUS, 0, ALL_APICS, 0]);
    put(&[LOCAL_INTERRUPT, NMI, 0, 0, ISA_BUS, 0, ALL_APICS, 1]);
    (bytes, count)
}

/// Returns the byte that makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte))
}
