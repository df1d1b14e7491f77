//! Tiny guests: machine code and data, without a kernel (Intel SDM 2).
//!
//! A guest starts in 64-bit mode at CPL 0 with interrupts off. It may use all registers; by
//! convention R14 is the address where it goes on after a fault, and R15 counts a loop.

use ::guest::hypercall::EXIT;
use sandbox::internals::vm::layout::*;

/// The bytes of RAM of every guest.
pub const MEMORY: u64 = 64 << 20;
/// The address at which its code begins.
pub const CODE: u64 = HIGH_MEMORY;
/// The page directories for the second to fourth GiB, and for the runtime image.
const DIRECTORIES: u64 = 0x20_0000;
const IDT: u64 = 0x21_0000;
const IDT_POINTER: u64 = 0x21_1000;
const FAULT_HANDLER: u64 = 0x21_2000;
/// The top of a stack for faults.
pub const STACK: u32 = 0x22_0000;
/// The page directory for the first GiB, which user mode may use too.
const SHARED_DIRECTORY: u64 = 0x20_4000;
/// The entry of a guest whose kernel runs natively.
const NATIVE_ENTRY: u64 = 0x21_3000;
/// The page where it keeps its interrupt flag.
pub const CELL: u64 = 0x21_4000;
/// The root of its tables. User mode has the root in the next page, and events switch back by
/// clearing this bit.
pub const TABLES: u64 = 0x21_6000;
pub const USER_TABLES: u64 = TABLES | 0x1000;
/// The address at which these map the first 512 GiB once more: a stack for events must be in the
/// upper half. (Its first 512 GiB are the host's, whatever the guest's tables say.)
pub const UPPER_HALF: u64 = 0xffff_8800_0000_0000;
/// The offset in bytes of their entry for that.
pub const UPPER_ENTRY: u64 = (UPPER_HALF >> 39 & 0x1ff) * 8;
/// The flags of an entry in a page table: present, writable, for user mode too.
pub const SHARED: u64 = 7;
/// The beginning of memory for a guest's data, which goes up to the end of its memory.
pub const DATA: u64 = 0x30_0000;

/// The status with which a guest exits when it reaches its last instruction.
pub const SURVIVED: u8 = 42;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reg {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rsi = 6,
    Rdi = 7,
    R11 = 11,
    R14 = 14,
    R15 = 15,
}

pub struct Guest {
    code: Vec<u8>,
    /// The data beside the code, with their addresses.
    data: Vec<(u64, Vec<u8>)>,
}

impl Guest {
    /// Makes a guest that maps the first GiB, all devices and the runtime image at their own
    /// addresses.
    pub fn new() -> Self {
        let mut guest = Self {
            code: Vec::new(),
            data: Vec::new(),
        };
        guest.put(NATIVE_ENTRY, native_entry());
        for tables in [TABLES, USER_TABLES] {
            guest.put(tables, bytes([BOOT_PDPT | SHARED]));
            guest.put(tables + UPPER_ENTRY, bytes([BOOT_PDPT | SHARED]));
        }
        guest.map_devices();
        guest
    }

    /// Continues the identity map of the 64-bit entry.
    fn map_devices(&mut self) {
        const HUGE: u64 = 0x80;
        const GIB: u64 = 1 << 30;
        let mut pointers = vec![0; 512];
        let starts = [GIB, 2 * GIB, 3 * GIB, RUNTIME, 0];
        for (index, start) in starts.into_iter().enumerate() {
            let directory = DIRECTORIES + index as u64 * 4096;
            pointers[(start / GIB) as usize] = directory | SHARED;
            let entries = (0..512).map(|i| (start + (i << 21)) | HUGE | SHARED);
            self.put(directory, bytes(entries));
        }
        // The first entry is the VMM's, until tables are shared.
        self.put(BOOT_PDPT + 8, bytes(pointers.into_iter().skip(1)));
    }

    /// Lets user mode use the tables: a kernel that runs natively is in the processor's user mode.
    pub fn share_tables(&mut self) {
        self.store(BOOT_PDPT, (SHARED_DIRECTORY | SHARED) as u32);
        self.mov(Reg::Rax, TABLES);
        self.raw(&[0x0f, 0x22, 0xd8]); // mov cr3, rax
    }

    /// Sets the registers for a `wrmsr` of this value.
    pub fn msr(&mut self, index: u32, value: u64) {
        self.mov(Reg::Rcx, index.into());
        self.mov(Reg::Rax, value & 0xffff_ffff);
        self.mov(Reg::Rdx, value >> 32);
    }

    /// Reads these leaves of CPUID, by the given instruction.
    pub fn ask_leaves(&mut self, first: u64, subleaf: u64, cpuid: &[u8]) {
        self.mov(Reg::Rsi, first);
        self.repeat(0x100, |guest| {
            guest.raw(&[0x89, 0xf0]); // mov eax, esi
            guest.mov(Reg::Rcx, subleaf);
            guest.attempt(cpuid);
            guest.raw(&[0xff, 0xc6]); // inc esi
        });
    }

