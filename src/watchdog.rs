//! The watchdog: the main thread during a run, which watches the clock, signals and standard input
//! while another thread runs the vCPU.

use crate::agent::{Session, Shared};
use crate::confine::Seal;
use crate::devices::vsock::Peer;
use crate::limits::Limits;
use crate::outcome::{Crash, Outcome};
use crate::signals::{Received, Signals};
use crate::terminal::window_size;
use crate::vm::{End, HypercallHandler, Kicker, Vm};
use anyhow::{Context, Result, anyhow};
use guest::Signal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal::SIGWINCH;
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

/// The time in which another signal that asks to stop repeats the first: timeout(1) sends one to its
/// child, and one to its own process group.
const REPEAT_INTERVAL: Duration = Duration::from_millis(100);
/// The time that a program at its limit has to give out what it holds of its output: of the processor, and
/// by the clock, which goes on while other processes have the processor.
const REST_WORK: Duration = Duration::from_millis(50);
const REST_INTERVAL: Duration = Duration::from_millis(80);
/// The interval at which the vCPU thread's use of the processor is looked at meanwhile.
const REST_PULSE: Duration = Duration::from_millis(10);

/// The machine, the time when the vCPU thread entered it, and the reason why it left it.
type Ended<H> = (Vm<H>, Result<(Instant, End)>);

/// A vCPU thread at work, watched by the main thread.
pub struct Watchdog<H> {
    kicker: Arc<Kicker>,
    shared: Arc<Shared>,
    thread: JoinHandle<Ended<H>>,
    began: Instant,
}

