//! The process that writes down how a run ended, beside the one that runs it: what a guest may
//! take over has no log, and ends with this one.

use crate::audit::{Log, Usage};
use crate::cli::admission::{CLIENT, Entrance};
use crate::cli::exit_code::{EXIT_OURS, EXIT_SIGNALED};
use crate::cli::messages::{explain, tell_error};
use crate::cli::record_writer::{Writer, told};
use crate::process::{self, Ended};
use crate::record::{Record, Status};
use crate::run::record_of;
use crate::signals::Signals;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Bytes that a process tells at most beside the output that it keeps.
const TOLD_MAX: u64 = 64 << 20;
/// What a byte of output may become in JSON.
const ESCAPED: u64 = 6;
/// How long a process may take to obey a signal.
const PATIENCE: Duration = Duration::from_secs(30);

pub enum Side {
    /// Runs the guest.
    Child(Entrance),
    Parent(Supervisor),
}

pub struct Supervisor {
    log: Log,
    child: Pid,
    told: PipeReader,
    signals: Signals,
    began: Instant,
    /// Signals that asked for the end.
    asked: BTreeSet<Signal>,
}

impl Supervisor {
    /// Goes on in two processes.
    pub fn split(log: Log, keep_code: bool) -> Result<Side> {
        let (told, parent) = pipe().context("making a pipe")?;
        let began = Instant::now();
        // Before there is a child that one could be meant for.
        let signals = Signals::watch()?;
        Ok(match process::fork()? {
            None => Side::Child(Entrance {
                log,
                keep_code,
                parent,
            }),
            Some(child) => Side::Parent(Self {
                log,
                child,
                told,
                signals,
                began,
                asked: BTreeSet::new(),
            }),
        })
    }

    /// Follows the run to its end, writes that down, and hands its record on. `kept`: bytes of
    /// each output stream that may be in it.
    pub fn attend(mut self, writer: Option<Writer>, kept: u64, memory: u64) -> Result<u8> {
        let most = TOLD_MAX.saturating_add(kept.saturating_mul(2 * ESCAPED));
        let answer = self.listen(most)?;
        let ended = process::ended(self.child)?;
        let (run, record) = split(&answer);
        // Of a record that its process did not write.
        let limits = |mut record: Record| {
            record.memory.limit = memory;
            record
        };
        let ended_by = ended
            .status
            .err()
            .and_then(|number| Signal::try_from(number).ok());
        let cancelled = ended_by.is_some_and(|signal| self.asked.contains(&signal));
        let code = match ended.status {
            Err(signal) if cancelled => i32::from(EXIT_SIGNALED) + signal,
            status => status.unwrap_or(EXIT_OURS.into()),
        };
        let code = u8::try_from(code).unwrap_or(EXIT_OURS);
        let mut record = match ended.record(record) {
            Ok(record) => record,
            Err(_) if cancelled => limits(Record::empty(Status::Cancelled)),
            Err(error) => {
                if ended.status.is_err() && writer.is_none() {
                    tell_error(&error);
                }
                limits(told((Record::empty(Status::Error), Some(error))))
            }
        };
        let written = run.map(|run| self.log.end(CLIENT, run, &record, self.usage(&ended)));
        let code = match written.transpose() {
            Ok(anchor) => {
                record.audit = anchor;
                code
            }
            Err(error) => {
                record = told(record_of::failure(&error, memory, self.began.elapsed()));
                match writer {
                    None => explain(&error),
                    Some(_) => EXIT_OURS,
                }
            }
        };
        let Some(writer) = writer else {
            return Ok(code);
        };
        Ok(writer.write(&record, Some(&self.signals))?.unwrap_or(code))
    }

