//! vsock packets that no driver would send (virtio 1.2, 5.10.6).

use crate::driver::*;
use crate::family::{Behaviour, ENDS, Family, STAYS};
use crate::guest::{Guest, Images};
use crate::machine::Ends::*;
use crate::random::Random;

/// The status with which a guest exits whose device still works.
const CLAIMED: u8 = 7;

pub const FAMILY: Family = Family {
    name: "vsock",
    behaviours: &[
        Behaviour {
            name: "says that a packet is longer than it is",
            guest: lengths,
            patience: ENDS,
            ends: &[Breaks("")],
        },
        Behaviour {
            name: "sends operations that there are not",
            guest: operations,
            patience: ENDS,
            ends: &[Breaks("no vsock operation")],
        },
        Behaviour {
            name: "talks to others than its host",
            guest: strangers,
            patience: ENDS,
            ends: &[Exits(CLAIMED)],
        },
        Behaviour {
            name: "sends data without a connection",
            guest: unconnected,
            patience: ENDS,
            ends: &[Exits(CLAIMED)],
        },
        Behaviour {
            name: "opens its connection twice",
            guest: twice,
            patience: ENDS,
            ends: &[Breaks("on a connection that is open")],
        },
        Behaviour {
            name: "opens connections without end",
            guest: connection_flood,
            patience: ENDS,
            ends: &[Breaks("answers that are never read")],
        },
        Behaviour {
            name: "asks for credit and never reads it",
            guest: credit_flood,
            patience: ENDS,
            ends: &[Breaks("answers that are never read")],
        },
        Behaviour {
            name: "opens and closes its connection again and again",
            guest: reconnects,
            patience: ENDS,
            ends: &[Exits(CLAIMED)],
        },
        Behaviour {
            name: "gives credit of any size, and takes it back",
            guest: credit,
            patience: ENDS,
            ends: &[Exits(CLAIMED)],
        },
        Behaviour {
            name: "has consumed what was never sent",
            guest: never_sent,
            patience: ENDS,
            ends: &[Breaks("credit for bytes never sent")],
        },
        Behaviour {
            name: "has consumed less than before",
            guest: going_back,
            patience: ENDS,
            ends: &[Breaks("credit for bytes never sent")],
        },
        Behaviour {
            name: "never gives a buffer to receive into",
            guest: never_reading,
            patience: STAYS,
            ends: &[TimesOut],
        },
        Behaviour {
            name: "sends packets of anything",
            guest: anything,
            patience: STAYS,
            ends: &[Exits(CLAIMED), Breaks(""), TimesOut, Stays],
        },
    ],
    peak: 24 << 20,
};

fn ready() -> Packet {
    Packet::new(READ_WRITE, &frame(&guest::Frame::Ready))
}

/// Returns the agent's last packet.
fn claim() -> Packet {
    let exit = guest::Frame::Exit(guest::Exit::Exited(CLAIMED));
    Packet::new(READ_WRITE, &frame(&exit))
}

fn request() -> Packet {
    Packet::new(REQUEST, &[])
}

fn frame(frame: &guest::Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    guest::encode(frame, &mut bytes);
    bytes
}

/// Sends these packets, and then a valid conversation.
fn and_claim(mut packets: Vec<Packet>) -> Images {
    packets.extend([request(), ready(), claim()]);
    talking(&packets).survive()
}

fn lengths(random: &mut Random) -> Images {
    let content = random.below(100) as usize;
    let mut packet = Packet::new(READ_WRITE, &random.bytes(content));
    packet.length = random.one_of(&[
        u32::MAX,
        u32::MAX - 43,
        1 << 31,
        (64 << 10) + 1,
        content as u32 + 1,
    ]);
    talking(&[request(), packet]).survive()
}

fn operations(random: &mut Random) -> Images {
    let operation = match random.below(4) {
        0 => 0,
        1 => 8,
        _ => 8 + random.below(65_528) as u16,
    };
    talking(&[request(), Packet::new(operation, &[])]).survive()
}

fn strangers(random: &mut Random) -> Images {
    let packets = (0..12).map(|_| {
        let mut packet = Packet::new(1 + random.below(7) as u16, &[]);
        match random.below(4) {
            0 => packet.source.0 = random.one_of(&[0, 1, 2, 4, u64::MAX, 3 | 1 << 32]),
            1 => packet.destination.0 = random.one_of(&[0, 1, 3, u64::MAX, 2 | 1 << 32]),
            2 => packet.kind = random.one_of(&[0, 2, 3, u16::MAX]),
            _ => {
                packet.operation = REQUEST;
                packet.destination.1 = 2 + random.u32() % 1000;
            }
        }
        packet
    });
    and_claim(packets.collect())
}

