//! The record of a run, made from its report or from its error.

use crate::agent::Totals;
use crate::confine::{Layer, Missing};
use crate::error::{Error, Kind, Remedy};
use crate::files::{Fetched, Written};
use crate::outcome::{Crash, Outcome};
use crate::record::{
    Bytes, Encoding, File, Host, KvmMode, Limit, Memory, Path, Record, Status, Timings, Unusual,
};
use crate::run::{self, Report};
use crate::template::builder::Interrupted;
use crate::vm::host::{self, Family, Problem};
use crate::vm::mode::Mode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;

/// Returns the record of a run that came to an end, and what went wrong. The caller puts that into
/// words for its user.
pub fn report(report: Report) -> (Record, Option<Error>) {
    let failure = report.undelivered();
    let status = match failure {
        Some(_) => Status::Error,
        None => status(&report.outcome),
    };
    let (exit_code, signal) = match report.outcome {
        Outcome::Exited(code) => (Some(code), None),
        Outcome::Signaled { signal, .. } => (None, Some(signal)),
        _ => (None, None),
    };
    let limits_hit = limits_hit(&report);
    let unusual = unusual(&report);
    let error = failure.or_else(|| report.explanation());
    let mut kept = report.kept.into_iter();
    let mut stream = |totals| Stream::new(kept.next().flatten(), totals);
    let [stdout, stderr] = report.output.map(&mut stream);
    let mut record = Record {
        status,
        exit_code,
        signal,
        stdout: stdout.text,
        stderr: stderr.text,
        stdout_encoding: stdout.encoding,
        stderr_encoding: stderr.encoding,
        stdout_bytes: stdout.bytes,
        stderr_bytes: stderr.bytes,
        limits_hit,
        exception: report.told.exception,
        result: report.told.result,
        displays: report.told.displays,
        events: report.told.events,
        timings_ms: timings(&report.timings),
        path: Some(match report.path {
            run::Path::Warm => Path::Warm,
            run::Path::Cold => Path::Cold,
        }),
        template: report.template.map(|key| key.to_string()),
        host: Some(match report.mode.family() {
            Family::Hardware => Host::Hardware,
            Family::Software => Host::Software,
        }),
        kvm_mode: Some(match report.mode {
            Mode::Hardware => KvmMode::Hardware,
            Mode::Native => KvmMode::Native,
            Mode::Emulated => KvmMode::Emulated,
        }),
        confinement: report.confinement.iter().map(Layer::to_string).collect(),
        memory: Memory {
            limit: report.limits.memory,
            peak: report.peak,
        },
        unusual,
        ..Record::empty(status)
    };
    add_files(&mut record, report.fetched);
    (record, error)
}

/// Adds the files that were fetched to a record.
pub fn add_files(record: &mut Record, fetched: Fetched) {
    let Fetched {
        files,
        missing,
        left_out,
        ..
    } = fetched;
    record.files_count = files.count as u64;
    record.files = files.first.into_iter().map(file).collect();
    record.files_missing_count = missing.count.saturating_add(left_out.count) as u64;
    let left_out = left_out.first.into_iter();
    let left_out = left_out.map(|name| format!("{name}: neither file nor directory"));
    record.files_missing = missing.first.into_iter().chain(left_out).collect();
}

/// Returns the record of a run that never began, or that could not be brought to its end, after
/// this time; and what went wrong.
pub fn failure(error: &anyhow::Error, memory: u64, elapsed: Duration) -> (Record, Option<Error>) {
    let error = explained(error).ok();
    let status = match error {
        Some(_) => Status::Error,
        None => Status::Cancelled,
    };
    let elapsed = milliseconds(elapsed);
    let record = Record {
        timings_ms: Timings {
            total: elapsed,
            setup: elapsed,
            ..Timings::default()
        },
        memory: Memory {
            limit: memory,
            peak: None,
        },
        ..Record::empty(status)
    };
    (record, error)
}

/// Returns what failed and what to do. The error is a signal that asked this process to stop, which
/// needs no explanation.
pub fn explained(error: &anyhow::Error) -> Result<Error, Interrupted> {
    if let Some(error) = error.downcast_ref::<Error>() {
        return Ok(error.clone());
    }
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return Err(*interrupted);
    }
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return Ok(Error::new(
            Kind::Host,
            problem.to_string(),
            problem.remedy(),
        ));
    }
    if let Some(missing) = error.downcast_ref::<Missing>() {
        return Ok(Error::new(
            Kind::Host,
            missing.to_string(),
            Remedy::ConfineLess,
        ));
    }
    let (kind, remedy) = match host::shortage(error) {
        Some(remedy) => (Kind::Host, remedy.into()),
        None => (Kind::Internal, Remedy::Report),
    };
    Ok(Error::new(kind, format!("{error:#}"), remedy))
}

