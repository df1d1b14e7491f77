//! What one run may use and keep.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits of one run. The host enforces all but `pids` and, of a saved machine with more, `memory`: these
/// the guest's kernel enforces.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The program's memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// The memory of a saved machine for it, in bytes: what is over `memory`, its kernel withholds.
    pub machine_memory: u64,
    /// Wall clock, from the guest's first instruction until it has the program and the files that were put.
    pub boot: Duration,
    /// Wall clock, from when the guest has these; `None`: no limit.
    pub timeout: Option<Duration>,
    /// Wall clock, from a signal that asks the program to stop to its end.
    pub grace: Duration,
    /// Bytes delivered of each output stream; what is over it is dropped and counted.
    pub max_output: u64,
    /// Bytes of standard input that the program may take.
    pub input: u64,
    /// The most files and directories that are fetched.
    pub fetch_count: u64,
    /// The most bytes of them.
    pub fetch_size: u64,
    /// Processes and threads at once.
    pub pids: u32,
}

/// The time that a working guest may take to boot. One whose kernel is emulated takes half a minute
/// under load; one that takes this long never comes up.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The limits of a run for which none are given.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
/// The memory of a run with packages, which use more than Python alone. What is not touched costs
/// nothing.
pub const PACKAGES_MEMORY: u64 = 1 << 30;
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
pub const DEFAULT_GRACE: Duration = Duration::from_secs(2);
pub const DEFAULT_PIDS: u32 = 256;
/// The limit of each output stream for a reader that holds all of it at once.
pub const DEFAULT_CAPTURE: u64 = 8 << 20;
/// The limit of each output stream for an agent, which reads all of it.
pub const OUTPUT_MAX: u64 = 1 << 20;
/// The most bytes of a program: of a script, or of code on standard input that is read before a run.
pub const PROGRAM_MAX: u64 = 56 << 20;

impl Default for Limits {
    /// Returns the limits of a run for which none are given, whose output is kept. No files are fetched.
    fn default() -> Self {
        Self {
            memory: DEFAULT_MEMORY,
            machine_memory: DEFAULT_MEMORY,
            boot: BOOT_LIMIT,
            timeout: Some(DEFAULT_TIMEOUT),
            grace: DEFAULT_GRACE,
            max_output: DEFAULT_CAPTURE,
            input: u64::MAX,
            fetch_count: 0,
            fetch_size: 0,
            pids: DEFAULT_PIDS,
        }
    }
}

/// The most processes and threads that a limit can allow: the guest's kernel counts no more
/// (PID_MAX_LIMIT).
pub const PIDS_MAX: i64 = 4 << 20;

/// How much a process gives up before it reads what a guest sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConfineLevel {
    /// As much as this host's kernel offers.
    Auto,
    /// All, or there is no run.
    Require,
    /// Nothing, for debugging.
    Off,
}

impl ConfineLevel {
    /// Returns the name of the level, as options and policies have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Require => "require",
            Self::Off => "off",
        }
    }
}
