//! The record of a run: made from what is known of it, and written where it was asked for.

use crate::agent::Totals;
use crate::cli::messages::failure;
use crate::confine::Layer;
use crate::error::Complaint;
use crate::files::{Fetched, Written};
use crate::outcome::{Crash, EXIT_OURS, Outcome};
use crate::record::{
    Bytes, Encoding, Failure, File, Host, KvmMode, Limit, Memory, Path, Record, Status, Timings,
    Unusual,
};
use crate::run::{self, Report};
use crate::signals::Signals;
use crate::vm::host::Family;
use crate::vm::mode::Mode;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use std::io::{self, BufWriter, Write, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// Where a record goes.
pub struct Writer(OwnedFd);

impl Writer {
    /// To standard output, to the descriptor with this number, or nowhere.
    pub fn open(json: bool, descriptor: Option<RawFd>) -> Result<Option<Self>> {
        match descriptor {
            Some(number) => Self::new(writable(number)?).map(Some),
            None if json => Self::new(stdout()).map(Some),
            None => Ok(None),
        }
    }

    /// To this stream.
    pub fn new(stream: impl AsFd) -> Result<Self> {
        let fd = stream.as_fd().try_clone_to_owned();
        Ok(Self(fd.context("duplicating a descriptor")?))
    }

    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// In one line. Gives the exit code if nobody reads it. `signals`: that ask us to stop, where
    /// they are watched.
    pub fn write(self, record: &Record, signals: Option<&Signals>) -> Result<Option<u8>> {
        let pieces = Pieces {
            fd: self.0.as_fd(),
            signals,
        };
        // Not as one string: it may hold a lot of output.
        let mut writer = BufWriter::new(pieces);
        let written = serde_json::to_writer(&mut writer, record)
            .map_err(io::Error::from)
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| writer.flush());
        // What is left would be tried once more.
        drop(writer.into_parts());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Some(Outcome::OutputClosed.exit_code()))
            }
            Err(error) => Err(Complaint {
                what: format!("the record cannot be written: {error}"),
                remedy: "free space there, or send it elsewhere".into(),
                exit_code: EXIT_OURS,
            })?,
            Ok(()) => Ok(None),
        }
    }
}

struct Pieces<'a> {
    fd: BorrowedFd<'a>,
    signals: Option<&'a Signals>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// A pipe that takes anything takes so many bytes at once: pipe(7).
        const PIECE: usize = libc::PIPE_BUF;
        if let Some(signals) = self.signals {
            signals.until_writable(self.fd).map_err(io::Error::other)?;
        }
        match write(self.fd, &bytes[..bytes.len().min(PIECE)]) {
            Err(Errno::EAGAIN) => {
                poll(
                    &mut [PollFd::new(self.fd, PollFlags::POLLOUT)],
                    PollTimeout::NONE,
                )?;
                Err(Errno::EINTR)?
            }
            result => Ok(result?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor that whoever started us opened for writing.
fn writable(number: RawFd) -> Result<BorrowedFd<'static>, Complaint> {
    let complaint = |what: &str| Complaint {
        what: format!("descriptor {number}, where the record is to go, is not open{what}"),
        remedy: format!(
            "open it for this command: sandbox run --json-status-fd {number} … {number}>FILE"
        ),
        exit_code: EXIT_OURS,
    };
    if number < 0 {
        return Err(complaint(""));
    }
    // SAFETY: nothing has been opened or closed since this process began, so it stays as it is
    // until it is duplicated.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|_: Errno| complaint(""))?;
    match OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => Err(complaint(" for writing")),
        _ => Ok(fd),
    }
}

/// Of a run that came to an end.
pub fn of(report: Report) -> Record {
    let failure = undelivered(&report);
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
    let Fetched {
        files,
        missing,
        left_out,
        ..
    } = report.fetched;
    let missing_count = missing.count + left_out.count;
    let left_out = left_out.first.into_iter();
    let left_out = left_out.map(|name| format!("{name}: neither file nor directory"));
    let [kept, more] = report.kept;
    let stdout = Stream::new(kept, report.output[0]);
    let stderr = Stream::new(more, report.output[1]);
    Record {
        status,
        exit_code,
        signal,
        stdout: stdout.text,
        stderr: stderr.text,
        stdout_encoding: stdout.encoding,
        stderr_encoding: stderr.encoding,
        stdout_bytes: stdout.bytes,
        stderr_bytes: stderr.bytes,
        error,
        limits_hit,
        exception: report.told.exception,
        result: report.told.result,
        displays: report.told.displays,
        events: report.told.events,
        files: files.first.into_iter().map(file).collect(),
        files_count: files.count as u64,
        files_missing: missing.first.into_iter().chain(left_out).collect(),
        files_missing_count: missing_count as u64,
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
    }
}

/// Of a run that never began, or that we could not bring to its end; after so long.
pub fn of_failure(error: &anyhow::Error, memory: u64, elapsed: Duration) -> Record {
    let (failure, _) = failure(error);
    let elapsed = milliseconds(elapsed);
    Record {
        timings_ms: Timings {
            total: elapsed,
            setup: elapsed,
            ..Timings::default()
        },
        memory: Memory {
            limit: memory,
            peak: None,
        },
        // Only a signal that asks us to stop needs no explanation.
        ..match failure {
            Some(failure) => Record {
                error: Some(failure),
                ..Record::empty(Status::Error)
            },
            None => Record::empty(Status::Cancelled),
        }
    }
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
        // The host's doing, not the guest's.
        Outcome::Crashed(Crash::MemoryLost) => Status::Error,
        Outcome::Crashed(_) => Status::Crashed,
        Outcome::NotStarted(_)
        | Outcome::NoFiles(_)
        | Outcome::InputLimit
        | Outcome::OutputClosed
        | Outcome::OutputFailed(_) => Status::Error,
    }
}

/// Why the program's own end does not count.
fn undelivered(report: &Report) -> Option<Failure> {
    if report.exit_code() == report.outcome.exit_code() {
        return None;
    }
    let Fetched {
        missing, failure, ..
    } = &report.fetched;
    Some(match failure {
        Some(failure) => Failure {
            message: failure.what.clone(),
            remedy: failure.remedy.clone(),
        },
        None => Failure {
            message: format!("files that were wanted are missing: {}", missing.count),
            remedy: "see that the program makes them, and may read them".into(),
        },
    })
}

fn limits_hit(report: &Report) -> Vec<Limit> {
    let [stdout, stderr] = report
        .output
        .map(|totals| totals.total > report.limits.max_output);
    let failure = report.fetched.failure.as_ref();
    let files = failure.is_some_and(|failure| failure.is_limit);
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

/// What became of an output stream.
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
                // A character that the limit cut is left out, so that text stays text.
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

/// Length without the beginning of a character at the end.
fn whole_characters(bytes: &[u8]) -> usize {
    match str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn encode(bytes: Vec<u8>) -> (String, Encoding) {
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

/// To the microsecond.
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
