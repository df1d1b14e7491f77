//! An I/O APIC that turns interrupt lines into messages (82093AA datasheet).
//!
//! The local APIC is KVM's ("split irqchip"). All our lines are edge-triggered, so there is
//! nothing to do at the end of an interrupt.

use serde::{Deserialize, Serialize};

/// Redirection entries, one for each line.
pub const PINS: usize = 24;
const LAST_PIN: u32 = PINS as u32 - 1;

/// The address of the local APICs, and so of an interrupt message (Intel SDM 3A, 11.11.1).
pub const LOCAL_APIC: u32 = 0xfee0_0000;

const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTION: u8 = 0x10;

const MASKED: u64 = 1 << 16;
/// The bits of an entry that the guest may write: all but delivery status and remote IRR.
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
    /// The lines that were raised while they were masked.
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
    /// Reads the register at this offset.
    pub fn read(&self, offset: u64) -> u32 {
        match (offset, self.select) {
            (SELECT, _) => self.select.into(),
            (WINDOW, ID | ARBITRATION) => self.id,
            (WINDOW, VERSION) => 0x11 | (LAST_PIN << 16),
            (WINDOW, register) => half_entry(register)
                .and_then(|(pin, shift)| Some((self.entries.get(pin)? >> shift) as u32))
                .unwrap_or(0),
            _ => 0,
        }
    }

    /// Writes the register at this offset.
    pub fn write(&mut self, offset: u64, value: u32) {
        match (offset, self.select) {
            (SELECT, _) => self.select = value as u8,
            (WINDOW, ID) => self.id = value & 0x0f00_0000,
            (WINDOW, register) => {
                if let Some((pin, shift)) = half_entry(register)
                    && let Some(entry) = self.entries.get_mut(pin)
                {
                    let other_half = *entry & !(0xffff_ffff << shift);
                    *entry = WRITABLE & (other_half | u64::from(value) << shift);
                }
            }
            _ => {}
        }
    }

    /// Takes newly raised lines and returns the messages to deliver now.
    pub fn route(&mut self, raised: u32) -> impl Iterator<Item = Message> + use<> {
        self.pending |= raised;
        let deliverable = (0..)
            .zip(self.entries)
            .filter(|(_, entry)| entry & MASKED == 0)
            .fold(0, |bits, (pin, _)| bits | 1 << pin)
            & self.pending;
        self.pending &= !deliverable;
        (0..)
            .zip(self.entries)
            .filter(move |(pin, _)| deliverable & 1 << pin != 0)
            .map(|(_, entry)| message(entry))
    }
}

/// Returns the number of the entry that a register is half of, and the lowest bit of that half.
/// There may be fewer entries than that.
fn half_entry(register: u8) -> Option<(usize, u32)> {
    let index = register.checked_sub(REDIRECTION)?;
    let shift = if index.is_multiple_of(2) { 0 } else { 32 };
    Some((usize::from(index / 2), shift))
}

fn message(entry: u64) -> Message {
    let vector = (entry & 0xff) as u32;
    let delivery_mode = (entry >> 8 & 7) as u32;
    let logical = (entry >> 11 & 1) as u32;
    let destination = (entry >> 56) as u32;
    Message {
        address: LOCAL_APIC | destination << 12 | logical << 2,
        data: vector | delivery_mode << 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

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

    proptest! {
        /// Any registers are written and lines raised at any time: each line is delivered once, when
        /// it is not masked.
        #[test]
        fn lines_are_delivered_as_a_model_says(
            steps in vec((REDIRECTION..REDIRECTION + 48, any::<u32>(), 0..1u32 << PINS), 1..100),
        ) {
            let mut ioapic = Ioapic::default();
            let mut masked = [true; PINS];
            let mut waiting = [false; PINS];
            for (register, value, raised) in steps {
                set(&mut ioapic, register, value);
                let pin = usize::from(register - REDIRECTION) / 2;
                if register % 2 == 0 {
                    masked[pin] = value & MASKED as u32 != 0;
                }
                let mut expected = 0;
                for pin in 0..PINS {
                    waiting[pin] |= raised & 1 << pin != 0;
                    expected += usize::from(waiting[pin] && !masked[pin]);
                    waiting[pin] &= masked[pin];
                }
                prop_assert_eq!(ioapic.route(raised).count(), expected);
            }
        }
    }
}
