//! Boot: lays out a fresh guest for the kernel's 64-bit entry (Documentation/arch/x86/boot.rst).

use crate::random;
use crate::vm::arch::x86_64::mp_table;
use crate::vm::initramfs;
use crate::vm::layout::*;
use crate::vm::mode::Mode;
use anyhow::{Context, Result};
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{KernelLoader, elf::Elf, load_cmdline};
use std::io::Cursor;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};

/// The images that a guest boots from.
#[derive(Debug, Clone, Copy)]
pub struct BootImages<'a> {
    /// An ELF kernel.
    pub kernel: &'a [u8],
    /// The agent's executable, which is PID 1.
    pub agent: &'a [u8],
}

/// Fills guest memory and sets the vCPU's registers so that it enters the kernel. `verbose` means
/// that the kernel's whole log goes to the console.
pub fn prepare(
    vcpu: &VcpuFd,
    ram: &GuestMemoryMmap,
    runtime_size: u64,
    images: &BootImages,
    mode: Mode,
    verbose: bool,
) -> Result<()> {
    let cmdline = command_line(mode, verbose)?;
    let kernel = Elf::load(
        ram,
        None,
        &mut Cursor::new(images.kernel),
        Some(GuestAddress(HIGH_MEMORY)),
    )
    .context("loading the kernel")?;
    load_cmdline(ram, GuestAddress(CMDLINE), &cmdline).context("loading the command line")?;
    mp_table::write(ram)?;
    write_random_seed(ram)?;
    let initramfs = load_initramfs(ram, images.agent)?;
    write_boot_params(ram, runtime_size, mode, &cmdline, initramfs)?;
    enter_long_mode(vcpu, ram, kernel.kernel_load.raw_value())
}

/// Makes the kernel's command line. Nothing in it comes from the user.
fn command_line(mode: Mode, verbose: bool) -> Result<Cmdline> {
    let mut line = Cmdline::new(CMDLINE_MAX).context("making a command line")?;
    let mut add = |words: &str| line.insert_str(words).context("adding to the command line");
    // The log goes to the serial port; a panic or reboot pulls the reset line at once.
    add("console=ttyS0 panic=-1 reboot=k")?;
    // The host serves the guest's program by hypercall in every mode.
    add(match mode {
        Mode::Hardware | Mode::Native => "host_services=buffered",
        // In this mode a copy takes longer than an exit.
        Mode::Emulated => "host_services",
    })?;
    // kvm-clock is the only clock: a restored guest's time must go on from its template's.
    // The TSC need not be watched then, which takes two wake-ups a second.
    add("clocksource=kvm-clock tsc=nowatchdog no-kvmapf no-steal-acc no_timer_check lpj=1000000")?;
    // The tables are sized for one program, not for a server: each entry costs an instruction or
    // more at boot.
    add("thash_entries=512 uhash_entries=256 dhash_entries=4096 ihash_entries=2048")?;
    add("mhash_entries=256 mphash_entries=256")?;
    // One fault brings as much anonymous memory as fits, for an arena of Python's or a large array.
    add("thp_anon=16K-1M:always;2M:always")?;
    match mode {
        Mode::Hardware => {}
        Mode::Native => add(NATIVE)?,
        Mode::Emulated => add(EMULATED)?,
    }
    if !verbose {
        add("quiet")?;
    }
    line.add_virtio_mmio_device(VSOCK_MMIO_SIZE, GuestAddress(VSOCK_MMIO), VSOCK_IRQ, None)
        .context("announcing the vsock device")?;
    Ok(line)
}

/// Words for an emulated kernel. A software KVM does not filter CPUID, so the kernel is told which
/// features not to use: those that are not emulated (smap, popcnt, cx16), those that are emulated
/// once per iteration (erms, fsrm, rep_good, and 395: FSRS, which has no name), and the XSAVE
/// formats that KVM_SET_XSAVE does not speak. Remapping the kernel's text read-only, freeing the
/// initramfs and making the root a tmpfs would protect nothing here.
const EMULATED: &str = "clearcpuid=smap,popcnt,cx16,erms,fsrm,395,rep_good,\
    xsaves,xsavec,xsaveopt rodata=off retain_initrd rootfstype=ramfs";

/// Words for a native kernel. The processor's own instructions work in native mode, so the kernel
/// must avoid only the features that would keep it from its own pages, which are user mode's too
/// (smap, smep); a bit of CR4 that the mode does not take on AMD (pcid), and what goes with it
/// (invpcid); XSAVE formats, as above; and pages of 1 GiB, which the mode does not map. The other
/// three words are as above.
const NATIVE: &str = "clearcpuid=smap,smep,pcid,invpcid,xsaves,xsavec,xsaveopt nogbpages \
    rodata=off retain_initrd rootfstype=ramfs";

/// Loads the initramfs at the top of low RAM, where the kernel does not look for room of its own.
fn load_initramfs(ram: &GuestMemoryMmap, agent: &[u8]) -> Result<(u64, u64)> {
    let archive = initramfs::with_init(agent);
    let low = ram.iter().next().context("no memory")?;
    let start = low
        .len()
        .checked_sub(archive.len() as u64)
        .context("too little memory for the agent")?
        & !0xfff;
    ram.write_slice(&archive, GuestAddress(start))
        .context("loading the agent")?;
    Ok((start, archive.len() as u64))
}

