//! Virtqueues that no driver would make (virtio 1.2, 2.7).

use crate::driver::*;
use crate::family::{Behaviour, ENDS, Family};
use crate::guest::{Guest, Images, MEMORY};
use crate::machine::Ends::*;
use crate::random::Random;

pub const FAMILY: Family = Family {
    name: "virtqueue",
    behaviours: &[
        Behaviour {
            name: "has its rings where there is no memory",
            guest: rings_in_holes,
            patience: ENDS,
            ends: &[Survives, Exits(7), Breaks("")],
        },
        Behaviour {
            name: "has its rings on top of each other",
            guest: overlapping,
            patience: ENDS,
            ends: &[Survives, Exits(7), Breaks("")],
        },
        Behaviour {
            name: "jumps with its available index",
            guest: index_jumps,
            patience: ENDS,
            ends: &[Survives],
        },
        Behaviour {
            name: "changes a queue that is in use",
            guest: changed_in_use,
            patience: ENDS,
            ends: &[Exits(7)],
        },
        Behaviour {
            name: "makes a chain without end",
            guest: loops,
            patience: ENDS,
            ends: &[Breaks("descriptor chain without end")],
        },
        Behaviour {
            name: "names descriptors that are not in the table",
            guest: heads_outside,
            patience: ENDS,
            ends: &[Breaks("")],
        },
        Behaviour {
            name: "uses indirect descriptors, which were never offered",
            guest: indirect,
            patience: ENDS,
            ends: &[Survives, Exits(7), Breaks("")],
        },
        Behaviour {
            name: "has buffers that are longer than its memory",
            guest: long_buffers,
            patience: ENDS,
            ends: &[Breaks("")],
        },
        Behaviour {
            name: "has no room for a header to receive",
            guest: short_receive_buffers,
            patience: ENDS,
            ends: &[Breaks("without room for a header")],
        },
        Behaviour {
            name: "resets the device under way",
            guest: resets,
            patience: ENDS,
            ends: &[ShutsDown],
        },
        Behaviour {
            name: "makes queues of anything",
            guest: anything,
            patience: ENDS,
            ends: &[Survives, Exits(7), Breaks(""), ShutsDown],
        },
    ],
    peak: 24 << 20,
};

/// Returns the agent's report that the program exited with status 7, which shows that the device
/// still works.
fn exit_claim() -> Vec<Packet> {
    let mut frames = Vec::new();
    guest::encode(&guest::Frame::Ready, &mut frames);
    guest::encode(&guest::Frame::Exit(guest::Exit::Exited(7)), &mut frames);
    vec![Packet::new(REQUEST, &[]), Packet::new(READ_WRITE, &frames)]
}

/// Returns a multiple of 16, as the address of a table must be.
fn aligned(random: &mut Random) -> u64 {
    random.address() & !0xf
}

fn rings_in_holes(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    let mut receive = receiving(16, 4096);
    let queue = match random.below(2) {
        0 => &mut receive,
        _ => &mut transmit,
    };
    match random.below(3) {
        0 => queue.table = aligned(random),
        1 => queue.available = aligned(random),
        _ => queue.used = aligned(random),
    }
    start(&mut guest, &receive, &transmit);
    notify(&mut guest, TRANSMIT);
    notify(&mut guest, RECEIVE);
    guest.survive()
}

