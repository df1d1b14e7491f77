//! The wire format between host and guest, defined once for both sides.
//!
//! One vsock stream connects the agent (client) to the host (CID 2, [`PORT`]). Both directions
//! carry frames: kind (u8), payload length (u32), payload. Integers are little endian throughout.
//!
//! ```text
//! agent → host   Ready
//! host  → agent          Start  Stdin*     StdinEnd           Collect
//!                               Typed*     Signal*  Resize*
//! agent → host                       StdinTaken*        Exit             Collected
//! ```
//!
//! After `Exit`, which the host may take for the end, the agent ends the processes that the program
//! left. Then the host may ask for files, and start another job.
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
mod file;
mod frame;
pub mod hypercall;
mod job;
pub mod report;
mod terminal;

pub use bytes::Malformed;
pub use file::{File, FileStream, Header, kind};
pub use frame::{Decoder, Exit, Frame, Signal, encode};
pub use hypercall::{event, handover, stream};
pub use job::JobFrame;
pub use report::{Field, Record, Records};
pub use terminal::{Terminal, WindowSize};

/// The program's working directory, unless the job names another.
pub const WORKDIR: &str = "/work";

/// The host's CID (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// The vsock port on which the host listens.
pub const PORT: u32 = 1;
/// The largest payload of any frame but `Start` and `Collect`, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The largest payload of `Start` and `Collect`, in bytes: more than a command line and an
/// environment can have.
pub const MAX_START: usize = 8 << 20;
/// The signal by which the host has the interpreter give out what it still holds of its output, and end:
/// the last one, which no program uses (SIGRTMAX).
pub const FLUSH_SIGNAL: u8 = 64;
/// The bytes of standard input that the host may send before the agent says that they were taken.
pub const STDIN_WINDOW: usize = 1 << 20;