impl<H: Peer + HypercallHandler + Send + 'static> Watchdog<H> {
    /// Starts the vCPU thread, which enters the guest when both threads are confined.
    pub fn start(vm: Vm<H>, shared: Arc<Shared>, seal: Seal) -> Result<Self> {
        Self::start_with(vm, shared, seal, Vm::run)
    }

    /// Starts the vCPU thread, which runs the guest in this way when both threads are confined.
    pub fn start_with(
        mut vm: Vm<H>,
        shared: Arc<Shared>,
        seal: Seal,
        run: impl FnOnce(&mut Vm<H>) -> Result<End> + Send + 'static,
    ) -> Result<Self> {
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
                    .and_then(|()| Ok((Instant::now(), run(&mut vm)?)));
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

    /// Makes the vCPU thread look for what there is for it.
    pub fn kick(&self) {
        self.kicker.kick();
    }

    /// Stops the vCPU thread. Returns the machine, and why the thread left it.
    pub fn stop(self) -> Result<Ended<H>> {
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

impl Watchdog<Session> {
    /// Serves the vCPU thread until it ends, or must be stopped; returns the machine. `pulse` is
    /// called at least once a second.
    pub fn watch(
        self,
        limits: &Limits,
        signals: &Signals,
        pulse: &mut dyn FnMut(),
    ) -> Result<(Vm<Session>, Verdict)> {
        let mut stop = None;
        let mut verdict = self.attend(limits, signals, pulse, &mut stop);
        if let Ok(Some(Outcome::TimedOut)) = verdict
            && let Err(error) = self.await_rest()
        {
            verdict = Err(error);
        }
        // The guest is stopped whatever the result was: nobody else would do it.
        let (vm, ended) = self.stop()?;
        let verdict = verdict?;
        let (entered, end) = ended?;
        Ok((
            vm,
            Verdict {
                entered,
                asked: stop.map(|stop| stop.signal),
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
        stop: &mut Option<StopRequest>,
    ) -> Result<Option<Outcome>> {
        let mut input = Input::new(limits.input);
        loop {
            pulse();
            if self.shared.has_ended() {
                return Ok(None);
            }
            let (deadline, late) = self.deadline(limits, *stop);
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Some(late));
            }
            let wait = left.unwrap_or(PULSE_INTERVAL).min(PULSE_INTERVAL);
            let timed_out = input.wait(&self.shared, signals, wait)?;
            if let Some(received) = signals.take()?
                && let Some(outcome) = self.pass_on(received, limits.grace, stop)
            {
                return Ok(Some(outcome));
            }
            match input.forward(&self.shared) {
                Ok(is_told) if is_told || timed_out => self.kicker.kick(),
                Ok(_) => {}
                Err(outcome) => return Ok(Some(outcome)),
            }
        }
    }

    /// Passes a signal on to the program. Returns the outcome if the machine is to end at once: there
    /// is no program yet, it gets no grace, or it is asked to stop for the second time.
    fn pass_on(
        &self,
        received: Received,
        grace: Duration,
        stop: &mut Option<StopRequest>,
    ) -> Option<Outcome> {
        let number = received.signal as u8;
        if received.asks_to_stop() {
            let is_repeated = stop.is_some_and(|stop| stop.at.elapsed() < REPEAT_INTERVAL);
            if is_repeated {
                return None;
            }
            if self.shared.start_time().is_none() || grace.is_zero() || stop.is_some() {
                return Some(Outcome::Interrupted(number));
            }
            *stop = Some(StopRequest {
                signal: number,
                at: Instant::now(),
            });
        }
        match received.signal {
            SIGWINCH if !self.shared.has_terminal() => return None,
            // A terminal that has no size any more has hung up.
            SIGWINCH => window_size()
                .map(|size| self.shared.resize(size))
                .unwrap_or_default(),
            _ => self.shared.give_signal(Signal {
                number,
                is_for_group: !received.is_sent,
            }),
        }
        self.kicker.kick();
        None
    }

    /// Returns the time when the current limit is reached, and the outcome if it is.
    fn deadline(&self, limits: &Limits, stop: Option<StopRequest>) -> (Option<Instant>, Outcome) {
        let Some(start) = self.shared.start_time() else {
            let deadline = self.began + limits.boot;
            return (Some(deadline), Outcome::Crashed(Crash::NotReady));
        };
        let limit = limits.timeout.and_then(|limit| start.checked_add(limit));
        let grace = stop.and_then(|stop| stop.at.checked_add(limits.grace));
        match (limit, stop, grace) {
            (_, Some(stop), Some(end)) if limit.is_none_or(|limit| end < limit) => {
                (Some(end), Outcome::Interrupted(stop.signal))
            }
            _ => (limit, Outcome::TimedOut),
        }
    }

    /// Lets the program give out the output that it still holds, for a moment.
    fn await_rest(&self) -> Result<()> {
        self.shared.ask_for_rest();
        let end = Instant::now() + REST_INTERVAL;
        let most = self.kicker.processor_time()? + REST_WORK;
        while !self.shared.has_ended()
            && Instant::now() < end
            && self.kicker.processor_time()? < most
        {
            self.kicker.kick();
            let mut news = [PollFd::new(self.shared.news(), PollFlags::POLLIN)];
            match poll(&mut news, milliseconds(REST_PULSE)) {
                Ok(_) | Err(Errno::EINTR) => self.shared.acknowledge(),
                Err(errno) => return Err(errno).context("waiting"),
            }
        }
        Ok(())
    }
}

/// The request of a signal that the program stop.
#[derive(Debug, Clone, Copy)]
struct StopRequest {
    signal: u8,
    at: Instant,
}

/// Rounds a wait up, so that a deadline has passed when it is over.
fn milliseconds(wait: Duration) -> PollTimeout {
    let wait = Duration::from_millis(wait.as_micros().div_ceil(1000) as u64);
    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
}

/// The reports of both threads about the end.
pub struct Verdict {
    /// The time just before the guest's first instruction.
    pub entered: Instant,
    /// The signal that asked the program to stop, if one did.
    asked: Option<u8>,
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
            // The program did as it was asked.
            (Some(Outcome::Signaled { signal, .. }), _, _) if Some(signal) == self.asked => {
                Outcome::Interrupted(signal)
            }
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
}

impl Input {
    fn new(limit: u64) -> Self {
        Self {
            ready: false,
            ended: false,
            left: limit,
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
        let count = match poll(&mut fds, milliseconds(wait)) {
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

    /// Passes on the input that is there. Returns whether the guest is to be told. Input that cannot be
    /// read, or is too long, is the outcome of the run.
    fn forward(&mut self, shared: &Shared) -> Result<bool, Outcome> {
        if !std::mem::take(&mut self.ready) {
            return Ok(false);
        }
        // One byte more than is allowed shows that the input is too long.
        let most = usize::try_from(self.left).map_or(usize::MAX, |left| left.saturating_add(1));
        let mut bytes = vec![0; shared.stdin_room().min(most)];
        // This does not use std's buffer, which would keep bytes that there is no room for.
        let count = match read(stdin(), &mut bytes) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(false),
            // A terminal that has hung up.
            Err(Errno::EIO) if shared.is_typed() => 0,
            Err(errno) => return Err(Outcome::InputFailed(errno as i32)),
        };
        self.ended = count == 0;
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or(Outcome::InputLimit)?;
        bytes.truncate(count);
        Ok(shared.give_stdin(bytes))
    }
}