/// Writes a `struct setup_data` with 32 bytes for the guest's random number generator.
fn write_random_seed(ram: &GuestMemoryMmap) -> Result<()> {
    const SETUP_RNG_SEED: u32 = 9;
    let seed = random::bytes(32)?;
    let mut data = Vec::new();
    data.extend(0u64.to_le_bytes());
    data.extend(SETUP_RNG_SEED.to_le_bytes());
    data.extend((seed.len() as u32).to_le_bytes());
    data.extend(seed);
    ram.write_slice(&data, GuestAddress(RNG_SEED))
        .context("writing the random seed")
}

fn write_boot_params(
    ram: &GuestMemoryMmap,
    runtime_size: u64,
    mode: Mode,
    cmdline: &Cmdline,
    (initramfs, initramfs_size): (u64, u64),
) -> Result<()> {
    const BOOT_FLAG: u16 = 0xaa55;
    const HEADER: u32 = u32::from_le_bytes(*b"HdrS");
    const UNKNOWN_LOADER: u8 = 0xff;
    const KERNEL_ALIGNMENT: u32 = 16 << 20;
    /// The subarchitecture, which decides how the kernel handles interrupts, page tables and
    /// control registers. Ours is not in the document: it is the signature of the software KVM,
    /// "PVM".
    const SUBARCH_PC: u32 = 0;
    const SUBARCH_PVM: u32 = 0x4d_5650;
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER;
    params.hdr.type_of_loader = UNKNOWN_LOADER;
    params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    params.hdr.cmd_line_ptr = CMDLINE as u32;
    params.hdr.cmdline_size = cmdline.as_cstring()?.as_bytes_with_nul().len() as u32;
    params.hdr.ramdisk_image = initramfs as u32;
    params.hdr.ramdisk_size = initramfs_size as u32;
    params.hdr.setup_data = RNG_SEED;
    params.hdr.hardware_subarch = match mode {
        Mode::Native => SUBARCH_PVM,
        Mode::Hardware | Mode::Emulated => SUBARCH_PC,
    };
    for (entry, range) in params
        .e820_table
        .iter_mut()
        .zip(memory_map(ram, runtime_size))
    {
        *entry = range;
        params.e820_entries += 1;
    }
    LinuxBootConfigurator::write_bootparams(
        &BootParams::new(&params, GuestAddress(BOOT_PARAMS)),
        ram,
    )
    .context("writing the boot parameters")
}

fn memory_map(ram: &GuestMemoryMmap, runtime_size: u64) -> Vec<boot_e820_entry> {
    const RAM: u32 = 1;
    const PERSISTENT_MEMORY: u32 = 12;
    let range = |addr, end, kind| boot_e820_entry {
        addr,
        size: end - addr,
        r#type: kind,
    };
    let mut map = vec![range(0, BASE_MEMORY_END, RAM)];
    for region in ram.iter() {
        let start = region.start_addr().raw_value();
        map.push(range(start.max(HIGH_MEMORY), start + region.len(), RAM));
    }
    map.push(range(RUNTIME, RUNTIME + runtime_size, PERSISTENT_MEMORY));
    for start in WINDOWS {
        map.push(range(start, start + WINDOW_SIZE, PERSISTENT_MEMORY));
    }
    map
}

/// Sets the vCPU up for the 64-bit entry: paging on with an identity map, flat segments, interrupts
/// off, RSI at the boot parameters (boot.rst, "64-bit boot protocol").
fn enter_long_mode(vcpu: &VcpuFd, ram: &GuestMemoryMmap, entry: u64) -> Result<()> {
    const CR0_PE_MP_ET_NE_PG: u64 = 0x8000_0033;
    const CR4_PAE: u64 = 0x20;
    const EFER_LME_LMA: u64 = 0x500;
    const CODE: u16 = 2;
    const DATA: u16 = 3;
    write_identity_map(ram)?;
    let gdt: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
    for (address, descriptor) in (BOOT_GDT..).step_by(8).zip(gdt) {
        ram.write_obj(descriptor, GuestAddress(address))
            .context("writing the GDT")?;
    }
    let mut sregs = vcpu.get_sregs().context("reading the system registers")?;
    let data = flat_segment(DATA, 3, false);
    sregs.cs = flat_segment(CODE, 11, true);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (BOOT_GDT, size_of_val(&gdt) as u16 - 1);
    (sregs.idt.base, sregs.idt.limit) = (BOOT_IDT, 0);
    sregs.cr3 = BOOT_PML4;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 = CR0_PE_MP_ET_NE_PG;
    sregs.efer = EFER_LME_LMA;
    vcpu.set_sregs(&sregs)
        .context("setting the system registers")?;
    vcpu.set_fpu(&kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..Default::default()
    })
    .context("setting the FPU")?;
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsi: BOOT_PARAMS,
        rsp: BOOT_STACK,
        rflags: 2,
        ..Default::default()
    })
    .context("setting the registers")
}

fn write_identity_map(ram: &GuestMemoryMmap) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 3;
    const HUGE: u64 = 0x80;
    let write = |value: u64, address: u64| {
        ram.write_obj(value, GuestAddress(address))
            .context("writing the page tables")
    };
    write(BOOT_PDPT | PRESENT_WRITABLE, BOOT_PML4)?;
    write(BOOT_PD | PRESENT_WRITABLE, BOOT_PDPT)?;
    (0..512).try_for_each(|i| write(i << 21 | HUGE | PRESENT_WRITABLE, BOOT_PD + i * 8))
}

pub fn flat_segment(index: u16, type_: u8, code: bool) -> kvm_segment {
    kvm_segment {
        limit: u32::MAX,
        selector: index * 8,
        type_,
        present: 1,
        db: (!code).into(),
        s: 1,
        l: code.into(),
        g: 1,
        ..Default::default()
    }
}
