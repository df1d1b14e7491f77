//! A bound on the memory of the answers that a client has not read yet.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most KiB of unread answers of each kind.
const ANSWERS_MAX: u32 = 64 << 10;
/// An answer is in memory as values and as the message made of them, which has escapes.
const COPIES: u64 = 4;

/// The kinds of answers. A run's answer does not wait for the room of files.
#[derive(Debug, Clone, Copy)]
pub enum AnswerKind {
    Run,
    Files,
}

/// The room for a client's unread answers.
#[derive(Debug, Clone)]
pub struct UnreadBudget {
    runs: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

/// The room that one answer takes, until all clones of this are dropped.
#[derive(Debug, Clone)]
pub struct Reservation {
    room: UnreadBudget,
    taken: Arc<Mutex<Vec<OwnedSemaphorePermit>>>,
}

impl UnreadBudget {
    pub fn new() -> Self {
        let room = || Arc::new(Semaphore::new(ANSWERS_MAX as usize));
        Self {
            runs: room(),
            files: room(),
        }
    }

    /// Returns a reservation that takes no room yet.
    pub fn share(&self) -> Reservation {
        Reservation {
            room: self.clone(),
            taken: Arc::default(),
        }
    }
}

impl Reservation {
    /// Waits for room for an answer of so many bytes; an answer that is too large waits for all the
    /// room. It is called once for each answer, or two answers could wait for each other.
    pub async fn take(&self, of: AnswerKind, bytes: u64) {
        let kib = (bytes.saturating_mul(COPIES) >> 10).clamp(1, ANSWERS_MAX.into()) as u32;
        let room = match of {
            AnswerKind::Run => &self.room.runs,
            AnswerKind::Files => &self.room.files,
        };
        // This cannot fail: nobody closes the semaphore.
        if let Ok(permit) = Arc::clone(room).acquire_many_owned(kib).await {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push(permit);
        }
    }
}