    /// Enables its local APIC.
    pub fn enable_apic(&mut self) {
        self.store(LOCAL_APIC + 0xf0, 0x1ff);
    }

    /// Makes its local APIC send an interrupt to a receiver (SDM 3A, 11.6.1).
    pub fn send_interrupt(&mut self, to: u32, command: u32) {
        const COMMAND: u64 = LOCAL_APIC + 0x300;
        self.store(COMMAND + 0x10, to);
        self.store(COMMAND, command & 0x000c_cfff);
    }

    /// Adds data that exists from the start.
    pub fn put(&mut self, address: u64, bytes: Vec<u8>) {
        self.data.push((address, bytes));
    }

    /// Returns the address of the next instruction.
    pub fn here(&self) -> u64 {
        CODE + self.code.len() as u64
    }

    pub fn raw(&mut self, instruction: &[u8]) {
        self.code.extend(instruction);
    }

    pub fn mov(&mut self, register: Reg, value: u64) {
        let number = register as u8;
        self.raw(&[0x48 | number >> 3, 0xb8 | number & 7]);
        self.raw(&value.to_le_bytes());
    }

    /// `mov dword ptr [address], value`
    pub fn store(&mut self, address: u64, value: u32) {
        self.mov(Reg::Rdi, address);
        self.raw(&[0xc7, 0x07]);
        self.raw(&value.to_le_bytes());
    }

    /// Executes an instruction, which has an address in RDI and a value in RAX, and goes on behind
    /// it whether or not it faults.
    pub fn attempt(&mut self, instruction: &[u8]) {
        let length = instruction.len() as u64;
        // The length of this `mov` is 10.
        self.mov(Reg::R14, self.here() + 10 + length);
        self.raw(instruction);
    }

    /// Writes as many bytes to a port as `width` says: 1, 2 or 4.
    pub fn out(&mut self, port: u16, width: u8, value: u32) {
        self.mov(Reg::Rdx, port.into());
        self.mov(Reg::Rax, value.into());
        self.raw(&io(0xee, width));
    }

    /// Reads from a port into RAX.
    pub fn input(&mut self, port: u16, width: u8) {
        self.mov(Reg::Rdx, port.into());
        self.raw(&io(0xec, width));
    }

    pub fn repeat(&mut self, count: u64, body: impl FnOnce(&mut Self)) {
        self.mov(Reg::R15, count);
        let start = self.here();
        body(self);
        self.raw(&[0x49, 0xff, 0xcf]); // dec r15
        self.jump(&[0x0f, 0x85], start); // jnz
    }

    pub fn forever(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.here();
        body(self);
        self.jump(&[0xe9], start); // jmp
    }

    fn jump(&mut self, opcode: &[u8], target: u64) {
        self.raw(opcode);
        let next = self.here() + 4;
        self.raw(&(target.wrapping_sub(next) as u32).to_le_bytes());
    }

    /// Makes a hypercall (`vm::hypercall`).
    pub fn service(&mut self, service: u8, operand: u8, registers: [(Reg, u64); 3]) {
        for (register, value) in registers {
            self.mov(register, value);
        }
        self.ask(service, operand);
    }

    /// Makes a hypercall with the registers as they are.
    pub fn ask(&mut self, service: u8, operand: u8) {
        self.mov(Reg::Rax, u16::from_le_bytes([service, operand]).into());
        self.raw(&[0xe6, HYPERCALL_PORT as u8]); // out imm8, al
    }

    /// Exits with another status than a survivor's if the register has another value.
    pub fn require(&mut self, register: Reg, value: u64) {
        const LENGTH_OF_EXIT: u8 = 12;
        self.mov(Reg::Rbx, value);
        self.raw(&[0x48, 0x39, 0xd8 | register as u8]); // cmp register, rbx
        self.raw(&[0x74, LENGTH_OF_EXIT]); // je
        self.ask(EXIT, SURVIVED + 1);
    }

    /// Makes faults from here on go to R14 with interrupts off, instead of ending the guest.
    pub fn catch_faults(&mut self) {
        self.catch_faults_on(0);
    }