fn overlapping(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    let receive = receiving(16, 4096);
    let near = |random: &mut Random, address: u64| address + random.below(16) * 4;
    match random.below(4) {
        0 => transmit.used = near(random, transmit.available),
        1 => transmit.used = near(random, transmit.table),
        2 => transmit.used = near(random, receive.available),
        _ => transmit.available = near(random, transmit.table),
    }
    start(&mut guest, &receive, &transmit);
    notify(&mut guest, TRANSMIT);
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn index_jumps(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    transmit.size = 1 << random.below(9);
    transmit.index = transmit.size as u16 + 1 + random.below(30_000) as u16;
    start(&mut guest, &receiving(16, 4096), &transmit);
    (0..4).for_each(|_| notify(&mut guest, TRANSMIT));
    guest.survive()
}

/// Changes a queue in use, which must go on as it was.
fn changed_in_use(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &exit_claim());
    start(&mut guest, &receiving(16, 4096), &transmit);
    set(&mut guest, 0x30, TRANSMIT);
    for _ in 0..16 {
        let register = random.one_of(&[QUEUE_SIZE, QUEUE_READY, 0x80, 0x84, 0x90, 0x94, 0xa0]);
        set(&mut guest, register, random.u32());
    }
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn loops(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let length = 1 + random.below(255) as u16;
    let back_to = random.below(length.into()) as u16;
    let number = random.one_of(&[RECEIVE, TRANSMIT]);
    let flags = NEXT | if number == RECEIVE { WRITE } else { 0 };
    let descriptors = (0..length).map(|index| Descriptor {
        address: BUFFERS + random.below(0x1000),
        length: random.below(64) as u32,
        flags,
        next: if index + 1 == length {
            back_to
        } else {
            index + 1
        },
    });
    let mut queue = Queue::new(number, descriptors.collect());
    (queue.heads, queue.index) = (vec![0], 1);
    match number {
        RECEIVE => {
            let transmit = sending(&mut guest, &exit_claim()[..1]);
            start(&mut guest, &queue, &transmit);
        }
        _ => start(&mut guest, &receiving(16, 4096), &queue),
    }
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn heads_outside(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    transmit.size = 1 << random.below(8);
    let outside = transmit.size as u16 + random.below(60_000) as u16;
    match random.below(2) {
        0 => transmit.heads[0] = outside,
        _ => {
            transmit.descriptors[0].length = 20;
            transmit.descriptors[0].flags = NEXT;
            transmit.descriptors[0].next = outside;
        }
    }
    transmit.index = 1;
    start(&mut guest, &receiving(16, 4096), &transmit);
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn indirect(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    let table = BUFFERS + 0x8_0000;
    let count = random.one_of(&[0, 1, 2, 64, 65, 1000, 65_535, 65_536]);
    // Nested, or one that holds the buffer, or a chain of many.
    let flags = random.one_of(&[INDIRECT, 0, NEXT]);
    let entries = (0..count.min(4096)).map(|index| Descriptor {
        flags,
        next: (index + 1) as u16,
        ..transmit.descriptors[0]
    });
    guest.put(table, encode(&entries.collect::<Vec<_>>()));
    transmit.descriptors[0] = Descriptor {
        address: if random.below(4) == 0 {
            random.address()
        } else {
            table
        },
        length: count * 16 + random.one_of(&[0, 0, 0, 7]),
        flags: INDIRECT | random.one_of(&[0, 0, NEXT]),
        next: 1,
    };
    start(&mut guest, &receiving(16, 4096), &transmit);
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn long_buffers(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim()[..1]);
    let mut receive = receiving(16, 4096);
    let length = random.one_of(&[u32::MAX, u32::MAX - 44, 1 << 31, MEMORY as u32]);
    let longer = match random.below(2) {
        0 => &mut transmit.descriptors[0],
        _ => &mut receive.descriptors[0],
    };
    longer.length = length;
    start(&mut guest, &receive, &transmit);
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

fn short_receive_buffers(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &exit_claim()[..1]);
    let mut receive = receiving(16, random.below(44) as u32);
    if random.below(2) == 0 {
        // Not to be written to.
        receive.descriptors[0].length = 4096;
        receive.descriptors[0].flags = 0;
    }
    start(&mut guest, &receive, &transmit);
    notify(&mut guest, TRANSMIT);
    guest.survive()
}

/// Resets the device under an open connection, after some of its packets.
fn resets(random: &mut Random) -> Images {
    let mut guest = talking(&exit_claim()[..1]);
    for _ in 0..random.below(4) {
        notify(&mut guest, random.u32());
    }
    set(&mut guest, STATUS, 0);
    guest.survive()
}

fn anything(random: &mut Random) -> Images {
    let mut guest = Guest::new();
    let mut transmit = sending(&mut guest, &exit_claim());
    let mut receive = receiving(16, 4096);
    for queue in [&mut transmit, &mut receive] {
        for _ in 0..random.below(4) {
            let index = random.below(queue.descriptors.len() as u64) as usize;
            let descriptor = &mut queue.descriptors[index];
            match random.below(8) {
                0 => queue.size = random.below(300) as u32,
                1 => queue.index = random.u16(),
                2 => queue.heads[index] = random.u16(),
                3 => descriptor.address = random.address(),
                4 => descriptor.length = random.u32() >> random.below(32),
                5 => descriptor.flags = random.u16() & 7,
                6 => descriptor.next = random.below(300) as u16,
                _ => queue.used = queue.table + random.below(0x4000),
            }
        }
    }
    start(&mut guest, &receive, &transmit);
    for _ in 0..8 {
        notify(&mut guest, random.below(4) as u32);
    }
    guest.survive()
}
