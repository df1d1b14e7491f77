//! Guest-physical addresses, ports and interrupt lines, all in this one place.

/// The temporary GDT and the (empty) IDT of the 64-bit entry.
pub const BOOT_GDT: u64 = 0x500;
pub const BOOT_IDT: u64 = 0x520;
/// `struct boot_params`, the "zero page" (Documentation/arch/x86/zero-page.rst).
pub const BOOT_PARAMS: u64 = 0x7000;
/// The top of the stack at entry.
pub const BOOT_STACK: u64 = 0x8ff0;
/// The identity map of the first GiB: one page each of PML4, PDPT, PD.
pub const BOOT_PML4: u64 = 0x9000;
pub const BOOT_PDPT: u64 = 0xa000;
pub const BOOT_PD: u64 = 0xb000;
/// The `struct setup_data` with the random seed.
pub const RNG_SEED: u64 = 0xc000;
/// The kernel command line and its greatest length with the final NUL.
pub const CMDLINE: u64 = 0x2_0000;
pub const CMDLINE_MAX: usize = 2048;
/// The MP table (MultiProcessor Specification 1.4, chapter 4): the last KiB of base memory.
pub const MP_TABLE: u64 = 0x9_fc00;
/// The end of base memory, and the start of the memory above it.
pub const BASE_MEMORY_END: u64 = 0x9_fc00;
pub const HIGH_MEMORY: u64 = 0x10_0000;

/// The end of the first region of RAM; the rest continues at 4 GiB.
pub const LOW_RAM_END: u64 = 0xc000_0000;
pub const HIGH_RAM: u64 = 0x1_0000_0000;

/// The registers of the virtio-mmio vsock device.
pub const VSOCK_MMIO: u64 = 0xd000_0000;
pub const VSOCK_MMIO_SIZE: u64 = 0x1000;
pub const VSOCK_IRQ: u32 = 5;
/// The guest's vsock address (0 to 2 are reserved: virtio 1.2, 5.10.4).
pub const GUEST_CID: u64 = 3;

/// The I/O APIC's registers (82093AA datasheet, 3.0) and the local APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
pub const IOAPIC_SIZE: u64 = 0x1000;
pub const LOCAL_APIC: u64 = crate::devices::ioapic::LOCAL_APIC as u64;

/// The three pages that KVM on Intel uses for real mode (KVM_SET_TSS_ADDR).
pub const KVM_TSS: usize = 0xfffb_d000;

/// The runtime image, far above any RAM that a guest is given.
pub const RUNTIME: u64 = 0x20_0000_0000;
/// The alignment of the runtime image: persistent memory comes in sections of this size.
pub const RUNTIME_ALIGNMENT: u64 = 2 << 20;

/// The windows, in which layers are shown: ranges of persistent memory, above the runtime image.
pub const WINDOWS: [u64; guest::WINDOWS] = [0x30_0000_0000, 0x32_0000_0000];
/// The bytes of each window. The guest's kernel keeps no memory for windows of whole GiB.
pub const WINDOW_SIZE: u64 = 8 << 30;

/// The serial port COM1 and its interrupt.
pub const SERIAL_PORT: u16 = 0x3f8;
pub const SERIAL_PORTS: u16 = 8;
pub const SERIAL_IRQ: u32 = 4;
/// The keyboard controller's command port; 0xfe pulses the reset line.
pub const I8042_COMMAND: u16 = 0x64;
pub const I8042_RESET: u8 = 0xfe;
/// The port on which the guest kernel makes hypercalls.
pub const HYPERCALL_PORT: u16 = guest::hypercall::PORT;
