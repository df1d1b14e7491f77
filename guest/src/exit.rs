//! How a program ended.

use crate::bytes::Malformed;

/// The end of a program, as in wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The program exited with this status (0 to 255).
    Exited(u8),
    /// A signal ended the program.
    Signaled {
        signal: u8,
        /// Whether the guest kernel ran out of memory and killed a process.
        out_of_memory: bool,
    },
    /// The program could not be started; this is the errno of execve(2).
    NotStarted(u8),
}

impl Exit {
    pub(crate) fn encode(self) -> [u8; 3] {
        match self {
            Self::Exited(status) => [0, status, 0],
            Self::Signaled {
                signal,
                out_of_memory,
            } => [1, signal, out_of_memory.into()],
            Self::NotStarted(errno) => [2, errno, 0],
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        match *payload {
            [0, status, 0] => Ok(Self::Exited(status)),
            [1, signal @ 1..=64, flag @ 0..=1] => Ok(Self::Signaled {
                signal,
                out_of_memory: flag == 1,
            }),
            [2, errno, 0] => Ok(Self::NotStarted(errno)),
            _ => Err(Malformed("no such exit")),
        }
    }
}
