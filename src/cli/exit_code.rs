//! Exit codes of this program, as timeout(1), env(1) and the shells use them.

use crate::error::Kind;
use crate::outcome::Outcome;
// These are further down, since the log of runs has the exit codes of processes.
pub use crate::process::{EXIT_OURS, EXIT_SIGNALED};
use crate::record::{Record, Status};
use crate::run::Report;

pub const EXIT_TIMEOUT: u8 = 124;
pub const EXIT_NOT_EXECUTABLE: u8 = 126;
pub const EXIT_NOT_FOUND: u8 = 127;

/// Returns the exit code of a run that came to an end. If a program failed, its own code says more
/// than the files that it did not leave.
pub fn of_report(report: &Report) -> u8 {
    match report.undelivered() {
        Some(_) => EXIT_OURS,
        None => of_outcome(&report.outcome),
    }
}

/// Returns the exit code for how a program ended.
pub fn of_outcome(outcome: &Outcome) -> u8 {
    const SIGPIPE: u8 = 13;
    const ENOENT: u8 = 2;
    match *outcome {
        Outcome::Exited(status) => status,
        Outcome::Signaled { signal, .. } | Outcome::Interrupted(signal) => EXIT_SIGNALED + signal,
        Outcome::NotStarted(ENOENT) => EXIT_NOT_FOUND,
        Outcome::NotStarted(_) => EXIT_NOT_EXECUTABLE,
        Outcome::TimedOut => EXIT_TIMEOUT,
        Outcome::OutputClosed => EXIT_SIGNALED + SIGPIPE,
        Outcome::NoFiles(_)
        | Outcome::InputLimit
        | Outcome::InputFailed(_)
        | Outcome::OutputFailed(_)
        | Outcome::Crashed(_) => EXIT_OURS,
    }
}

/// Returns the exit code for how a cell ended, as its record tells.
pub fn of_record(record: &Record) -> u8 {
    match (record.status, record.signal) {
        (Status::Exited, _) => record.exit_code.unwrap_or(EXIT_OURS),
        (_, Some(signal)) => EXIT_SIGNALED + signal,
        (Status::Timeout, _) => EXIT_TIMEOUT,
        (Status::Cancelled, _) => EXIT_SIGNALED + libc::SIGINT as u8,
        _ => EXIT_OURS,
    }
}

/// Returns the exit code for a failure of this kind.
pub fn of_kind(kind: Kind) -> u8 {
    match kind {
        Kind::NoProgram => EXIT_NOT_FOUND,
        Kind::BadProgram => EXIT_NOT_EXECUTABLE,
        Kind::Request
        | Kind::File
        | Kind::Cache
        | Kind::Policy
        | Kind::AuditLog
        | Kind::Packages
        | Kind::Host
        | Kind::Limit
        | Kind::Guest
        | Kind::Delivery
        | Kind::Internal => EXIT_OURS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::messages;
    use crate::error::Remedy::*;
    use crate::error::variants::{variant, variants};
    use crate::error::{Destination, Error, Packages, Remedy};
    use crate::mcp::tool::remedies;
    use crate::outcome::Crash;

    #[test]
    fn each_kind_of_failure_has_its_exit_code_words_and_remedy() {
        let words = || Remedy::from("mend it");
        let online = Remedy::GetPackages(Packages::GoOnline);
        let full = Remedy::ChooseDestination(Destination::Full);
        let table = [
            (Kind::Request, 125, GiveProgram, "after -c", "as code"),
            (Kind::NoProgram, 127, CheckProgramPath, "path", "as code"),
            (Kind::BadProgram, 126, words(), "mend it", "mend it"),
            (Kind::File, 125, CheckHostPath, "--put HOST", "in files"),
            (Kind::Cache, 125, words(), "mend it", "this server: mend"),
            (Kind::Policy, 125, words(), "mend it", "mend it"),
            (Kind::AuditLog, 125, LeaveLogToPolicy, "--audit", "run"),
            (Kind::Packages, 125, online, "--offline", "do without"),
            (Kind::Host, 125, words(), "mend it", "this server: mend"),
            (Kind::Host, 125, ConfineLess, "--confine", "whoever runs"),
            (Kind::Limit, 125, RaiseTimeout(9), "--timeout", "timeout_s"),
            (Kind::Guest, 125, ShowConsole, "--console", "call again"),
            (Kind::Delivery, 125, full, "free space", "server's disk"),
            (Kind::Internal, 125, Report, "sandbox doctor", "report it"),
        ];
        let mut kinds: Vec<_> = table.iter().map(|row| variant(&row.0)).collect();
        kinds.dedup();
        assert_eq!(kinds, variants::<Kind>(), "each kind has a row, in order");
        for (kind, code, remedy, here, there) in table {
            assert_eq!(of_kind(kind), code, "{kind:?}");
            let error = Error::new(kind, "it is wrong", remedy);
            let told = messages::in_words(&error);
            assert!(told.starts_with("it is wrong\n"), "{kind:?}: {told}");
            assert!(told.contains(here), "{kind:?}: {told}");
            let failure = remedies::in_words(error);
            assert_eq!(failure.message, "it is wrong", "{kind:?}");
            assert!(
                failure.remedy.contains(there),
                "{kind:?}: {}",
                failure.remedy
            );
        }
    }

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
            assert_eq!(of_outcome(&outcome), code, "{outcome:?}");
        }
    }
}
