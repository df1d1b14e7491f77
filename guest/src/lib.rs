//! The wire format between host and guest: one truth for both sides.
//!
//! One vsock stream connects the agent (client) to the host (CID 2, [`PORT`]).
//! Both directions carry frames: kind (u8), payload length (u32, little endian),
//! payload. Integers are little endian throughout.
//!
//! ```text
//! agent → host   Ready
//! host  → agent          Start  Stdin*     StdinEnd           Collect
//! agent → host                       StdinTaken*        Exit             Collected
//! ```
//!
//! After `Exit`, which the host may take for the end, the agent ends what the program left running. Then
//! the host may ask for files, and start another job.
//!
//! What the program writes does not come this way: each write to its standard streams is a
//! request of the guest kernel's to the hypervisor ([`stream`]), and so is its ordinary end. A
//! program that was started already when its machine was saved gets its job by such a request
//! too, and any program its files, when it first looks for one. The files that it leaves, if the
//! host wants any of them, go the way of its output ([`stream::FILES`]), and so does what the
//! interpreter and the kernel tell of it ([`Record`]).

mod bytes;
mod file;
mod frame;
pub mod hypercall;
mod job;
pub mod report;

pub use bytes::Malformed;
pub use file::{File, FileStream, Header, kind};
pub use frame::{Decoder, Exit, Frame, encode};
pub use hypercall::{event, handover, stream};
pub use job::JobFrame;
pub use report::{Record, Records};

/// The program's working directory, unless the job names another.
pub const WORKDIR: &str = "/work";

/// The host's CID (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// The vsock port on which the host listens.
pub const PORT: u32 = 1;
/// Largest payload of any frame but `Start` and `Collect`, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Largest payload of these, in bytes: more than a command line and an environment can have.
pub const MAX_START: usize = 8 << 20;
/// Standard input that the host may send before the agent says it was taken, in bytes.
pub const STDIN_WINDOW: usize = 64 << 10;
