//! The outcome of a run, and its explanation.

use crate::error::{Error, Kind, Remedy};
use crate::limits::Limits;
use guest::Exit;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The program exited with this status, as the guest claims.
    Exited(u8),
    /// A signal ended the program, as the guest claims.
    Signaled { signal: u8, out_of_memory: bool },
    /// The program could not be started, as the guest claims, with this errno.
    NotStarted(u8),
    /// The program's files could not be made in the guest, as the guest claims, with this errno.
    NoFiles(u8),
    /// The run reached its time limit.
    TimedOut,
    /// A signal asked this process to stop: SIGINT, SIGTERM or SIGHUP.
    Interrupted(u8),
    /// There was more standard input than the limit allows.
    InputLimit,
    /// Standard input could not be read; this is the errno.
    InputFailed(i32),
    /// Nobody reads the output any more (EPIPE).
    OutputClosed,
    /// The output could not be written; this is the errno.
    OutputFailed(i32),
    /// The guest did something that no working guest does.
    Crashed(Crash),
}

/// The reason why the guest came to an end without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Crash {
    /// The guest asked for a reset: a kernel panic, or an emergency restart.
    Reset,
    /// The vCPU had a triple fault.
    TripleFault,
    /// The guest halted with interrupts off: its kernel is dead.
    Halted,
    /// The guest shut its devices down, by reboot(2) of its root or the like.
    ShutDown,
    /// The guest never reported that it was ready.
    NotReady,
    /// Neither the processor nor this program can run the instruction.
    Unsupported { rip: u64, instruction: Vec<u8> },
    /// KVM could not enter the guest, or left it for a reason that no guest of ours has.
    Exit(String),
    /// Some of the guest's memory is lost: the template or the runtime image was truncated during
    /// the run.
    MemoryLost,
    /// The guest broke the rules of a device or of the protocol.
    Violation(String),
}

impl From<Exit> for Outcome {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Exited(status) => Self::Exited(status),
            Exit::Signaled {
                signal,
                out_of_memory,
            } => Self::Signaled {
                signal,
                out_of_memory,
            },
            Exit::NotStarted(errno) => Self::NotStarted(errno),
        }
    }
}

impl Outcome {
    /// Returns what the user must know beyond the program's own output.
    pub fn explanation(&self, limits: &Limits) -> Option<Error> {
        let system = |errno: i32| std::io::Error::from_raw_os_error(errno);
        Some(match self {
            Self::Signaled {
                out_of_memory: true,
                ..
            } => out_of_memory(limits),
            Self::TimedOut => {
                let limit = limits.timeout?.as_secs_f64();
                Error::new(
                    Kind::Limit,
                    format!("the program was stopped at its time limit of {limit} s"),
                    Remedy::RaiseTimeout((limit * 2.0).ceil() as u64),
                )
            }
            Self::NotStarted(errno) => Error::new(
                Kind::Internal,
                format!(
                    "the interpreter could not be started: {}",
                    system((*errno).into())
                ),
                "this build is broken; please report it",
            ),
            Self::NoFiles(errno) => Error::new(
                Kind::File,
                format!(
                    "the program's files could not be made in the guest: {}",
                    system((*errno).into())
                ),
                no_files_remedy(Errno::from_raw((*errno).into())),
            ),
            Self::InputLimit => Error::new(
                Kind::Policy,
                format!(
                    "the program was given more than the {} bytes of standard input that the policy allows",
                    limits.input
                ),
                "give it less, or ask whoever wrote the policy to raise run.stdin",
            ),
            Self::InputFailed(errno) => Error::new(
                Kind::Request,
                format!("standard input could not be read: {}", system(*errno)),
                "give it something that can be read to its end, or /dev/null",
            ),
            Self::OutputFailed(errno) => Error::new(
                Kind::Delivery,
                format!(
                    "the program's output could not be written: {}",
                    system(*errno)
                ),
                "free space there, or send it elsewhere",
            ),
            Self::Crashed(Crash::MemoryLost) => Error::new(
                Kind::Host,
                "a file of the cache, or one that was put, was truncated while the guest used it as memory",
                "keep other programs from the cache directory and from what is put, and run it again",
            ),
            Self::Crashed(crash) => Error::new(
                Kind::Guest,
                format!("the guest crashed: {crash}"),
                Remedy::ShowConsole,
            ),
            Self::Exited(_) | Self::Signaled { .. } | Self::Interrupted(_) | Self::OutputClosed => {
                return None;
            }
        })
    }
}

fn out_of_memory(limits: &Limits) -> Error {
    let mib = limits.memory >> 20;
    Error::new(
        Kind::Limit,
        format!("the program ran out of the {mib} MiB of memory it was given"),
        Remedy::RaiseMemory(Some(2 * mib)),
    )
}

fn no_files_remedy(errno: Errno) -> Remedy {
    match errno {
        Errno::ENOSPC | Errno::ENOMEM => Remedy::RaiseMemoryForFiles,
        Errno::EROFS => {
            "put them below /work, /tmp or /dev/shm: all else in the guest is read-only".into()
        }
        Errno::EEXIST => Remedy::ChooseFreeGuestPath,
        _ => Remedy::ChooseGuestPath,
    }
}

impl std::fmt::Display for Crash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => write!(f, "its kernel panicked or rebooted"),
            Self::TripleFault => write!(f, "triple fault"),
            Self::Halted => write!(f, "it halted for good"),
            Self::ShutDown => write!(f, "it shut itself down"),
            Self::NotReady => write!(f, "it did not come up"),
            Self::Unsupported { rip, instruction } => {
                write!(f, "unsupported instruction {instruction:02x?} at {rip:#x}")
            }
            Self::MemoryLost => write!(
                f,
                "its memory is gone: a file was truncated in the cache, or among those that were put"
            ),
            Self::Exit(reason) => write!(f, "{reason}"),
            Self::Violation(what) => write!(f, "{what}"),
        }
    }
}

/// Returns whether there is a signal with this number (signal(7)).
pub fn is_signal(number: u8) -> bool {
    (1..=64).contains(&number)
}
