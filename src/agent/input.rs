//! The state that the vCPU thread and the main thread share during a run.

use guest::{FLUSH_SIGNAL, Frame, MAX_PAYLOAD, STDIN_WINDOW, Signal, Terminal, WindowSize, stream};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::VecDeque;
use std::mem::replace;
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
    /// The frames that the agent is still to get.
    waiting: Vec<Frame>,
    /// The pieces that the agent can take, and the number of their bytes.
    pieces: VecDeque<Vec<u8>>,
    size: usize,
    /// Whether the agent knows that there are pieces, or will hear of it.
    is_told: bool,
    /// The number of bytes that were typed and that the agent has not passed on yet.
    typed: usize,
    /// Whether no more is to be read.
    has_ended: bool,
}

impl Stdin {
    /// Queues bytes in as few pieces as they fit in.
    fn push(&mut self, mut bytes: Vec<u8>) {
        self.size += bytes.len();
        match self.pieces.back_mut() {
            Some(last) if last.len() + bytes.len() <= MAX_PAYLOAD => last.append(&mut bytes),
            _ => {
                bytes.shrink_to_fit();
                self.pieces.push_back(bytes);
            }
        }
    }
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
        let stdin = self.stdin();
        match stdin.has_ended {
            true => 0,
            false => (STDIN_WINDOW - stdin.size - stdin.typed).min(MAX_PAYLOAD),
        }
    }

    /// Leaves what waits on standard input to another program.
    pub fn leave_stdin(&self) {
        self.stdin().has_ended = true;
    }

    /// Queues at most [`Self::stdin_room`] bytes for the guest; no bytes mean the end. Returns whether the
    /// agent is to be told something. The main thread calls this.
    pub fn give_stdin(&self, bytes: Vec<u8>) -> bool {
        let mut stdin = self.stdin();
        let frame = match &*bytes {
            // A terminal has no end: it hangs up.
            [] if self.is_typed() => return false,
            [] => {
                stdin.has_ended = true;
                Frame::StdinEnd
            }
            _ if self.is_typed() => {
                stdin.typed += bytes.len();
                Frame::Typed(bytes)
            }
            _ => {
                stdin.push(bytes);
                if replace(&mut stdin.is_told, true) {
                    return false;
                }
                Frame::Stdin
            }
        };
        stdin.waiting.push(frame);
        true
    }

    /// Takes queued standard input, at most `room` bytes. Once there is none, the agent is told of the next.
    /// The vCPU thread calls this.
    pub fn take_stdin(&self, room: usize) -> Vec<u8> {
        // The main thread waits while all of the window is full, and then reads half of it at once.
        const HALF: usize = STDIN_WINDOW / 2;
        let mut stdin = self.stdin();
        let before = stdin.size;
        let mut piece = stdin.pieces.pop_front().unwrap_or_default();
        if piece.len() > room {
            let rest = piece.split_off(room);
            stdin.pieces.push_front(rest);
        }
        stdin.size -= piece.len();
        stdin.is_told = !piece.is_empty();
        if before > HALF && stdin.size <= HALF {
            self.tell();
        }
        piece
    }

    /// Queues a signal for the program. The main thread calls this.
    pub fn give_signal(&self, signal: Signal) {
        self.stdin().waiting.push(Frame::Signal(signal));
    }

    /// Queues a frame for the guest. The main thread calls this.
    pub fn give(&self, frame: Frame) {
        self.stdin().waiting.push(frame);
    }

    /// Takes the queued input and signals. The vCPU thread calls this.
    pub fn take_input(&self) -> Vec<Frame> {
        std::mem::take(&mut self.stdin().waiting)
    }

    /// Returns whether input or signals wait for the guest. The vCPU thread calls this.
    pub fn has_input(&self) -> bool {
        !self.stdin().waiting.is_empty()
    }

    /// Notes that the agent passed on this many typed bytes. Returns `None` if it was not given that many.
    /// The vCPU thread calls this.
    pub fn typed_taken(&self, count: usize) -> Option<()> {
        let mut stdin = self.stdin();
        stdin.typed = stdin.typed.checked_sub(count)?;
        drop(stdin);
        self.tell();
        Some(())
    }

    fn stdin(&self) -> MutexGuard<'_, Stdin> {
        // Each change is complete before the lock is released, so a poisoned lock is harmless.
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether there are frames, each of which says that there is standard input.
    fn is_told(shared: &Shared) -> bool {
        let frames = shared.take_input();
        assert!(
            frames.iter().all(|frame| *frame == Frame::Stdin),
            "{frames:?}"
        );
        !frames.is_empty()
    }

    #[test]
    fn the_agent_is_told_of_input_once_until_it_has_found_none() {
        let shared = Shared::new().unwrap();
        assert!(shared.give_stdin(b"one".to_vec()) && is_told(&shared));
        assert!(!shared.give_stdin(b"two".to_vec()) && !is_told(&shared));
        assert_eq!(shared.take_stdin(5), b"onetw");
        assert!(!shared.give_stdin(vec![3; MAX_PAYLOAD]) && !is_told(&shared));
        assert_eq!(shared.take_stdin(100), b"o");
        assert_eq!(shared.take_stdin(MAX_PAYLOAD), [3; MAX_PAYLOAD]);
        assert_eq!(shared.take_stdin(100), b"");
        assert!(shared.give_stdin(b"four".to_vec()) && is_told(&shared));
        assert!(shared.give_stdin(Vec::new()));
        assert_eq!(shared.take_input(), [Frame::StdinEnd]);
        assert_eq!(shared.take_stdin(100), b"four");
    }

    #[test]
    fn no_more_input_is_held_than_a_window() {
        let shared = Shared::new().unwrap();
        assert_eq!(shared.stdin_room(), 0, "nobody looks for input yet");
        shared.want_stdin();
        for held in (0..STDIN_WINDOW).step_by(MAX_PAYLOAD) {
            assert_eq!(shared.stdin_room(), MAX_PAYLOAD, "{held}");
            shared.give_stdin(vec![0; MAX_PAYLOAD]);
        }
        assert_eq!(shared.stdin_room(), 0);
        shared.acknowledge();
        assert_eq!(shared.take_stdin(10).len(), 10);
        assert_eq!(shared.stdin_room(), 10);
    }
}
