//! The random numbers of a variant, which are the same for the same seed (xorshift64*, Vigna 2016).

pub struct Random(u64);

impl Random {
    pub fn new(family: &str, seed: u64) -> Self {
        // FNV-1a: families differ, and no state is zero, which would stay so.
        let state = family
            .bytes()
            .chain(seed.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            });
        Self(state | 1)
    }

    pub fn u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn u32(&mut self) -> u32 {
        (self.u64() >> 32) as u32
    }

    pub fn u16(&mut self) -> u16 {
        (self.u64() >> 48) as u16
    }

    pub fn u8(&mut self) -> u8 {
        (self.u64() >> 56) as u8
    }

    /// Returns a number from 0 to `end`, which is excluded.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.u64() >> 11) % end
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.u8()).collect()
    }

    /// Returns an address near something that a machine has, or anywhere at all.
    pub fn address(&mut self) -> u64 {
        use crate::guest::MEMORY;
        use sandbox::internals::vm::layout::*;
        let places = [
            0,
            BOOT_PML4,
            HIGH_MEMORY,
            MEMORY,
            LOW_RAM_END,
            VSOCK_MMIO,
            VSOCK_MMIO + VSOCK_MMIO_SIZE,
            IOAPIC,
            LOCAL_APIC,
            HIGH_RAM,
            RUNTIME,
            RUNTIME + RUNTIME_ALIGNMENT,
            1 << 47,
            1 << 52,
            u64::MAX,
            self.u64(),
        ];
        let offset = self.below(64) as i64 - 32;
        self.one_of(&places).wrapping_add_signed(offset)
    }
}
