//! How a run ended, its exit code and the line that explains it.

use crate::limits::Limits;
use crate::record::Failure;
use nix::errno::Errno;

/// Exit codes of our own, as timeout(1), env(1) and the shells use them.
pub const EXIT_TIMEOUT: u8 = 124;
pub const EXIT_OURS: u8 = 125;
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
pub const EXIT_NOT_FOUND: u8 = 127;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program exited with this status. The guest's claim.
    Exited(u8),
    /// A signal ended the program. The guest's claim.
    Signaled { signal: u8, out_of_memory: bool },
    /// The program could not be started: errno. The guest's claim.
    NotStarted(u8),
    /// Its files could not be made in the guest: errno. The guest's claim.
    NoFiles(u8),
    /// It ran into the time limit.
    TimedOut,
    /// This signal asked us to stop: SIGINT, SIGTERM or SIGHUP.
    Interrupted(u8),
    /// It was given more standard input than it may be.
    InputLimit,
    /// Nobody reads the output any more (EPIPE).
    OutputClosed,
    /// The output could not be written: errno.
    OutputFailed(i32),
    /// The guest did what no working guest does.
    Crashed(Crash),
}

/// Why the guest came to an end without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crash {
    /// It asked for a reset: a kernel panic, or an emergency restart.
    Reset,
    /// A triple fault.
    TripleFault,
    /// It halted with interrupts off: a dead kernel.
    Halted,
    /// It shut its devices down: reboot(2) by its root, or its like.
    ShutDown,
    /// It never said that it was ready.
    NotReady,
    /// Neither the processor nor we can run this instruction.
    Unsupported { rip: u64, instruction: Vec<u8> },
    /// KVM could not enter the guest, or left it for a reason that none of our guests has.
    Exit(String),
    /// Some of its memory is gone: the template or the runtime image was truncated meanwhile.
    MemoryLost,
    /// It broke the rules of a device or of the protocol.
    Violation(String),
}

impl Outcome {
    /// The exit code of `sandbox run`.
    pub fn exit_code(&self) -> u8 {
        const SIGPIPE: u8 = 13;
        const ENOENT: u8 = 2;
        match *self {
            Self::Exited(status) => status,
            Self::Signaled { signal, .. } | Self::Interrupted(signal) => 128 + signal,
            Self::NotStarted(ENOENT) => EXIT_NOT_FOUND,
            Self::NotStarted(_) => EXIT_NOT_EXECUTABLE,
            Self::TimedOut => EXIT_TIMEOUT,
            Self::OutputClosed => 128 + SIGPIPE,
            Self::NoFiles(_) | Self::InputLimit | Self::OutputFailed(_) | Self::Crashed(_) => {
                EXIT_OURS
            }
        }
    }

    /// What to tell the user beyond what the program itself wrote.
    pub fn explanation(&self, limits: &Limits) -> Option<Failure> {
        let system = |errno: i32| std::io::Error::from_raw_os_error(errno);
        let (message, remedy) = match self {
            Self::Signaled {
                out_of_memory: true,
                ..
            } => (
                format!(
                    "the program ran out of the {} MiB of memory it was given",
                    limits.memory >> 20
                ),
                format!(
                    "give it more with --memory, for example --memory {}M",
                    limits.memory >> 19
                ),
            ),
            Self::TimedOut => {
                let limit = limits.timeout?.as_secs_f64();
                (
                    format!("the program was stopped at its time limit of {limit} s"),
                    format!(
                        "give it longer with --timeout, for example --timeout {}",
                        (limit * 2.0).ceil()
                    ),
                )
            }
            Self::NotStarted(errno) => (
                format!(
                    "the interpreter could not be started: {}",
                    system((*errno).into())
                ),
                "this build is broken; please report it".into(),
            ),
            Self::NoFiles(errno) => (
                format!(
                    "the program's files could not be made in the guest: {}",
                    system((*errno).into())
                ),
                no_files_remedy(Errno::from_raw((*errno).into())).into(),
            ),
            Self::InputLimit => (
                format!(
                    "the program was given more than the {} bytes of standard input that the policy allows",
                    limits.input
                ),
                "give it less, or ask whoever wrote the policy to raise run.stdin".into(),
            ),
            Self::OutputFailed(errno) => (
                format!(
                    "the program's output could not be written: {}",
                    system(*errno)
                ),
                "free space there, or send it elsewhere".into(),
            ),
            Self::Crashed(Crash::MemoryLost) => (
                "a file of the cache was truncated while the guest used it as memory".into(),
                "keep other programs from the cache directory, and run it again".into(),
            ),
            Self::Crashed(crash) => (
                format!("the guest crashed: {crash}"),
                "run it again with --console to see the guest kernel's log".into(),
            ),
            Self::Exited(_) | Self::Signaled { .. } | Self::Interrupted(_) | Self::OutputClosed => {
                return None;
            }
        };
        Some(Failure { message, remedy })
    }
}

fn no_files_remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOSPC | Errno::ENOMEM => {
            "give it more memory with --memory, half of which is for files"
        }
        Errno::EROFS => {
            "put them below /work, /tmp or /dev/shm: all else in the guest is read-only"
        }
        Errno::EEXIST => {
            "give each a path of its own below /work, /tmp or /dev/shm, which nothing has yet: --put HOST:GUEST"
        }
        _ => "give another path: --put HOST:GUEST",
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
            Self::MemoryLost => write!(f, "its memory is gone: a file was truncated in the cache"),
            Self::Exit(reason) => write!(f, "{reason}"),
            Self::Violation(what) => write!(f, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_shells() {
        let signaled = |signal| Outcome::Signaled {
            signal,
            out_of_memory: false,
        };
        for (outcome, code) in [
            (Outcome::Exited(3), 3),
            (signaled(11), 139),
            (signaled(15), 143),
            (Outcome::TimedOut, 124),
            (Outcome::Interrupted(2), 130),
            (Outcome::OutputClosed, 141),
            (Outcome::NotStarted(2), 127),
            (Outcome::NotStarted(13), 126),
            (Outcome::Crashed(Crash::Reset), 125),
        ] {
            assert_eq!(outcome.exit_code(), code, "{outcome:?}");
        }
    }
}