    /// All that the child tells until it has ended; passes on signals that are for it, and sees that
    /// they are obeyed.
    fn listen(&mut self, most: u64) -> Result<Vec<u8>> {
        let child = process::descriptor(self.child)?;
        let mut told = Vec::new();
        let mut piece = vec![0; 64 << 10];
        // It may close its end and go on.
        let mut may_speak = true;
        let mut deadline: Option<Instant> = None;
        loop {
            let mut fds = vec![
                PollFd::new(child.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            if may_speak {
                fds.push(PollFd::new(self.told.as_fd(), PollFlags::POLLIN));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = left.map_or(Ok(PollTimeout::NONE), PollTimeout::try_from);
            match poll(&mut fds, wait.unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                result => result.context("waiting for a run")?,
            };
            let is_ready = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
            let has_ended = fds.first().is_some_and(is_ready);
            let speaks = fds.get(2).is_some_and(is_ready);
            if let Some((signal, sent)) = self.signals.take_with_sender()? {
                self.asked.insert(signal);
                deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                if sent {
                    // It may have ended, and is not reaped before we end.
                    kill(self.child, signal).unwrap_or_default();
                }
            }
            if speaks {
                match self.told.read(&mut piece).context("hearing from a run")? {
                    0 => may_speak = false,
                    count => told.extend_from_slice(&piece[..count]),
                }
            } else if has_ended {
                return Ok(told);
            }
            let is_late = left == Some(Duration::ZERO);
            if is_late || told.len() as u64 > most {
                // It was taken over.
                kill(self.child, Signal::SIGKILL).unwrap_or_default();
                self.asked.extend(is_late.then_some(Signal::SIGKILL));
                return Ok(told);
            }
        }
    }

    fn usage(&self, ended: &Ended) -> Usage {
        let milliseconds = |time: Duration| time.as_micros() as f64 / 1000.0;
        Usage {
            wall_ms: milliseconds(self.began.elapsed()),
            cpu_ms: milliseconds(ended.processor_time),
            exit: ended.status.unwrap_or_else(|signal| 128 + signal),
        }
    }
}

/// The number of the run, if it has begun, and its record.
fn split(told: &[u8]) -> (Option<u64>, &[u8]) {
    let begun = told.iter().position(|&byte| byte == b'\n').and_then(|end| {
        let number = str::from_utf8(&told[..end]).ok()?.parse().ok()?;
        Some((Some(number), &told[end + 1..]))
    });
    begun.unwrap_or((None, told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::ROTATE;
    use nix::sys::signal::raise;
    use std::process::Command;

    /// What becomes of a process that does this once it has closed its pipe, and is asked to stop.
    fn stopped(script: &str) -> Result<i32, i32> {
        let directory = tempfile::tempdir().unwrap();
        let (told, writer) = pipe().unwrap();
        let (mut up, its_up) = pipe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(writer)
            .stderr(its_up)
            .spawn()
            .unwrap();
        let mut supervisor = Supervisor {
            log: Log::open(&directory.path().join("log"), ROTATE, false).unwrap(),
            child: Pid::from_raw(child.id() as i32),
            told,
            signals: Signals::watch().unwrap(),
            began: Instant::now(),
            asked: BTreeSet::new(),
        };
        up.read_exact(&mut [0]).unwrap();
        // To this thread, which has blocked it.
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(supervisor.listen(100).unwrap(), b"told");
        let ended = process::ended(supervisor.child).unwrap().status;
        assert!(supervisor.asked.contains(&Signal::SIGTERM));
        if let Err(signal) = ended {
            assert!(supervisor.asked.iter().any(|&asked| asked as i32 == signal));
        }
        child.wait().unwrap();
        ended
    }

    #[test]
    fn signals_are_for_a_process_that_says_nothing_more_too() {
        let script = "printf told; exec >&-; echo up >&2; exec sleep 100";
        assert_eq!(stopped(script), Err(Signal::SIGTERM as i32));
    }

    #[test]
    fn a_process_that_obeys_no_signal_is_ended() {
        let script = "trap '' TERM; printf told; exec >&-; echo up >&2; exec sleep 100";
        assert_eq!(stopped(script), Err(Signal::SIGKILL as i32));
    }

    #[test]
    fn what_a_process_says_of_its_end_is_heard() {
        let script = "trap 'printf told; exit 3' TERM; echo up >&2; while :; do :; done";
        assert_eq!(stopped(script), Ok(3));
    }

    #[test]
    fn a_run_that_has_begun_has_a_number() {
        assert_eq!(split(b"17\n{}\n"), (Some(17), b"{}\n".as_slice()));
        assert_eq!(split(b"17\n"), (Some(17), b"".as_slice()));
        assert_eq!(split(b"{}\n"), (None, b"{}\n".as_slice()));
        assert_eq!(split(b""), (None, b"".as_slice()));
    }
}
