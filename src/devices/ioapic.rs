//! An I/O APIC that turns interrupt lines into messages (82093AA datasheet).
//!
//! The local APIC is KVM's ("split irqchip"). All our lines are edge-triggered, so there is
//! nothing to do at the end of an interrupt.

use serde::{Deserialize, Serialize};

/// Redirection entries, one for each line.
pub const PINS: usize = 24;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION: u8 = 0x10;
const REDIRECTION_LAST: u8 = REDIRECTION + 2 * PINS as u8 - 1;

const MASKED: u64 = 1 << 16;
/// Bits of an entry that the guest may write: all but delivery status and remote IRR.
const WRITABLE: u64 = !((1 << 12) | (1 << 14));

/// A message-signalled interrupt (Intel SDM 3A, 11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub address: u32,
    pub data: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ioapic {
    id: u32,
    select: u8,
    entries: [u64; PINS],
    /// Lines raised while masked.
    pending: u32,
}

impl Default for Ioapic {
    fn default() -> Self {
        Self {
            id: 1 << 24,
            select: 0,
            entries: [MASKED; PINS],
            pending: 0,
        }
    }
}

impl Ioapic {
    /// Reads a register at this offset.
    pub fn read(&self, offset: u64) -> u32 {
        match (offset, self.select) {
            (SELECT, _) => self.select.into(),
            (WINDOW, ID | ARBITRATION) => self.id,
            (WINDOW, VERSION) => 0x11 | ((PINS as u32 - 1) << 16),
            (WINDOW, REDIRECTION..=REDIRECTION_LAST) => {
                let (pin, high) = self.selected_entry();
                (self.entries[pin] >> if high { 32 } else { 0 }) as u32
            }
            _ => 0,
        }
    }

    /// Writes a register at this offset.
    pub fn write(&mut self, offset: u64, value: u32) {
        match (offset, self.select) {
            (SELECT, _) => self.select = value as u8,
            (WINDOW, ID) => self.id = value & 0x0f00_0000,
            (WINDOW, REDIRECTION..=REDIRECTION_LAST) => {
                let (pin, high) = self.selected_entry();
                let entry = self.entries[pin];
                self.entries[pin] = WRITABLE
                    & if high {
                        (entry & 0xffff_ffff) | (u64::from(value) << 32)
                    } else {
                        (entry & !0xffff_ffff) | u64::from(value)
                    };
            }
            _ => {}
        }
    }

    /// Takes newly raised lines and gives the messages to deliver now.
    pub fn route(&mut self, raised: u32) -> impl Iterator<Item = Message> + use<> {
        self.pending |= raised;
        let deliverable = (0..PINS)
            .filter(|&pin| self.entries[pin] & MASKED == 0)
            .fold(0, |bits, pin| bits | 1 << pin)
            & self.pending;
        self.pending &= !deliverable;
        let entries = self.entries;
        (0..PINS)
            .filter(move |pin| deliverable & 1 << pin != 0)
            .map(move |pin| message(entries[pin]))
    }

    /// Which entry the select register names, and whether its high half.
    fn selected_entry(&self) -> (usize, bool) {
        let index = usize::from(self.select - REDIRECTION);
        (index / 2, index % 2 == 1)
    }
}

fn message(entry: u64) -> Message {
    let vector = (entry & 0xff) as u32;
    let delivery_mode = (entry >> 8 & 7) as u32;
    let logical = (entry >> 11 & 1) as u32;
    let destination = (entry >> 56) as u32;
    Message {
        address: crate::layout::LOCAL_APIC as u32 | destination << 12 | logical << 2,
        data: vector | delivery_mode << 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ioapic: &mut Ioapic, register: u8, value: u32) {
        ioapic.write(SELECT, register.into());
        ioapic.write(WINDOW, value);
    }

    #[test]
    fn a_line_raised_while_masked_is_delivered_when_unmasked() {
        let mut ioapic = Ioapic::default();
        assert_eq!(ioapic.route(1 << 5).count(), 0);
        set(&mut ioapic, REDIRECTION + 11, 0x0100_0000);
        set(&mut ioapic, REDIRECTION + 10, 0x31);
        let expected = Message {
            address: 0xfee0_1000,
            data: 0x31,
        };
        assert_eq!(ioapic.route(0).collect::<Vec<_>>(), [expected]);
        assert_eq!(ioapic.route(0).count(), 0);
    }

    #[test]
    fn every_register_can_be_selected_read_and_written() {
        let mut ioapic = Ioapic::default();
        for register in 0..=u8::MAX {
            set(&mut ioapic, register, u32::MAX);
            ioapic.read(WINDOW);
        }
        assert_eq!(ioapic.route(u32::MAX).count(), 0, "all masked");
    }
}
