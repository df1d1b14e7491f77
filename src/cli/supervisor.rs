//! The supervisor of a run: it writes the run's end to the log, while a worker runs the guest. The
//! process that a guest may take over has no access to the log, and ends with this one.

use crate::audit::Usage;
use crate::cli::progress::Progress;
use crate::process::{self, Exit};
use crate::run::{Inspection, Report};
use crate::signals::Signals;
use crate::template::builder::Interrupted;
use crate::worker::client::{self, Heard, Worker};
use crate::worker::{Ended, Event, Spec};
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The time that a process has to obey a signal.
const OBEY_TIMEOUT: Duration = Duration::from_secs(30);

/// The time that a terminal may take to be put back, in milliseconds: nobody may read what is shown there.
const KEEPER_TIMEOUT: u16 = 2_000;

/// The result of a run in a process of its own.
pub struct Supervised {
    pub result: Result<Report>,
    pub usage: Usage,
    /// The signals that ask us to stop, which are still watched.
    pub signals: Signals,
}

/// A function that decides whether an inspected run may begin.
pub type Admit<'a> = &'a mut dyn FnMut(Inspection) -> Result<()>;

struct Supervisor<'a> {
    worker: Worker,
    signals: Signals,
    /// The signals that asked the run to stop.
    asked: BTreeSet<Signal>,
    admit: Admit<'a>,
    progress: Progress,
    /// The reason why the run was refused, if it was.
    refused: Option<anyhow::Error>,
    told: Option<Ended>,
    /// The run was looked at, and let begin.
    inspected: bool,
}

/// Follows a run to its end in a process of its own, with the streams of this one. An error means
/// that there is no such process.
pub fn supervise(spec: &Spec, admit: Admit, progress: Progress) -> Result<Supervised> {
    // Signals are watched before there is a child that one could be meant for.
    let signals = Signals::watch()?;
    let streams = [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()];
    let mut supervisor = Supervisor {
        worker: Worker::start(Path::new(process::OURS), streams, spec.capture())?,
        signals,
        asked: BTreeSet::new(),
        admit,
        progress,
        refused: None,
        told: None,
        inspected: false,
    };
    supervisor.worker.channel.send(spec)?;
    supervisor.listen()?;
    let exit = process::ended(supervisor.worker.pid())?;
    let usage = client::usage(supervisor.worker.began, &exit);
    supervisor.await_keeper()?;
    let Supervisor {
        mut worker,
        signals,
        asked,
        refused,
        told,
        ..
    } = supervisor;
    worker.child.wait().context("waiting for a process")?;
    let result = match refused {
        Some(refused) => Err(refused),
        None => result(told, &exit, &asked),
    };
    Ok(Supervised {
        result,
        usage,
        signals,
    })
}

fn result(told: Option<Ended>, exit: &Exit, asked: &BTreeSet<Signal>) -> Result<Report> {
    let ended_by = exit.status.err();
    if let Some(signal) = ended_by.and_then(|number| Signal::try_from(number).ok())
        && asked.contains(&signal)
    {
        return Err(Interrupted(signal as u8).into());
    }
    match client::ended(told, exit) {
        Ended::Report(report) => Ok(*report),
        Ended::Failed(error) => Err(error.into()),
        Ended::Interrupted(signal) => Err(Interrupted(signal).into()),
    }
}

