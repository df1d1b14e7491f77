//! Any access to any device, in any order and width, with anything in guest memory.

use super::driver::{Rings, describe, header, initialization, poke};
use super::peer::Recorder;
use super::steps;
use arbitrary::Arbitrary;
use sandbox::internals::devices::Violation;
use sandbox::internals::vm::bus::Bus;
use sandbox::internals::vm::layout::{IOAPIC, SERIAL_PORT, VSOCK_MMIO};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Two regions of RAM, and a hole between them.
const RAM: [(GuestAddress, usize); 2] = [(GuestAddress(0), 0x8000), (GuestAddress(0xc000), 0x8000)];
/// The greatest queue.
const QUEUE_MAX: usize = 256;

#[derive(Debug, Arbitrary)]
enum Step {
    /// The whole initialization, with rings wherever.
    Initialize {
        size: u8,
        rings: [[u16; 3]; 3],
    },
    WriteRegister {
        register: u8,
        value: u32,
    },
    Write {
        address: Place,
        data: [u8; 8],
        width: u8,
    },
    Read {
        address: Place,
        width: u8,
    },
    Out {
        port: Port,
        data: [u8; 4],
        width: u8,
    },
    In {
        port: Port,
        width: u8,
    },
    Memory {
        at: u16,
        data: Vec<u8>,
    },
    Descriptor {
        at: u16,
        address: u16,
        length: u32,
        flags: u8,
        next: u8,
    },
    /// So many entries of an available ring with this index.
    Available {
        at: u16,
        index: u16,
        heads: [u8; 4],
    },
    Packet {
        at: u16,
        operation: u8,
        buffer: u32,
        consumed: u32,
        length: u8,
    },
    Kick {
        queue: u8,
    },
    Interrupts,
    SaveAndRestore,
}

#[derive(Debug, Arbitrary)]
enum Place {
    Vsock(u16),
    Ioapic(u8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
enum Port {
    Serial(u8),
    Any(u16),
}

struct Machine {
    bus: Bus,
    peer: Recorder,
    memory: GuestMemoryMmap,
}

/// No panic, and no more packets for one access than a queue has descriptors, each way.
pub fn virtio(data: &[u8]) {
    let peer = Recorder {
        to_send: usize::MAX,
        ..Recorder::default()
    };
    let mut machine = Machine {
        bus: Bus::new(None).unwrap(),
        peer,
        memory: GuestMemoryMmap::from_ranges(&RAM).unwrap(),
    };
    for step in steps(data) {
        if machine.take(step).is_err() {
            break;
        }
        let peer = &mut machine.peer;
        let packets = std::mem::take(&mut peer.packets);
        assert!(packets <= 2 * QUEUE_MAX, "{packets} packets at once");
        peer.received.clear();
    }
}

impl Machine {
    fn take(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Initialize { size, rings } => self.initialize(size, rings)?,
            Step::WriteRegister { register, value } => {
                self.write_register(register.into(), value)?;
            }
            Step::Write {
                address,
                data,
                width,
            } => {
                let data = &data[..usize::from(width % 9)];
                let address = address.address();
                self.bus
                    .write_memory(address, data, &self.memory, &mut self.peer)?;
            }
            Step::Read { address, width } => {
                let mut data = [0; 8];
                let data = &mut data[..usize::from(width % 9)];
                self.bus.read_memory(address.address(), data);
            }
            Step::Out { port, data, width } => {
                let data = &data[..usize::from(width % 5)];
                self.bus.write_port(port.number(), data)?;
            }
            Step::In { port, width } => {
                let mut data = [0; 4];
                let data = &mut data[..usize::from(width % 5)];
                self.bus.read_port(port.number(), data);
            }
            Step::Memory { at, data } => poke(&self.memory, at.into(), &data),
            Step::Descriptor {
                at,
                address,
                length,
                flags,
                next,
            } => {
                let (address, flags, next) = (address.into(), flags.into(), next.into());
                describe(&self.memory, at.into(), address, length, flags, next);
            }
            Step::Available { at, index, heads } => {
                let mut bytes = vec![0, 0];
                bytes.extend(index.to_le_bytes());
                bytes.extend(heads.into_iter().flat_map(|head| [head, 0]));
                poke(&self.memory, at.into(), &bytes);
            }
            Step::Packet {
                at,
                operation,
                buffer,
                consumed,
                length,
            } => {
                let operation = u16::from(operation % 9);
                let header = header(operation, buffer, consumed, length.into());
                poke(&self.memory, at.into(), &header);
            }
            Step::Kick { queue } => self.write_register(0x050, queue.into())?,
            Step::Interrupts => {
                let raised = self.bus.irqs.take_raised();
                assert!(self.bus.ioapic.route(raised).count() <= 24);
            }
            Step::SaveAndRestore => self.save_and_restore(),
        }
        Ok(())
    }

    fn initialize(&mut self, size: u8, rings: [[u16; 3]; 3]) -> Result<(), Violation> {
        // What is not aligned would be refused, and nothing else happen.
        let aligned =
            rings.map(|[table, available, used]| [table & !15, available & !1, used & !3]);
        let queues: [Rings; 3] = aligned.map(|rings| rings.map(u64::from));
        for (register, value) in initialization(1 << (size % 10), queues) {
            self.write_register(register, value)?;
        }
        Ok(())
    }

    fn save_and_restore(&mut self) {
        if let Some(state) = self.bus.state() {
            self.bus = Bus::from_state(state).unwrap();
        }
    }

    fn write_register(&mut self, register: u64, value: u32) -> Result<(), Violation> {
        let data = value.to_le_bytes();
        let address = VSOCK_MMIO + register;
        self.bus
            .write_memory(address, &data, &self.memory, &mut self.peer)
    }
}

impl Place {
    fn address(&self) -> u64 {
        match *self {
            Self::Vsock(offset) => VSOCK_MMIO + u64::from(offset),
            Self::Ioapic(offset) => IOAPIC + u64::from(offset),
            Self::Any(address) => address,
        }
    }
}

impl Port {
    fn number(&self) -> u16 {
        match *self {
            Self::Serial(offset) => SERIAL_PORT + u16::from(offset % 8),
            Self::Any(number) => number,
        }
    }
}