fn status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Exited(_) => Status::Exited,
        Outcome::Signaled {
            out_of_memory: true,
            ..
        } => Status::Oom,
        Outcome::Signaled { .. } => Status::Signaled,
        Outcome::TimedOut => Status::Timeout,
        Outcome::Interrupted(_) => Status::Cancelled,
        // The host caused this, not the guest.
        Outcome::Crashed(Crash::MemoryLost) => Status::Error,
        Outcome::Crashed(_) => Status::Crashed,
        Outcome::NotStarted(_)
        | Outcome::NoFiles(_)
        | Outcome::InputLimit
        | Outcome::InputFailed(_)
        | Outcome::OutputClosed
        | Outcome::OutputFailed(_) => Status::Error,
    }
}

fn limits_hit(report: &Report) -> Vec<Limit> {
    let [stdout, stderr] = report
        .output
        .map(|totals| totals.total > report.limits.max_output);
    let failure = report.fetched.failure.as_ref();
    let files = failure.is_some_and(|failure| failure.kind == Kind::Limit);
    let out_of_memory = matches!(
        report.outcome,
        Outcome::Signaled {
            out_of_memory: true,
            ..
        }
    );
    [
        (report.outcome == Outcome::TimedOut, Limit::Timeout),
        (report.outcome == Outcome::InputLimit, Limit::Stdin),
        (out_of_memory, Limit::Memory),
        (stdout, Limit::Stdout),
        (stderr, Limit::Stderr),
        (files, Limit::Files),
        (report.told.omitted, Limit::Report),
    ]
    .into_iter()
    .filter_map(|(hit, limit)| hit.then_some(limit))
    .collect()
}

/// An output stream, as the record shows it.
struct Stream {
    text: Option<String>,
    encoding: Encoding,
    bytes: Bytes,
}

impl Stream {
    fn new(kept: Option<Vec<u8>>, totals: Totals) -> Self {
        let mut captured = totals.delivered;
        let (text, encoding) = match kept {
            None => (None, Encoding::Utf8),
            Some(mut kept) => {
                // A character that the limit cut is left out, so that text remains valid UTF-8.
                if totals.delivered < totals.total {
                    kept.truncate(whole_characters(&kept));
                }
                captured = kept.len() as u64;
                let (text, encoding) = encode(kept);
                (Some(text), encoding)
            }
        };
        Self {
            text,
            encoding,
            bytes: Bytes {
                captured,
                total: totals.total,
                omitted: totals.total - captured,
            },
        }
    }
}

/// Returns the length without an incomplete character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// Returns bytes as text, if they are, or in base64.
pub fn encode(bytes: Vec<u8>) -> (String, Encoding) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, Encoding::Utf8),
        Err(error) => (STANDARD.encode(error.as_bytes()), Encoding::Base64),
    }
}

fn file(written: Written) -> File {
    File {
        path: written.guest,
        host: written.host,
        size: written.size,
    }
}

fn timings(timings: &run::Timings) -> Timings {
    Timings {
        total: milliseconds(timings.total),
        setup: milliseconds(timings.setup),
        kernel: timings.kernel.map(milliseconds),
        agent: timings.agent.map(milliseconds),
        first_output: timings.first_output.map(milliseconds),
        guest: timings.program.map(milliseconds),
        teardown: milliseconds(timings.teardown),
    }
}

/// Returns milliseconds, with a precision of a microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn unusual(report: &Report) -> Unusual {
    let violated = matches!(report.outcome, Outcome::Crashed(Crash::Violation(_)));
    Unusual {
        unknown_ports: report.unknown.ports,
        unknown_addresses: report.unknown.addresses,
        unknown_services: report.unknown.services,
        assists: report.counters.assists,
        violations: violated.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_that_the_host_can_mend_is_the_hosts() {
        for (errno, kind) in [(libc::ENOSPC, Kind::Host), (libc::EINVAL, Kind::Internal)] {
            let error = anyhow::Error::from(std::io::Error::from_raw_os_error(errno));
            let error = explained(&error.context("doing it")).unwrap();
            assert_eq!(error.kind, kind, "{error}");
            assert_eq!(error.remedy == Remedy::Report, kind == Kind::Internal);
        }
    }

    fn stream(kept: &[u8], total: u64) -> Stream {
        let totals = Totals {
            delivered: kept.len() as u64,
            total,
        };
        Stream::new(Some(kept.into()), totals)
    }

    #[test]
    fn bytes_that_are_no_text_come_in_base64() {
        let stream = stream(b"\xff\x00", 2);
        assert_eq!(stream.text.as_deref(), Some("/wA="));
        assert_eq!(stream.encoding, Encoding::Base64);
    }

    #[test]
    fn a_character_that_the_limit_cuts_is_omitted_and_counted() {
        let euro = "aa€".as_bytes();
        for cut in [3, 4] {
            let stream = stream(&euro[..cut], 5);
            assert_eq!(stream.text.as_deref(), Some("aa"));
            let bytes = Bytes {
                captured: 2,
                total: 5,
                omitted: 3,
            };
            assert_eq!(stream.bytes, bytes);
        }
    }

    #[test]
    fn a_character_that_the_program_did_not_end_is_kept() {
        let stream = stream(&"€".as_bytes()[..2], 2);
        assert_eq!(stream.text.as_deref(), Some("4oI="));
        assert_eq!(stream.bytes.omitted, 0);
    }
}
