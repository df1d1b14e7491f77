//! The state that the vCPU thread and the main thread share during a run.

use guest::{FLUSH_SIGNAL, Frame, MAX_PAYLOAD, STDIN_WINDOW, Signal, Terminal, WindowSize, stream};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Standard input on its way to the guest, and news between the threads.
pub struct Shared {
    stopped: AtomicBool,
    ended: AtomicBool,
    is_late: AtomicBool,
    started: OnceLock<Instant>,
    stdin_wanted: AtomicBool,
    terminal: OnceLock<Terminal>,
    stdin: Mutex<Stdin>,
    /// Readable when the main thread should look again.
    news: EventFd,
}

#[derive(Default)]
struct Stdin {
    waiting: Vec<Frame>,
    /// The number of bytes that were given to us and that the agent has not taken yet.
    outstanding: usize,
}

impl Shared {
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            started: OnceLock::new(),
            stdin_wanted: AtomicBool::new(false),
            terminal: OnceLock::new(),
            stdin: Mutex::default(),
            news: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// Notes that nothing more is wanted of the guest. The main thread calls this.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Notes that the time limit is over, and asks the program to give out the output that it holds, and
    /// to end. The main thread calls this.
    pub fn ask_for_rest(&self) {
        self.is_late.store(true, Ordering::Release);
        self.give_signal(Signal {
            number: FLUSH_SIGNAL,
            is_for_group: false,
        });
    }

    /// Returns whether the program was asked for the rest of its output.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Acquire)
    }

    /// Notes that the vCPU thread has left the guest for the last time. The vCPU thread calls this.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.tell();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Returns when the job was handed to the guest, if it was.
    pub fn start_time(&self) -> Option<Instant> {
        self.started.get().copied()
    }

    /// Notes that the job is on its way. The vCPU thread calls this.
    pub fn started(&self, now: Instant) {
        self.started.get_or_init(|| now);
        self.tell();
    }

    /// Tells the main thread to look again. The vCPU thread calls this.
    pub fn tell(&self) {
        // The write only fails when 2^64 - 2 pieces of news are unread.
        self.news.write(1).unwrap_or_default();
    }

    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Resets the news. The main thread calls this before it looks.
    pub fn acknowledge(&self) {
        // It fails with EAGAIN if there was no news.
        self.news.read().unwrap_or_default();
    }

    /// Notes that the program looks for standard input. The vCPU thread calls this.
    pub fn want_stdin(&self) {
        self.stdin_wanted.store(true, Ordering::Release);
        self.tell();
    }

    /// Notes the terminal that the program has. What is typed there goes to the guest whether the program
    /// looks for it or not. The main thread calls this.
    pub fn set_terminal(&self, terminal: Terminal) {
        self.terminal.get_or_init(|| terminal);
        if self.is_typed() {
            self.stdin_wanted.store(true, Ordering::Release);
        }
    }

    pub fn has_terminal(&self) -> bool {
        self.terminal.get().is_some()
    }

    /// Returns whether standard input is what is typed at the terminal.
    pub fn is_typed(&self) -> bool {
        let terminal = self.terminal.get();
        terminal.is_some_and(|terminal| terminal.has(stream::STDIN))
    }

    /// Queues a new size of the terminal for the guest. The main thread calls this.
    pub fn resize(&self, size: WindowSize) {
        self.stdin().waiting.push(Frame::Resize(size));
    }

    /// Returns how many bytes of standard input the guest can take now. There are none before the
    /// program looks for input, so that bytes that it does not read stay where they are. The main
    /// thread calls this.
    pub fn stdin_room(&self) -> usize {
        if !self.stdin_wanted.load(Ordering::Acquire) {
            return 0;
        }
        (STDIN_WINDOW - self.stdin().outstanding).min(MAX_PAYLOAD)
    }

    /// Queues at most [`Self::stdin_room`] bytes for the guest; an empty slice means the end. The
    /// main thread calls this.
    pub fn give_stdin(&self, bytes: &[u8]) {
        let frame = match bytes {
            // A terminal has no end: it hangs up.
            [] if self.is_typed() => return,
            [] => Frame::StdinEnd,
            bytes if self.is_typed() => Frame::Typed(bytes.to_vec()),
            bytes => Frame::Stdin(bytes.to_vec()),
        };
        let mut stdin = self.stdin();
        stdin.outstanding += bytes.len();
        stdin.waiting.push(frame);
    }

    /// Queues a signal for the program. The main thread calls this.
    pub fn give_signal(&self, signal: Signal) {
        self.stdin().waiting.push(Frame::Signal(signal));
    }

    /// Takes the queued input and signals. The vCPU thread calls this.
    pub fn take_input(&self) -> Vec<Frame> {
        std::mem::take(&mut self.stdin().waiting)
    }

    /// Notes that the agent took this many bytes. Returns `None` if it was not given that many. The
    /// vCPU thread calls this.
    pub fn stdin_taken(&self, count: usize) -> Option<()> {
        let mut stdin = self.stdin();
        stdin.outstanding = stdin.outstanding.checked_sub(count)?;
        drop(stdin);
        self.tell();
        Some(())
    }

    fn stdin(&self) -> MutexGuard<'_, Stdin> {
        // Each change is complete before the lock is released, so a poisoned lock is harmless.
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