    /// Catches faults on a stack of the TSS' interrupt stack table (SDM 3A, 6.14.5), or on the
    /// current one.
    pub fn catch_faults_on(&mut self, stack: u64) {
        // Which user mode may use.
        const INTERRUPT_GATE: u64 = 0xee00 << 32;
        const CODE_SELECTOR: u64 = 0x10 << 16;
        let gate = [
            FAULT_HANDLER & 0xffff
                | CODE_SELECTOR
                | stack << 32
                | INTERRUPT_GATE
                | (FAULT_HANDLER >> 16) << 48,
            0,
        ];
        self.put(IDT, bytes([gate; 256].into_iter().flatten()));
        let mut pointer = 0xfff_u16.to_le_bytes().to_vec();
        pointer.extend(IDT.to_le_bytes());
        self.put(IDT_POINTER, pointer);
        let mut handler = vec![0x48, 0xc7, 0xc4]; // mov rsp, imm32
        handler.extend(STACK.to_le_bytes());
        handler.extend([0x41, 0xff, 0xe6]); // jmp r14
        self.put(FAULT_HANDLER, handler);
        self.mov(Reg::Rdi, IDT_POINTER);
        self.raw(&[0x0f, 0x01, 0x1f]); // lidt [rdi]
    }

    /// Returns the address of the handler of caught faults.
    pub fn handler(&self) -> u64 {
        FAULT_HANDLER
    }

    /// Adds the last instruction of a guest that comes this far.
    pub fn survive(mut self) -> Images {
        self.ask(EXIT, SURVIVED);
        self.halt()
    }

    /// Ends the code with a halt that nothing ends.
    pub fn halt(mut self) -> Images {
        self.raw(&[0xfa, 0xf4]); // cli; hlt
        self.images()
    }

    /// Ends the code with a busy loop.
    pub fn spin(mut self) -> Images {
        self.forever(|_| {});
        self.images()
    }

    pub fn images(mut self) -> Images {
        self.data.insert(0, (CODE, self.code));
        Images {
            kernel: elf(CODE, &self.data),
            agent: b"no agent".to_vec(),
        }
    }
}

/// The images that a machine boots from.
pub struct Images {
    pub kernel: Vec<u8>,
    pub agent: Vec<u8>,
}

impl Images {
    /// Returns the same guest, which first asks to run natively. A kernel that is not one of these
    /// guests is unchanged.
    pub fn natively(mut self) -> Self {
        const ENTRY: std::ops::Range<usize> = 24..32;
        match self.kernel.get_mut(ENTRY) {
            Some(entry) if *entry == CODE.to_le_bytes() => {
                entry.copy_from_slice(&NATIVE_ENTRY.to_le_bytes());
            }
            _ => {}
        }
        self
    }
}

/// The MSR by which a kernel asks to run natively: the address of its interrupt flag, and flags.
pub const NATIVE_MSR: u32 = 0x4b56_4d10;
/// All flags, as our own kernel uses them.
const NATIVE_FLAGS: u64 = 0x7f;

fn native_entry() -> Vec<u8> {
    let mut guest = Guest {
        code: Vec::new(),
        data: Vec::new(),
    };
    guest.share_tables();
    guest.msr(NATIVE_MSR, CELL | NATIVE_FLAGS);
    guest.raw(&[0x0f, 0x30]); // wrmsr
    guest.mov(Reg::Rax, CODE);
    guest.raw(&[0xff, 0xe0]); // jmp rax
    guest.code
}

/// Moves to control registers 0, 3, 4 and 8, from RAX.
pub const CONTROL_MOVES: [&[u8]; 4] = [
    &[0x0f, 0x22, 0xc0],
    &[0x0f, 0x22, 0xd8],
    &[0x0f, 0x22, 0xe0],
    &[0x44, 0x0f, 0x22, 0xc0],
];
/// `mov dr7, rax`
pub const DEBUG_MOVE: &[u8] = &[0x0f, 0x23, 0xf8];
/// The first leaves of CPUID: architectural, KVM's, AMD's, and none.
pub const LEAVES: [u64; 4] = [0, 0x4000_0000, 0x8000_0000, 0xffff_ff00];
/// Receivers of an interrupt: the only processor, one that does not exist, all.
pub const RECEIVERS: [u32; 3] = [0, 1 << 24, u32::MAX];

pub fn bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// Encodes `in` or `out` with DX, by the opcode of its byte form.
pub fn io(opcode: u8, width: u8) -> Vec<u8> {
    match width {
        1 => vec![opcode],
        2 => vec![0x66, opcode + 1],
        _ => vec![opcode + 1],
    }
}

/// Makes a 64-bit executable for x86-64 with these segments (System V ABI, chapters 4 and 5).
pub fn elf(entry: u64, segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version
    file.extend(bytes([entry, HEADER as u64, 0]));
    file.extend([0; 4]);
    let count = segments.len() as u16;
    for half in [HEADER as u16, PROGRAM_HEADER as u16, count, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = HEADER + PROGRAM_HEADER * segments.len();
    for (address, content) in segments {
        let length = content.len() as u64;
        file.extend([1, 0, 0, 0, 7, 0, 0, 0]); // loadable, all permissions
        let address = *address;
        file.extend(bytes([offset as u64, address, address, length, length, 1]));
        offset += content.len();
    }
    file.extend(segments.iter().flat_map(|(_, content)| content));
    file
}