fn unconnected(random: &mut Random) -> Images {
    let packets = (0..12).map(|_| {
        let content = random.below(1000) as usize;
        Packet::new(2 + random.below(6) as u16, &random.bytes(content))
    });
    and_claim(packets.collect())
}

fn twice(random: &mut Random) -> Images {
    let again = Packet::new(random.one_of(&[1, 2]), &[]);
    talking(&[request(), ready(), again]).survive()
}

fn connection_flood(random: &mut Random) -> Images {
    let packets = (0..100).map(|_| {
        let mut packet = request();
        packet.source.1 = 2000 + random.below(60_000) as u32;
        packet
    });
    talking(&packets.collect::<Vec<_>>()).survive()
}

fn credit_flood(random: &mut Random) -> Images {
    let mut packets = vec![request()];
    packets.resize_with(70 + random.below(180) as usize, || {
        Packet::new(CREDIT_REQUEST, &[])
    });
    talking(&packets).survive()
}

fn reconnects(random: &mut Random) -> Images {
    let mut packets = Vec::new();
    for _ in 0..random.below(8) {
        packets.push(request());
        packets.push(Packet::new(random.one_of(&[RESET, SHUTDOWN]), &[]));
    }
    and_claim(packets)
}

fn credit(random: &mut Random) -> Images {
    let mut first = request();
    first.buffer = random.one_of(&[0, 1, u32::MAX, 1 << 31]);
    let mut packets = vec![first, ready()];
    for _ in 0..random.below(20) {
        let mut update = Packet::new(CREDIT_UPDATE, &[]);
        let any = random.u32();
        update.buffer = random.one_of(&[0, 1, 44, u32::MAX, 1 << 31, any]);
        packets.push(update);
    }
    packets.push(claim());
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &packets);
    in_steps(&mut guest, transmit, random);
    guest.survive()
}

fn never_sent(random: &mut Random) -> Images {
    let mut update = Packet::new(
        random.one_of(&[READ_WRITE, CREDIT_UPDATE, CREDIT_REQUEST]),
        &[],
    );
    let any = random.u32() | 1;
    update.consumed = random.one_of(&[1, u32::MAX, 1 << 31, any]);
    talking(&[request(), update]).survive()
}

/// Moves credit backwards. The host sends the job, which is more than 20 bytes, once it heard that
/// the agent is ready.
fn going_back(random: &mut Random) -> Images {
    let mut packets = vec![request(), ready()];
    for consumed in [20, 20, random.below(20) as u32] {
        let mut update = Packet::new(CREDIT_UPDATE, &[]);
        update.consumed = consumed;
        packets.push(update);
    }
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &packets);
    in_steps(&mut guest, transmit, random);
    guest.survive()
}

/// Sends the first two packets, then the others a few at a time.
fn in_steps(guest: &mut Guest, mut transmit: Queue, random: &mut Random) {
    let all = transmit.index;
    transmit.index = 2;
    start(guest, &receiving(16, 4096), &transmit);
    notify(guest, TRANSMIT);
    while transmit.index < all {
        transmit.index = all.min(transmit.index + 1 + random.below(3) as u16);
        // The flags, then the index.
        guest.store(transmit.available, u32::from(transmit.index) << 16);
        notify(guest, TRANSMIT);
    }
}

fn never_reading(random: &mut Random) -> Images {
    let mut packets = vec![request(), ready()];
    packets.resize_with(2 + random.below(40) as usize, || {
        Packet::new(CREDIT_REQUEST, &[])
    });
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &packets);
    start(&mut guest, &receiving(0, 0), &transmit);
    guest.forever(|guest| {
        notify(guest, TRANSMIT);
        notify(guest, RECEIVE);
    });
    guest.images()
}

fn anything(random: &mut Random) -> Images {
    let mut packets = vec![request()];
    for _ in 0..16 {
        let content = match random.below(4) {
            0 => random.bytes(64),
            1 => frame(&guest::Frame::Ready),
            _ => Vec::new(),
        };
        let mut packet = Packet::new(random.below(9) as u16, &content);
        match random.below(8) {
            0 => packet.length = random.u32() >> random.below(32),
            1 => packet.flags = random.u32(),
            2 => packet.buffer = random.u32(),
            3 => packet.consumed = random.below(64) as u32,
            4 => packet.kind = random.u16(),
            5 => packet.source.1 = random.u32(),
            _ => {}
        }
        packets.push(packet);
    }
    packets.push(claim());
    let mut guest = Guest::new();
    let transmit = sending(&mut guest, &packets);
    in_steps(&mut guest, transmit, random);
    guest.spin()
}
