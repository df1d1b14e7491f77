//! The hypercall ABI: the numbers with which the guest's kernel asks its host, and the guest's processes
//! ask their kernel to. This file is their source. The kernel patches (`kernel-config/patches`) and
//! the warm interpreter (`guest/images/python/warm`) are C and repeat them, and `tests/tidy/abi.rs` fails where one
//! of them differs.
//!
//! A hypercall is an `out` to [`PORT`]. AL names the service, addresses are guest-virtual, RCX is a
//! length in bytes. As with a string instruction, RCX counts down what was done: the host stops at a
//! page that is not mapped as it must be, and the kernel goes on by itself and takes the fault.
//!
//! The C name of a number is its name here behind `HOST_`, and behind `PR_HOST_` that of an option in
//! [`prctl`]. Those in [`handover`], [`report`] and [`event`] have the same name in C.

/// The I/O port.
pub const PORT: u16 = 0xe4;

/// Fill RCX bytes at RDI with random numbers.
pub const RANDOM: u8 = 2;
/// Take RCX bytes at RSI for the stream AH ([`stream`]).
pub const WRITE: u8 = 3;
/// Put up to RCX bytes of the job at RDI; RAX becomes nanoseconds since 1970. RSI is the
/// guest-physical address of the kernel's [`buffer`], or 0.
pub const JOB: u8 = 4;
/// The program exits with status AH.
pub const EXIT: u8 = 5;
/// The program wants standard input.
pub const STDIN: u8 = 6;
/// Put up to RCX bytes of the program's files at RDI ([`crate::Header`]).
pub const FILES: u8 = 7;
/// The files could not be made; AH is errno.
pub const NO_FILES: u8 = 8;
/// Take what is in the [`buffer`]. The only one that is told by what is written to the port, and not by
/// AL: no register is read or written, which makes it the quickest.
pub const FLUSH: u8 = 9;

/// The program's standard streams by number, and what else the host takes.
pub mod stream {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    /// The agent's: the files that the host collects ([`crate::Header`]).
    pub const FILES: u8 = 3;
    /// What the interpreter tells ([`super::report`]).
    pub const REPORTS: u8 = 4;
    /// What the kernel tells ([`super::event`]).
    pub const EVENTS: u8 = 5;
}

/// Options of prctl(2) in our kernel.
pub mod prctl {
    /// Makes a pipe a stream. Arguments: descriptor, stream. Privileged.
    pub const STREAM: i32 = 0x484f_5301;
    /// Makes the caller the program. Argument: uid and gid of its files. Privileged.
    pub const PROGRAM: i32 = 0x484f_5302;
    /// Reads a piece of the job. Arguments: buffer, size. The program's.
    pub const JOB: i32 = 0x484f_5303;
    /// Tells a record ([`super::report`]). Arguments: buffer, size. The program's.
    pub const TELL: i32 = 0x484f_5304;
}

/// The buffer of output that a kernel keeps in its memory where a copy is cheaper than an exit.
///
/// It begins with four 32-bit numbers in little endian, of which the last has no meaning: `sent`,
/// `filled` and the stream. Then come its bytes, of which those from `sent` to `filled` are to be
/// taken.
pub mod buffer {
    /// Bytes of the numbers.
    pub const HEADER: usize = 16;
    /// Bytes of the whole.
    pub const SIZE: usize = 64 << 10;
}

/// Flags of what is asked of an interpreter along with a job ([`crate::JobFrame::handover`]).
pub mod handover {
    /// It is not in its working directory yet, or there are files that it must not overlook.
    pub const ENTER: u32 = 1;
    /// Tell the exception that ends the program.
    pub const REPORT: u32 = 2;
    /// Tell what code displays, and the value of its last expression.
    pub const NOTEBOOK: u32 = 4;
    /// Execute the program: it is none of yours.
    pub const EXECUTE: u32 = 8;
}

/// Kinds of records of the interpreter ([`stream::REPORTS`]), with their fields.
pub mod report {
    /// Type, message, traceback.
    pub const EXCEPTION: u8 = 1;
    /// MIME type, data, and so on.
    pub const RESULT: u8 = 2;
    /// The same.
    pub const DISPLAY: u8 = 3;
}

/// Kinds of records of the kernel ([`stream::EVENTS`]). Fields: errno (u32), what.
pub mod event {
    pub const EXECUTED: u8 = 1;
    pub const OPENED: u8 = 2;
    pub const CONNECTED: u8 = 3;
}
