//! Tests of the buffer of output in the guest's memory.

use super::*;
use crate::vm::layout::{RUNTIME, RUNTIME_ALIGNMENT};
use proptest::prelude::*;
use vm_memory::GuestAddress;

const RAM: u64 = 1 << 20;

fn memory() -> Memory {
    let runtime = tempfile::tempfile().unwrap();
    runtime.set_len(RUNTIME_ALIGNMENT).unwrap();
    Memory::new(RAM, runtime, Vec::new()).unwrap()
}

/// Takes the output of a buffer at this address, with this header and bytes that count up.
fn taken(memory: &Memory, address: u64, header: [u32; 3]) -> Option<(u8, Vec<u8>)> {
    let ram = memory.ram();
    let bytes: Vec<u8> = (0..SIZE - HEADER).map(|index| index as u8).collect();
    // Bytes beyond the end of memory are dropped.
    let _ = ram.write(&bytes, GuestAddress(address.wrapping_add(HEADER as u64)));
    let _ = ram.write_obj(header, GuestAddress(address));
    let mut buffer = Buffer::default();
    buffer.move_to(address);
    buffer.take(memory)
}

#[test]
fn what_it_holds_is_taken_once() {
    let memory = memory();
    let held = taken(&memory, 0x1000, [5, 8, 2]);
    assert_eq!(held, Some((2, vec![5, 6, 7])));
    let mut buffer = Buffer::default();
    assert_eq!(buffer.take(&memory), None, "nobody has said where it is");
    buffer.move_to(0x1000);
    assert_eq!(buffer.take(&memory), None);
    let header: [u32; 3] = memory.ram().read_obj(GuestAddress(0x1000)).unwrap();
    assert_eq!(header, [8, 8, 2]);
}

#[test]
fn a_buffer_that_is_not_all_in_ram_holds_nothing() {
    let memory = memory();
    let last = RAM - SIZE as u64;
    assert!(taken(&memory, last, [0, 9, 1]).is_some());
    let end = RUNTIME + RUNTIME_ALIGNMENT;
    for address in [last + 1, RAM - 1, RAM, RUNTIME, end - 1, end, u64::MAX, 0] {
        assert_eq!(taken(&memory, address, [0, 9, 1]), None, "{address:#x}");
    }
}

proptest! {
    #[test]
    fn any_header_gives_bytes_of_the_buffer_or_nothing(
        sent in prop_oneof![any::<u32>(), 0..70_000u32],
        filled in prop_oneof![any::<u32>(), 0..70_000u32],
        stream in 0..7u32,
    ) {
        let held = taken(&memory(), 0x3001, [sent, filled, stream]);
        let is_right = sent < filled && filled as usize <= SIZE - HEADER;
        let is_known = stream == 1 || stream == 2;
        let bytes = (sent..filled).map(|index| index as u8);
        let expected = (is_right && is_known).then(|| (stream as u8, bytes.collect()));
        prop_assert_eq!(held, expected);
    }
}
