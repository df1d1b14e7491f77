//! Invalid images, which are refused before there is a guest.

use crate::family::{Behaviour, Family, STAYS};
use crate::guest::{CODE, Guest, Images, MEMORY, bytes, elf};
use crate::machine::Ends::*;
use crate::random::Random;
use sandbox::internals::image::store;
use std::sync::LazyLock;

pub const FAMILY: Family = Family {
    name: "loader",
    behaviours: &[
        Behaviour {
            name: "changes the headers of a small kernel",
            guest: small_kernel,
            patience: STAYS,
            ends: &[Refused, Anyhow],
        },
        Behaviour::ends("cuts a kernel short", short_kernel, &[Refused]),
        Behaviour {
            name: "changes our own kernel",
            guest: our_kernel,
            patience: STAYS,
            ends: &[Refused, Anyhow],
        },
        Behaviour::ends(
            "loads segments where there is no memory",
            misplaced,
            &[Refused],
        ),
        Behaviour::ends("has notes of any length", notes, &[Refused, Survives]),
        Behaviour::ends(
            "loads segments over what we put there",
            over_ours,
            &[Survives],
        ),
        Behaviour::ends("is no kernel at all", no_kernel, &[Refused]),
        Behaviour {
            name: "has an agent of any size",
            guest: agent,
            patience: STAYS,
            ends: &[Refused, Anyhow],
        },
    ],
    // The largest agent, its archive, and the guest's copy of that.
    peak: 3 * MEMORY,
};

/// The bytes of the file header and the program headers of an image, at least the first ones.
const HEADERS: u64 = 64 + 56 * 3;
/// The offset of the program headers, and in each the offsets of the segment's place in the file
/// and of its length there.
const FIRST_PROGRAM_HEADER: usize = 64;
const OFFSET: usize = 8;
const FILE_LENGTH: usize = 32;

fn small_kernel(random: &mut Random) -> Images {
    let mut images = Guest::new().survive();
    change(&mut images.kernel, HEADERS, random);
    images
}

fn change(image: &mut [u8], end: u64, random: &mut Random) {
    for _ in 0..1 + random.below(8) {
        let position = random.below(end) as usize;
        let any = random.u8();
        image[position] = random.one_of(&[0, 1, 0x7f, 0x80, 0xff, any]);
    }
}

fn short_kernel(random: &mut Random) -> Images {
    let mut images = Guest::new().survive();
    let length = random.below(images.kernel.len() as u64);
    images.kernel.truncate(length as usize);
    images
}

fn our_kernel(random: &mut Random) -> Images {
    static KERNEL: LazyLock<Vec<u8>> = LazyLock::new(|| store::kernel().expect("our kernel"));
    let mut kernel = KERNEL.clone();
    let end = match random.below(2) {
        0 => HEADERS,
        _ => kernel.len() as u64,
    };
    change(&mut kernel, end, random);
    Images {
        kernel,
        agent: random.bytes(1000),
    }
}

fn misplaced(random: &mut Random) -> Images {
    let address = random.one_of(&[
        MEMORY,
        MEMORY - 10,
        sandbox::internals::vm::layout::LOW_RAM_END,
        sandbox::internals::vm::layout::RUNTIME,
        u64::MAX - 10,
        1 << 52,
    ]);
    let mut guest = Guest::new();
    guest.put(address, random.bytes(100));
    guest.survive()
}

/// Changes a note, as in GHSA-52h2-m2cf-9jh6: its lengths decide where the next is looked for.
fn notes(random: &mut Random) -> Images {
    const NOTE: u8 = 4;
    let mut images = Guest::new().survive();
    let start = images.kernel.len();
    for _ in 0..8 {
        let lengths = [0, 4, 12, u32::MAX, u32::MAX - 3, u32::MAX - 11, 1 << 31];
        for word in [random.one_of(&lengths), random.one_of(&lengths)] {
            images.kernel.extend(word.to_le_bytes());
        }
        images.kernel.extend(random.below(20).to_le_bytes());
    }
    // The last program header: one of data that the guest can do without.
    let count = u16::from_le_bytes([images.kernel[56], images.kernel[57]]);
    let header = FIRST_PROGRAM_HEADER + 56 * usize::from(count - 1);
    images.kernel[header] = NOTE;
    let length = random.one_of(&[0, 12, 128, 1 << 40, u64::MAX]);
    set(&mut images.kernel, header + OFFSET, start as u64);
    set(&mut images.kernel, header + FILE_LENGTH, length);
    if random.below(4) == 0 {
        set(&mut images.kernel, header + OFFSET, random.address());
    }
    images
}

fn set(image: &mut [u8], position: usize, value: u64) {
    image[position..position + 8].copy_from_slice(&value.to_le_bytes());
}

fn over_ours(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    guest.put(random.below(0x7000), random.bytes(0x9000));
    guest.put(MEMORY - 4096, random.bytes(4096));
    guest.survive()
}

fn no_kernel(random: &mut Random) -> Images {
    let kernel = match random.below(3) {
        0 => Vec::new(),
        1 => random.bytes(4096),
        // An entry below where kernels are.
        _ => elf(random.below(CODE), &[(CODE, bytes([0]))]),
    };
    Images {
        kernel,
        agent: random.bytes(100),
    }
}

fn agent(random: &mut Random) -> Images {
    let mut images = Guest::new().survive();
    let size = random.one_of(&[0, 1, 4095, 1 << 20, 40 << 20, MEMORY]);
    images.agent = vec![random.u8(); size as usize];
    images
}
