//! The wire format between host and guest, defined once for both sides.
//!
//! One vsock stream connects the agent (client) to the host (CID 2, [`PORT`]). Both directions
//! carry frames: kind (u8), payload length (u32), payload. Integers are little endian throughout.
//!
//! ```text
//! agent → host   Ready
//! host  → agent          Start  Stdin*     StdinEnd           Collect
//!                               Typed*     Signal*  Resize*
//! agent → host                       TypedTaken*        Exit             Collected
//! ```
//!
//! Beside that, a session's host has commands run on channels ([`channel`]):
//!
//! ```text
//! host  → agent  Open    Channel*
//! agent → host           Channel*
//! ```
//!
//! After `Exit`, which the host may take for the end, the agent ends the processes that the program
//! left. Then the host may ask for files, and start another job.
//!
//! `Stdin` says only that there is standard input: the agent takes it by a hypercall of its kernel, whenever the
//! program's pipe has room ([`hypercall::INPUT`]).
//!
//! What is typed at a terminal and the size of its window come this way as well. The agent holds the
//! terminal, and passes on what it shows.
//!
//! Other output of the program does not come this way: each write to its standard streams is a hypercall
//! of the guest kernel ([`stream`]), and so is its ordinary exit. A program that was already
//! started when its machine was saved gets its job by a hypercall too, and every program gets its
//! files by one, when it first looks for one. The files that it leaves, if the host wants any, go
//! the way of its output ([`stream::FILES`]), and so do the interpreter's and the kernel's reports
//! on it ([`Record`]).

mod bytes;
pub mod channel;
mod exit;
mod file;
mod frame;
pub mod hypercall;
mod job;
pub mod report;
mod terminal;

pub use bytes::Malformed;
pub use exit::Exit;
pub use file::{File, FileStream, Header, kind, time};
pub use frame::{Decoder, Frame, Signal, encode};
pub use hypercall::{event, handover, stream};
pub use job::{Cell, JobFrame, point_answer};
pub use report::{Field, Record, Records};
pub use terminal::{Terminal, WindowSize};

/// The program's working directory, unless the job names another.
pub const WORKDIR: &str = "/work";

/// The uid and gid of the program, unless it is root.
pub const USER: u32 = 1000;

/// The number of windows, in which the host can show layers: `/dev/pmem1` and those after it. The
/// image is `/dev/pmem0`.
pub const WINDOWS: usize = 2;

/// The host's CID (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// The vsock port on which the host listens.
pub const PORT: u32 = 1;
/// The largest payload of any frame but `Start`, `Collect` and `Open`, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The largest payload of `Start`, `Collect` and `Open`, in bytes: more than a command line and an
/// environment can have.
pub const MAX_START: usize = 8 << 20;
/// The bytes of a channel, in each direction, that may be under way.
pub const CHANNEL_WINDOW: usize = 1 << 20;
/// The most bytes of one message's input or output.
pub const CHANNEL_PIECE: usize = MAX_PAYLOAD - 8;
/// The signal by which the host has the interpreter give out what it still holds of its output, and end:
/// the last one, which no program uses (SIGRTMAX).
pub const FLUSH_SIGNAL: u8 = 64;
/// The signal by which the host tells a session's interpreter that there is a cell, for which it asks
/// as for a job: the last one but that, which no program uses either.
pub const CELL_SIGNAL: u8 = 63;
/// The bytes of standard input that the host holds for the agent to take, and those that were typed and may be
/// sent before the agent says that they were taken.
pub const STDIN_WINDOW: usize = 1 << 20;
