//! The program that tries native mode, and the little machine that it needs: kernel pages in the
//! upper half, which the processor must treat as user mode's too; a page table for user mode, in
//! the next page, with nothing of the kernel in it; and a segment for each, in GS.

use crate::vm::arch::x86_64::boot::flat_segment;
use crate::vm::native::MSR_VIF;
use anyhow::{Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use std::arch::global_asm;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// The bytes of RAM.
pub const MEMORY: u64 = 2 << 20;
/// The port on which the program says that it is done.
pub const PORT: u16 = 0xe4;

/// Guest-physical pages, which the kernel sees from `KERNEL` on.
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
/// The cell that MSR_VIF names: interrupt flag, waiting interrupt, and CR2 in the second word.
const CELL: u64 = 0x4000;
const STACK_END: u64 = 0x6000;
const FAULT_STACK_END: u64 = 0x7000;
pub const REPORT: u64 = 0x7000;
const KERNEL_GS: u64 = 0x8000;
const KERNEL_CODE: u64 = 0x9000;
const KERNEL_PML4: u64 = 0x1_0000;
const USER_PML4: u64 = KERNEL_PML4 | 0x1000;
const KERNEL_PDPT: u64 = 0x1_2000;
const KERNEL_PD: u64 = 0x1_3000;
const USER_PDPT: u64 = 0x1_4000;
const USER_PD: u64 = 0x1_5000;
const USER_PT: u64 = 0x1_6000;
const USER_CODE: u64 = 0x1_7000;
const USER_DATA: u64 = 0x1_8000;

/// Virtual addresses.
const KERNEL: u64 = 0xffff_ffff_8000_0000;
const USER: u64 = 0x1000;
const USER_GS: u64 = USER + 0x1000;

/// Offsets in the kernel's code, its two entries first.
pub const START: u64 = 0;
/// The entry of an instruction that every processor can do and no KVM emulates.
pub const NOT_EMULATED: u64 = 0x300;
const SYSTEM_CALL: u64 = 0x100;
const USER_FAULT: u64 = 0x200;
const EXCEPTIONS: u64 = 0x400;
const EXCEPTION_SIZE: u64 = 16;
const VECTORS: u64 = 32;
const PAGE_FAULT: u64 = 14;

/// Selectors, in the order of Linux's GDT.
const KERNEL_CS: u16 = 0x10;
const KERNEL_DS: u16 = 0x18;
const USER_DS: u16 = 0x2b;
const USER_CS: u16 = 0x33;
const TASK: u16 = 0x40;

const MSR_SIGNATURE: u32 = 0x4b56_4d11;
const MSR_FEATURES: u32 = 0x4b56_4d12;
const SIGNATURE: u64 = 0x4d_5650;
/// The features: user mode's own page table, a GS that changes with the mode, CR2 in the cell,
/// returns by INT.
const FLAGS: u32 = 0x7f;
const NO_HYPERCALL: u32 = 0x1fff;
const ENOSYS: u64 = (libc::ENOSYS as u64).wrapping_neg();
const STAR: (u32, u64) = (0xc000_0081, 0x0023_0010 << 32);
const LSTAR: (u32, u64) = (0xc000_0082, KERNEL + KERNEL_CODE + SYSTEM_CALL);
/// The flags that a system call clears, as in Linux.
const SFMASK: (u32, u64) = (0xc000_0084, 0x4_7700);
/// The GS base of user mode while the kernel runs.
const KERNEL_GS_BASE: (u32, u64) = (0xc000_0102, USER_GS);
pub const MSRS: [(u32, u64); 4] = [STAR, LSTAR, SFMASK, KERNEL_GS_BASE];

/// The contents of the two segments.
const KERNEL_WORD: u64 = 0x6b65_726e;
const USER_WORD: u64 = 0x7573_6572;

/// A word of the program's report, and its expected value.
pub struct Word {
    pub name: &'static str,
    pub value: u64,
}

pub const WORDS: usize = 10;
/// A word that the program did not reach.
pub const UNWRITTEN: u64 = u64::from_le_bytes(*b"unwritte");

pub fn words() -> [Word; WORDS] {
    let word = |name, value| Word { name, value };
    [
        word("signature", SIGNATURE),
        word("features", FLAGS.into()),
        word("an instruction that is not emulated", 1),
        word("an unknown hypercall", ENOSYS),
        word("user mode's GS", USER_WORD),
        word("the kernel's GS in a system call", KERNEL_WORD),
        word("error code of a page fault in user mode", 4),
        word("its address", KERNEL),
        word("its code segment", USER_CS.into()),
        word("the kernel's GS in a page fault", KERNEL_WORD),
    ]
}

// Each `stosq` reports RAX. An unexpected exception reports its vector, with all bits of the upper
// half set, in place of the next word.
global_asm!(
    ".pushsection .rodata.sandbox_probe, \"a\", @progbits",
    "sandbox_probe_kernel:",
    "mov ecx, {msr_signature}",
    "rdmsr",
    "shl rdx, 32",
    "or rax, rdx",
    "stosq",
    "mov ecx, {msr_features}",
    "rdmsr",
    "and eax, {flags}",
    "stosq",
    "mov ecx, {msr_vif}",
    "mov eax, {cell} + {flags}",
    "xor edx, edx",
    "wrmsr",
    "mov ecx, 1 << 20",
    "popcnt rax, rcx",
    "stosq",
    "mov eax, {no_hypercall}",
    "int 0x1b",
    "stosq",
    // This enters user mode, by a frame of IRET.
    "push {user_ds}",
    "push {user}",
    "push 0x202",
    "push {user_cs}",
    "push {user}",
    "int 0x17",
    ".org sandbox_probe_kernel + {system_call}",
    "stosq",
    "mov rax, gs:[0]",
    "stosq",
    // This returns to user mode, as SYSRET does.
    "int 0x19",
    ".org sandbox_probe_kernel + {user_fault}",
    "pop rax",
    "stosq",
    "mov rax, [{cell_cr2}]",
    "stosq",
    "mov rax, [rsp + 8]",
    "stosq",
    "mov rax, gs:[0]",
    "stosq",
    "3: out {port}, al",
    ".org sandbox_probe_kernel + {not_emulated}",
    "fldpi",
    "jmp 3b",
    ".org sandbox_probe_kernel + {exceptions}",
    ".set sandbox_probe_vector, 0",
    ".rept {vectors}",
    ".balign {exception_size}",
    "mov rax, sandbox_probe_vector - (1 << 31)",
    "jmp 4f",
    ".set sandbox_probe_vector, sandbox_probe_vector + 1",
    ".endr",
    "4: stosq",
    "jmp 3b",
    "sandbox_probe_user:",
    "mov rax, gs:[0]",
    "syscall",
    // User mode must see nothing of the kernel.
    "mov rax, {kernel}",
    "mov rax, [rax]",
    "sandbox_probe_end:",
    ".popsection",
    not_emulated = const NOT_EMULATED,
    msr_signature = const MSR_SIGNATURE,
    msr_features = const MSR_FEATURES,
    flags = const FLAGS,
    msr_vif = const MSR_VIF,
    cell = const CELL as u32,
    no_hypercall = const NO_HYPERCALL,
    user_ds = const USER_DS,
    user_cs = const USER_CS,
    user = const USER as u32,
    system_call = const SYSTEM_CALL,
    user_fault = const USER_FAULT,
    cell_cr2 = const (KERNEL + CELL + 8) as i32,
    port = const PORT,
    exceptions = const EXCEPTIONS,
    vectors = const VECTORS,
    exception_size = const EXCEPTION_SIZE,
    kernel = const KERNEL as i64,
);

unsafe extern "C" {
    static sandbox_probe_kernel: u8;
    static sandbox_probe_user: u8;
    static sandbox_probe_end: u8;
}

/// Returns the kernel's code, and user mode's.
fn code() -> [&'static [u8]; 2] {
    let [kernel, user, end] = [
        &raw const sandbox_probe_kernel,
        &raw const sandbox_probe_user,
        &raw const sandbox_probe_end,
    ];
    let between = |from: *const u8, to: *const u8| {
        // SAFETY: both are labels in one piece of read-only data, in this order.
        unsafe { std::slice::from_raw_parts(from, to.offset_from_unsigned(from)) }
    };
    [between(kernel, user), between(user, end)]
}

/// Loads the program, its tables and its data into fresh memory.
pub fn load(ram: &GuestMemoryMmap) -> Result<()> {
    let [kernel, user] = code();
    let put = |bytes: &[u8], address| ram.write_slice(bytes, GuestAddress(address));
    let put = |bytes: &[u8], address| put(bytes, address).context("loading a program");
    put(kernel, KERNEL_CODE)?;
    put(user, USER_CODE)?;
    let words = page_tables()
        .into_iter()
        .chain(descriptors())
        .chain((0..WORDS as u64).map(|index| (REPORT + index * 8, UNWRITTEN)))
        .chain([(KERNEL_GS, KERNEL_WORD), (USER_DATA, USER_WORD)]);
    for (address, word) in words {
        put(&word.to_le_bytes(), address)?;
    }
    // RSP0 is not aligned to a word (SDM volume 3, figure 9-11).
    put(&(KERNEL + FAULT_STACK_END).to_le_bytes(), TSS + 4)
}

/// Returns the page tables' entries with their addresses: the kernel only in the upper half, user
/// mode only in the lower.
fn page_tables() -> [(u64, u64); 8] {
    /// The flags, with accessed and dirty set so that nobody needs to set them.
    const ALL: u64 = 0x67;
    const HUGE: u64 = 0x80;
    let entry =
        |table: u64, address: u64, level: u32| table + (address >> (12 + 9 * level) & 511) * 8;
    [
        (entry(KERNEL_PML4, KERNEL, 3), KERNEL_PDPT | ALL),
        (entry(KERNEL_PDPT, KERNEL, 2), KERNEL_PD | ALL),
        (entry(KERNEL_PD, KERNEL, 1), HUGE | ALL),
        (entry(USER_PML4, USER, 3), USER_PDPT | ALL),
        (entry(USER_PDPT, USER, 2), USER_PD | ALL),
        (entry(USER_PD, USER, 1), USER_PT | ALL),
        (entry(USER_PT, USER, 0), USER_CODE | ALL),
        (entry(USER_PT, USER_GS, 0), USER_DATA | ALL),
    ]
}

/// Returns the words of the GDT and IDT with their addresses.
fn descriptors() -> Vec<(u64, u64)> {
    let task = KERNEL + TSS;
    let gdt = [
        (KERNEL_CS, 0x00af_9b00_0000_ffff),
        (KERNEL_DS, 0x00cf_9300_0000_ffff),
        (USER_DS & !3, 0x00cf_f300_0000_ffff),
        (USER_CS & !3, 0x00af_fb00_0000_ffff),
        (
            TASK,
            0x0000_8900_0000_0067 | (task & 0xff_ffff) << 16 | (task >> 24 & 0xff) << 56,
        ),
        (TASK + 8, task >> 32),
    ];
    let mut words: Vec<_> = gdt
        .map(|(selector, word)| (GDT + u64::from(selector), word))
        .into();
    for vector in 0..VECTORS {
        /// An interrupt gate, present, for any privilege level.
        const GATE: u64 = 0xee00 << 32;
        let entry = match vector {
            PAGE_FAULT => USER_FAULT,
            _ => EXCEPTIONS + vector * EXCEPTION_SIZE,
        };
        let entry = KERNEL + KERNEL_CODE + entry;
        let low = entry & 0xffff | u64::from(KERNEL_CS) << 16 | GATE | (entry >> 16 & 0xffff) << 48;
        words.push((IDT + vector * 16, low));
        words.push((IDT + vector * 16 + 8, entry >> 32));
    }
    words
}

pub fn sregs(before: kvm_sregs) -> kvm_sregs {
    let mut sregs = before;
    let data = flat_segment(KERNEL_DS / 8, 3, false);
    sregs.cs = flat_segment(KERNEL_CS / 8, 11, true);
    (sregs.ds, sregs.es, sregs.fs, sregs.ss) = (data, data, data, data);
    sregs.gs = kvm_segment {
        base: KERNEL + KERNEL_GS,
        ..data
    };
    sregs.tr = kvm_segment {
        base: KERNEL + TSS,
        limit: 0x67,
        selector: TASK,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    (sregs.gdt.base, sregs.gdt.limit) = (KERNEL + GDT, TASK + 15);
    (sregs.idt.base, sregs.idt.limit) = (KERNEL + IDT, (VECTORS * 16 - 1) as u16);
    sregs.cr3 = KERNEL_PML4;
    // PAE, PGE, OSFXSR, OSXMMEXCPT; PG, AM, WP, NE, ET, MP, PE; NXE, LMA, LME, SCE.
    (sregs.cr4, sregs.cr0, sregs.efer) = (0x6a0, 0x8005_0033, 0xd01);
    sregs
}

/// Returns the registers to enter the kernel's code at this offset.
pub fn regs(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: KERNEL + KERNEL_CODE + entry,
        rsp: KERNEL + STACK_END,
        rdi: KERNEL + REPORT,
        rflags: 2,
        ..Default::default()
    }
}
