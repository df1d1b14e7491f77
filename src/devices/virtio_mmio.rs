//! The virtio-mmio transport, version 2 (virtio 1.2, 4.2), for one vsock device.

use crate::devices::Violation;
use crate::devices::irq::IrqLine;
use crate::devices::vsock::{Connection, Peer, QUEUES, Vsock};
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER,
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FAILED as FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::GuestMemoryMmap;

/// Upper bound on the descriptors in a queue.
const QUEUE_MAX: u16 = 256;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"sdbx");
/// The features that we offer.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1;

/// The device's registers and queues, and the device behind them.
pub struct VirtioMmio {
    device: Vsock,
    irq: IrqLine,
    queues: [Queue; QUEUES],
    registers: Registers,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Registers {
    status: u32,
    driver_features: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    interrupt_status: u32,
}

/// The transport's state, with all that is to be saved.
#[derive(Clone, Serialize, Deserialize)]
pub struct VirtioMmioState {
    registers: Registers,
    queues: [SavedQueue; QUEUES],
    connection: Option<Connection>,
}

#[derive(Clone, Serialize, Deserialize)]
struct SavedQueue(#[serde(with = "QueueFields")] QueueState);

#[derive(Serialize, Deserialize)]
#[serde(remote = "QueueState")]
struct QueueFields {
    max_size: u16,
    next_avail: u16,
    next_used: u16,
    event_idx_enabled: bool,
    size: u16,
    ready: bool,
    desc_table: u64,
    avail_ring: u64,
    used_ring: u64,
}

impl VirtioMmio {
    pub fn new(device: Vsock, irq: IrqLine) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            device,
            irq,
            queues: [
                Queue::new(QUEUE_MAX)?,
                Queue::new(QUEUE_MAX)?,
                Queue::new(QUEUE_MAX)?,
            ],
            registers: Registers::default(),
        })
    }

    /// Makes a transport that goes on from a saved state.
    pub fn from_state(
        state: VirtioMmioState,
        device: Vsock,
        irq: IrqLine,
    ) -> Result<Self, virtio_queue::Error> {
        let [receive, transmit, event] = state.queues.map(|saved| Queue::try_from(saved.0));
        Ok(Self {
            device: device.with_connection(state.connection),
            irq,
            queues: [receive?, transmit?, event?],
            registers: state.registers,
        })
    }

    /// Returns the state, if nothing is under way that it would leave out.
    pub fn state(&self) -> Option<VirtioMmioState> {
        Some(VirtioMmioState {
            registers: self.registers.clone(),
            queues: self
                .queues
                .each_ref()
                .map(|queue| SavedQueue(queue.state())),
            connection: self.device.connection_at_rest()?,
        })
    }

    /// Reads a register. Registers are 32 bits wide and aligned; the configuration space is bytes.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(start) = offset.checked_sub(VIRTIO_MMIO_CONFIG.into()) {
            let config = self.device.config().iter().skip(start as usize);
            for (byte, value) in data.iter_mut().zip(config) {
                *byte = *value;
            }
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            // The registers are below the configuration space.
            data.copy_from_slice(&self.read_register(offset as u32).to_le_bytes());
        }
    }

    /// Writes a register. Returns whether the driver asks for its queues to be processed.
    pub fn write(&mut self, offset: u64, data: &[u8], peer: &mut impl Peer) -> bool {
        let (Ok(offset), Ok(bytes)) = (offset.try_into(), data.try_into()) else {
            return false;
        };
        self.write_register(offset, u32::from_le_bytes(bytes), peer)
    }

    /// Moves all packets that can be moved between driver and device.
    pub fn process(
        &mut self,
        memory: &GuestMemoryMmap,
        peer: &mut impl Peer,
    ) -> Result<(), Violation> {
        if self.registers.status & DRIVER_OK == 0 {
            return Ok(());
        }
        if self.device.process(&mut self.queues, memory, peer)? {
            self.registers.interrupt_status |= VIRTIO_MMIO_INT_VRING;
            self.irq.raise();
        }
        Ok(())
    }

    fn read_register(&self, offset: u32) -> u32 {
        let queue = self.queues.get(self.registers.queue_select as usize);
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => super::vsock::DEVICE_ID,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.registers.device_features_select {
                0 => FEATURES as u32,
                1 => (FEATURES >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| queue.max_size().into()),
            VIRTIO_MMIO_QUEUE_READY => queue.is_some_and(QueueT::ready).into(),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.registers.interrupt_status,
            VIRTIO_MMIO_STATUS => self.registers.status,
            // There are no shared memory regions, which a length of -1 says (4.2.2).
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u32, value: u32, peer: &mut impl Peer) -> bool {
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.registers.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.set_driver_features(value),
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.registers.driver_features_select = value,
            VIRTIO_MMIO_QUEUE_SEL => self.registers.queue_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => return self.registers.status & DRIVER_OK != 0,
            VIRTIO_MMIO_INTERRUPT_ACK => self.registers.interrupt_status &= !value,
            VIRTIO_MMIO_STATUS => self.set_status(value, peer),
            _ => self.configure_queue(offset, value),
        }
        false
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.registers.status & (FEATURES_OK | DRIVER) != DRIVER {
            return;
        }
        let (mask, shifted) = match self.registers.driver_features_select {
            0 => (0xffff_ffff, u64::from(value)),
            1 => (0xffff_ffff << 32, u64::from(value) << 32),
            _ => return,
        };
        self.registers.driver_features = self.registers.driver_features & !mask | shifted;
    }

    /// Configures the selected queue, only between FEATURES_OK and DRIVER_OK: a queue that is in use
    /// never changes its shape.
    fn configure_queue(&mut self, offset: u32, value: u32) {
        let configurable = self.registers.status & (FEATURES_OK | DRIVER_OK);
        if configurable != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.registers.queue_select as usize) else {
            return;
        };
        match offset {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(value.try_into().unwrap_or(0)),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Takes a step of the initialization (3.1.1), in order, or resets the device.
    fn set_status(&mut self, value: u32, peer: &mut impl Peer) {
        let added = value & !self.registers.status;
        match added {
            _ if value == 0 => self.reset(peer),
            ACKNOWLEDGE | DRIVER | FAILED => self.registers.status |= added,
            FEATURES_OK if self.registers.driver_features == FEATURES => {
                self.registers.status |= added
            }
            DRIVER_OK if self.registers.status & FEATURES_OK != 0 => self.registers.status |= added,
            _ => {}
        }
    }

    fn reset(&mut self, peer: &mut impl Peer) {
        self.queues.iter_mut().for_each(QueueT::reset);
        self.device.reset(peer);
        self.registers.status = 0;
        self.registers.driver_features = 0;
        self.registers.interrupt_status = 0;
    }
}