impl Supervisor<'_> {
    /// Receives the worker's messages until it has ended; passes on signals that are meant for it, and
    /// ends a worker that does not obey them.
    fn listen(&mut self) -> Result<()> {
        let child = process::descriptor(self.worker.pid())?;
        // The worker may close its end of the socket and go on.
        let mut may_speak = true;
        let mut deadline: Option<Instant> = None;
        loop {
            let mut fds = vec![
                PollFd::new(child.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            if may_speak {
                fds.push(PollFd::new(self.worker.channel.as_fd(), PollFlags::POLLIN));
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
            if let Some(received) = self.signals.take()? {
                self.asked.insert(received.signal);
                if received.asks_to_stop() {
                    deadline.get_or_insert_with(|| Instant::now() + OBEY_TIMEOUT);
                }
                if received.is_sent {
                    // If the worker has ended, it is not reaped yet, so its number is still its own.
                    kill(self.worker.pid(), received.signal).unwrap_or_default();
                }
            }
            if speaks {
                may_speak = self.hear()?;
            } else if has_ended {
                return Ok(());
            }
            if left == Some(Duration::ZERO) {
                // A worker that does not obey has been taken over.
                self.asked.insert(Signal::SIGKILL);
                self.kill();
                return Ok(());
            }
        }
    }

    /// Waits until nobody has the worker's end of the socket: the process that puts the terminal back outlives
    /// a worker that was killed.
    fn await_keeper(&self) -> Result<()> {
        // That nobody has it is told unasked.
        let mut fds = [PollFd::new(self.worker.channel.as_fd(), PollFlags::empty())];
        match poll(&mut fds, KEEPER_TIMEOUT) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context("waiting for the terminal"),
        }
    }

    fn kill(&self) {
        // The worker is not reaped yet, so its number is still its own.
        kill(self.worker.pid(), Signal::SIGKILL).unwrap_or_default();
    }

    /// Handles the messages that have arrived. Returns whether there may be more.
    fn hear(&mut self) -> Result<bool> {
        let mut heard = self.worker.channel.hear()?;
        loop {
            match heard {
                Heard::Nothing => {}
                Heard::End => return Ok(false),
                Heard::TooMuch => {
                    self.kill();
                    return Ok(false);
                }
                // A guest that has taken the worker over may not begin another run in the log.
                Heard::Event(Event::Inspected(_)) if self.inspected => {
                    self.kill();
                    return Ok(false);
                }
                Heard::Event(Event::Inspected(inspection)) => {
                    self.inspected = true;
                    if let Err(refused) = (self.admit)(inspection) {
                        self.refused = Some(refused);
                        self.kill();
                        return Ok(false);
                    }
                    self.worker.channel.admit()?;
                }
                Heard::Event(Event::Notice(notice)) => notice.tell(&mut self.progress),
                Heard::Event(Event::Ended(ended)) => self.told = Some(ended),
            }
            match self.worker.channel.take() {
                Some(next) => heard = next,
                None => return Ok(true),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::client::Channel;
    use nix::sys::signal::raise;
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    const TOLD: &str = r#"echo '{"Ended":{"Interrupted":15}}'"#;

    /// Returns a supervisor of a script, which is run in place of a worker.
    fn supervisor_of(script: &str, stderr: Stdio) -> Supervisor<'static> {
        let (socket, its) = UnixStream::pair().unwrap();
        let child = Command::new("sh")
            .args(["-c", script])
            .stdout(OwnedFd::from(its))
            .stderr(stderr)
            .spawn()
            .unwrap();
        Supervisor {
            worker: Worker {
                child,
                channel: Channel::new(socket, 100),
                began: Instant::now(),
            },
            signals: Signals::watch().unwrap(),
            asked: BTreeSet::new(),
            admit: Box::leak(Box::new(|_| unreachable!("it asks nothing"))),
            progress: Progress::new(true),
            refused: None,
            told: None,
            inspected: false,
        }
    }

    /// Runs a script in place of a worker, asks it to stop once it is up, and returns how it ended.
    fn stopped(script: &str) -> Exit {
        let (mut up, its_up) = pipe().unwrap();
        let mut supervisor = supervisor_of(script, its_up.into());
        up.read_exact(&mut [0]).unwrap();
        // The signal goes to this thread, which has blocked it.
        raise(Signal::SIGTERM).unwrap();
        supervisor.listen().unwrap();
        let exit = process::ended(supervisor.worker.pid()).unwrap();
        assert!(matches!(supervisor.told, Some(Ended::Interrupted(15))));
        assert!(supervisor.asked.contains(&Signal::SIGTERM));
        if let Err(signal) = exit.status {
            assert!(supervisor.asked.iter().any(|&asked| asked as i32 == signal));
        }
        supervisor.worker.child.wait().unwrap();
        exit
    }

    #[test]
    fn signals_are_for_a_process_that_says_nothing_more_too() {
        let exit = stopped(&format!("{TOLD}; exec >&-; echo up >&2; exec sleep 100"));
        assert_eq!(exit.status, Err(Signal::SIGTERM as i32));
    }

    #[test]
    fn a_process_that_obeys_no_signal_is_ended() {
        let exit = stopped(&format!(
            "trap '' TERM; {TOLD}; exec >&-; echo up >&2; exec sleep 100"
        ));
        assert_eq!(exit.status, Err(Signal::SIGKILL as i32));
    }

    #[test]
    fn what_a_process_says_of_its_end_is_heard() {
        let told = TOLD.replace('\'', "'\\''");
        let exit = stopped(&format!(
            "trap '{told}; exit 3' TERM; echo up >&2; while :; do :; done"
        ));
        assert_eq!(exit.status, Ok(3));
    }

    #[test]
    fn who_puts_the_terminal_back_is_waited_for_when_the_worker_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let done = directory.path().join("done");
        let script = format!("(sleep 0.1; : >{}) & exit 3", done.display());
        let mut supervisor = supervisor_of(&script, Stdio::null());
        supervisor.listen().unwrap();
        process::ended(supervisor.worker.pid()).unwrap();
        supervisor.await_keeper().unwrap();
        assert!(done.exists());
        supervisor.worker.child.wait().unwrap();
    }

    #[test]
    fn a_process_that_tells_more_than_any_worker_is_ended() {
        let mut supervisor = supervisor_of("exec yes", Stdio::null());
        supervisor.listen().unwrap();
        let exit = process::ended(supervisor.worker.pid()).unwrap();
        assert_eq!(exit.status, Err(Signal::SIGKILL as i32));
        supervisor.worker.child.wait().unwrap();
        assert!(result(supervisor.told.take(), &exit, &supervisor.asked).is_err());
    }
}
