//! What the vCPU thread and the main thread share during a run.

use guest::{Frame, MAX_PAYLOAD, STDIN_WINDOW};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Standard input on its way to the guest, and news between the threads.
pub struct Shared {
    stopped: AtomicBool,
    ended: AtomicBool,
    started: OnceLock<Instant>,
    stdin_wanted: AtomicBool,
    stdin: Mutex<Stdin>,
    /// Readable when the main thread should look again.
    news: EventFd,
}

#[derive(Default)]
struct Stdin {
    waiting: Vec<Frame>,
    /// Bytes given to us that the agent has not taken yet.
    outstanding: usize,
}

impl Shared {
    pub fn new() -> nix::Result<Self> {
        Ok(Self {
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            started: OnceLock::new(),
            stdin_wanted: AtomicBool::new(false),
            stdin: Mutex::default(),
            news: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
        })
    }

    /// Main thread: nothing more is wanted of the guest.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// vCPU thread: it has left the guest for the last time.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.tell();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// When the job was handed to the agent.
    pub fn start_time(&self) -> Option<Instant> {
        self.started.get().copied()
    }

    /// vCPU thread: the job is on its way.
    pub fn started(&self, now: Instant) {
        self.started.get_or_init(|| now);
        self.tell();
    }

    /// vCPU thread: the main thread should look again.
    pub fn tell(&self) {
        // It only fails when 2^64 - 2 pieces of news are unread.
        self.news.write(1).unwrap_or_default();
    }

    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// Main thread: has looked.
    pub fn acknowledge(&self) {
        // EAGAIN: there was nothing.
        self.news.read().unwrap_or_default();
    }

    /// vCPU thread: the program looks for standard input.
    pub fn want_stdin(&self) {
        self.stdin_wanted.store(true, Ordering::Release);
        self.tell();
    }

    /// Main thread: bytes of standard input that the guest can take now. None before it looks
    /// for any: what a program does not read stays where it is.
    pub fn stdin_room(&self) -> usize {
        if !self.stdin_wanted.load(Ordering::Acquire) {
            return 0;
        }
        (STDIN_WINDOW - self.stdin().outstanding).min(MAX_PAYLOAD)
    }

    /// Main thread: at most [`Self::stdin_room`] bytes; none means the end.
    pub fn give_stdin(&self, bytes: &[u8]) {
        let mut stdin = self.stdin();
        stdin.outstanding += bytes.len();
        stdin.waiting.push(match bytes {
            [] => Frame::StdinEnd,
            bytes => Frame::Stdin(bytes.to_vec()),
        });
    }

    /// vCPU thread.
    pub fn take_stdin(&self) -> Vec<Frame> {
        std::mem::take(&mut self.stdin().waiting)
    }

    /// vCPU thread: the agent took so many bytes. `None`: more than it was given.
    pub fn stdin_taken(&self, count: usize) -> Option<()> {
        let mut stdin = self.stdin();
        stdin.outstanding = stdin.outstanding.checked_sub(count)?;
        drop(stdin);
        self.tell();
        Some(())
    }

    fn stdin(&self) -> MutexGuard<'_, Stdin> {
        // Each change is whole before the lock is let go.
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
