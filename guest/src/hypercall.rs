//! The hypercall ABI: the numbers by which the guest's kernel calls its host, and the guest's
//! processes call their kernel. This file is their source. The kernel patches
//! (`kernel-config/patches`) and the warm interpreter (`guest/images/python/warm`) are C and repeat
//! them, and `tests/tidy/abi.rs` fails if any of them differs.
//!
//! A hypercall is an `out` to [`PORT`]. AL is the service, addresses are guest-virtual, and RCX is
//! a length in bytes. As with a string instruction, RCX counts down by the bytes that were done:
//! the host stops at a page that is not mapped as required, and the kernel goes on by itself and
//! takes the fault.
//!
//! The C name of a number is its name here with the prefix `HOST_`, or `PR_HOST_` for an option in
//! [`prctl`]. The numbers in [`handover`], [`report`] and [`event`] have the same names in C.

/// The I/O port of hypercalls.
pub const PORT: u16 = 0xe4;

/// Fills RCX bytes at RDI with random numbers.
pub const RANDOM: u8 = 2;
/// Takes RCX bytes at RSI for the stream AH ([`stream`]).
pub const WRITE: u8 = 3;
/// Puts up to RCX bytes of the job at RDI; RAX becomes the nanoseconds since 1970 with the first piece
/// that a machine gets, restored or not, and 0 with others. RSI is the guest-physical address of the
/// kernel's [`buffer`], or 0. RDI becomes the bytes of memory that the
/// program may not have, and RSI the most processes that it may have.
pub const JOB: u8 = 4;
/// Tells that the program exits with status AH.
pub const EXIT: u8 = 5;
/// Tells that the program wants standard input.
pub const STDIN: u8 = 6;
/// Puts up to RCX bytes of the program's files at RDI ([`crate::Header`]).
pub const FILES: u8 = 7;
/// Tells that the files could not be made; AH is the errno.
pub const NO_FILES: u8 = 8;
/// Takes the bytes in the [`buffer`]. This is the only service whose number is the value written to
/// the port, not AL: no register is read or written, which makes it the quickest.
pub const FLUSH: u8 = 9;
/// Puts up to RCX bytes of standard input at RDI: what there is of it, which may be nothing.
pub const INPUT: u8 = 10;

/// The numbers of the program's standard streams, and of other streams that the host takes.
pub mod stream {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    /// The agent's stream of the files that the host collects ([`crate::Header`]).
    pub const FILES: u8 = 3;
    /// The interpreter's records ([`super::report`]).
    pub const REPORTS: u8 = 4;
    /// The kernel's records ([`super::event`]).
    pub const EVENTS: u8 = 5;
}

/// Options of prctl(2) in our kernel. A privileged one is for the agent, the others are for the
/// program.
pub mod prctl {
    /// Makes a pipe a stream. Arguments: descriptor, stream. Privileged.
    pub const STREAM: i32 = 0x484f_5301;
    /// Makes the caller the program. Argument: uid and gid of its files. Privileged.
    pub const PROGRAM: i32 = 0x484f_5302;
    /// Reads a piece of the job. Arguments: buffer, size. Only for the program.
    pub const JOB: i32 = 0x484f_5303;
    /// Sends a record ([`super::report`]). Arguments: buffer, size. Only for the program.
    pub const TELL: i32 = 0x484f_5304;
    /// Reads what there is of standard input. Arguments: buffer, size. Privileged.
    pub const INPUT: i32 = 0x484f_5305;
}

/// The output buffer that a kernel keeps in its memory where a copy is cheaper than an exit.
///
/// It begins with four 32-bit numbers in little endian: `sent`, `filled`, the stream, and one
/// without a meaning. The bytes of output follow; those from `sent` to `filled` are still to be
/// taken.
pub mod buffer {
    /// The bytes of the numbers.
    pub const HEADER: usize = 16;
    /// The bytes of the whole buffer.
    pub const SIZE: usize = 64 << 10;
}

/// Flags that tell an interpreter how to run a job ([`crate::JobFrame::handover`]).
pub mod handover {
    /// Enter the working directory first: the interpreter is not in it yet, or there are files that
    /// it must not overlook.
    pub const ENTER: u32 = 1;
    /// Report the exception that ends the program.
    pub const REPORT: u32 = 2;
    /// Report what the code displays, and the value of its last expression.
    pub const NOTEBOOK: u32 = 4;
    /// Execute the program, which is not for this interpreter.
    pub const EXECUTE: u32 = 8;
    /// Give out each line of output when it is written.
    pub const LINES: u32 = 16;
    /// Run cells, which come one by one ([`crate::Cell`]), and keep what they leave.
    pub const SESSION: u32 = 32;
}

/// Kinds of the interpreter's records ([`stream::REPORTS`]), with their fields.
pub mod report {
    /// Fields: type, message, traceback.
    pub const EXCEPTION: u8 = 1;
    /// Fields: MIME type, data, and so on.
    pub const RESULT: u8 = 2;
    /// Fields: MIME type, data, and so on.
    pub const DISPLAY: u8 = 3;
    /// Fields: how many figures are open at the end, and how many of them were never drawn (u32).
    pub const LOST: u8 = 4;
    /// A session's interpreter waits for a cell. Field: the exit status of the one before (u32). Without
    /// a field: one of a command's has begun a cell.
    pub const CELL: u8 = 5;
}

/// Kinds of the kernel's records ([`stream::EVENTS`]). Fields: errno (u32), and the object of the
/// event.
pub mod event {
    pub const EXECUTED: u8 = 1;
    pub const OPENED: u8 = 2;
    pub const CONNECTED: u8 = 3;
}
