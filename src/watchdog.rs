//! The watchdog: the main thread during a run, which watches the clock, signals and standard input
//! while another thread runs the vCPU.

use crate::agent::{Session, Shared};
use crate::confine::Seal;
use crate::limits::Limits;
use crate::outcome::{Crash, Outcome};
use crate::signals::Signals;
use crate::vm::{End, Kicker, Vm};
use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;
use std::io::stdin;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The interval at which the vCPU thread is kicked even if nothing happened, so that it checks
/// whether its guest has halted for good.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which a vCPU thread that should stop is kicked.
const KICK_INTERVAL: Duration = Duration::from_millis(5);

/// The machine, the time when the vCPU thread entered it, and the reason why it left it.
type Ended = (Vm<Session>, Result<(Instant, End)>);

/// A vCPU thread at work, watched by the main thread.
pub struct Watchdog {
    kicker: Arc<Kicker>,
    shared: Arc<Shared>,
    thread: JoinHandle<Ended>,
    began: Instant,
}

impl Watchdog {
    /// Starts the vCPU thread, which enters the guest when both threads are confined.
    pub fn start(mut vm: Vm<Session>, shared: Arc<Shared>, seal: Seal) -> Result<Self> {
        let (main_seal, vcpu_seal) = seal.split();
        let kicker = Arc::new(vm.kicker());
        let (its_kicker, its_shared) = (Arc::clone(&kicker), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(move || {
                let result = vcpu_seal
                    .apply()
                    .and_then(|()| its_kicker.enlist())
                    // The time is taken here, as this thread may be far ahead of the one that
                    // started it.
                    .and_then(|()| Ok((Instant::now(), vm.run()?)));
                its_shared.end();
                (vm, result)
            })
            .context("starting the vCPU thread")?;
        main_seal.apply()?;
        Ok(Self {
            kicker,
            shared,
            thread,
            began: Instant::now(),
        })
    }

    /// Serves the vCPU thread until it ends, or must be stopped; returns the machine. `pulse` is
    /// called at least once a second.
    pub fn watch(
        self,
        limits: &Limits,
        signals: &Signals,
        pulse: &mut dyn FnMut(),
    ) -> Result<(Vm<Session>, Verdict)> {
        let verdict = self.attend(limits, signals, pulse);
        // The guest is stopped whatever the result was: nobody else would do it.
        let (vm, ended) = self.stop()?;
        let verdict = verdict?;
        let (entered, end) = ended?;
        Ok((
            vm,
            Verdict {
                entered,
                verdict,
                end,
            },
        ))
    }

    /// Waits until the vCPU thread has ended, or there is an outcome for which it must be stopped.
    fn attend(
        &self,
        limits: &Limits,
        signals: &Signals,
        pulse: &mut dyn FnMut(),
    ) -> Result<Option<Outcome>> {
        let mut input = Input::new(limits.input);
        loop {
            pulse();
            if self.shared.has_ended() {
                return Ok(None);
            }
            let (deadline, late) = self.deadline(limits);
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Some(late));
            }
            let wait = left.unwrap_or(PULSE_INTERVAL).min(PULSE_INTERVAL);
            let timed_out = input.wait(&self.shared, signals, wait)?;
            if let Some(signal) = signals.take()? {
                return Ok(Some(Outcome::Interrupted(signal)));
            }
            if input.forward(&self.shared) || timed_out {
                self.kicker.kick();
            }
            if input.is_over {
                return Ok(Some(Outcome::InputLimit));
            }
        }
    }

    /// Returns the time when the current limit is reached, and the outcome if it is.
    fn deadline(&self, limits: &Limits) -> (Option<Instant>, Outcome) {
        match self.shared.start_time() {
            None => (
                Some(self.began + limits.boot),
                Outcome::Crashed(Crash::NotReady),
            ),
            Some(start) => (
                limits.timeout.and_then(|limit| start.checked_add(limit)),
                Outcome::TimedOut,
            ),
        }
    }

    fn stop(self) -> Result<Ended> {
        self.shared.stop();
        while !self.shared.has_ended() {
            self.kicker.kick();
            std::thread::sleep(KICK_INTERVAL);
        }
        self.thread
            .join()
            .map_err(|_| anyhow!("the vCPU thread panicked"))
    }
}

/// The reports of both threads about the end.
pub struct Verdict {
    /// The time just before the guest's first instruction.
    pub entered: Instant,
    verdict: Option<Outcome>,
    end: End,
}

impl Verdict {
    /// Returns a single outcome: the guest's report takes precedence over the reason why it was
    /// stopped.
    pub fn outcome(self, reported: Option<Outcome>) -> Outcome {
        match (reported, self.verdict, self.end) {
            // If memory was lost, no report of the guest can be believed.
            (_, _, End::Crashed(Crash::MemoryLost)) => Outcome::Crashed(Crash::MemoryLost),
            (Some(outcome), _, _) | (None, Some(outcome), _) => outcome,
            (None, None, End::Crashed(crash)) => Outcome::Crashed(crash),
            (None, None, End::Done) => {
                Outcome::Crashed(Crash::Violation("it ended without a result".into()))
            }
        }
    }
}

/// The standard input of this process.
struct Input {
    ready: bool,
    ended: bool,
    /// The bytes that may still come.
    left: u64,
    /// Whether more bytes came than may.
    is_over: bool,
}

impl Input {
    fn new(limit: u64) -> Self {
        Self {
            ready: false,
            ended: false,
            left: limit,
            is_over: false,
        }
    }

    /// Waits for input that the guest has room for, news, or a signal. Returns whether the time ran
    /// out.
    fn wait(&mut self, shared: &Shared, signals: &Signals, wait: Duration) -> Result<bool> {
        let stdin = stdin();
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.news(), PollFlags::POLLIN),
        ];
        if !self.ended && shared.stdin_room() > 0 {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // The wait is rounded up, so that a deadline has passed when it is over.
        let wait = Duration::from_millis(wait.as_micros().div_ceil(1000) as u64);
        let count = match poll(
            &mut fds,
            PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno).context("waiting"),
        };
        self.ready = fds
            .get(2)
            .and_then(PollFd::revents)
            .is_some_and(|events| !events.is_empty());
        shared.acknowledge();
        Ok(count == 0)
    }

    /// Passes on the input that is there. Returns whether there was any, the end included.
    fn forward(&mut self, shared: &Shared) -> bool {
        if !std::mem::take(&mut self.ready) {
            return false;
        }
        // One byte more than is allowed shows that the input is too long.
        let most = usize::try_from(self.left).map_or(usize::MAX, |left| left.saturating_add(1));
        let mut bytes = vec![0; shared.stdin_room().min(most)];
        // This does not use std's buffer, which would keep bytes that there is no room for.
        let count = match read(stdin(), &mut bytes) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return false,
            // Input that cannot be read (a directory, a terminal that hung up) counts as empty.
            Err(_) => 0,
        };
        self.ended = count == 0;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                self.is_over = true;
                return false;
            }
        }
        shared.give_stdin(&bytes[..count]);
        true
    }
}
