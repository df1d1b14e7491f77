//! The wire format between host and guest: one truth for both sides.
//!
//! One vsock stream connects the agent (client) to the host (CID 2, [`PORT`]).
//! Both directions carry frames: kind (u8), payload length (u32, little endian),
//! payload. Integers are little endian throughout.
//!
//! ```text
//! agent → host   Ready
//! host  → agent  Start(Job)        Stdin*  StdinEnd
//! agent → host   Stdout* Stderr* StdinTaken*  Exit
//! ```

mod frame;
mod job;

pub use frame::{Decoder, Exit, Frame, Malformed, encode};
pub use job::{File, Job};

/// The host's CID (virtio 1.2, 5.10.4).
pub const HOST_CID: u32 = 2;
/// The vsock port on which the host listens.
pub const PORT: u32 = 1;
/// Largest payload of any frame but `Start`, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Largest payload of `Start`, in bytes: the script and what goes with it.
pub const MAX_START: usize = 64 << 20;
/// Standard input that the host may send before the agent says it was taken, in bytes.
pub const STDIN_WINDOW: usize = 64 << 10;
