//! How much memory a client's answers take that it has not read yet.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of answers of each kind.
const ANSWERS_MAX: u32 = 64 << 10;
/// An answer is there as values and as the message that is made of them, with escapes.
const COPIES: u64 = 4;

/// What an answer has in it. A run's does not wait for files.
#[derive(Debug, Clone, Copy)]
pub enum AnswerKind {
    Run,
    Files,
}

/// A client's.
#[derive(Debug, Clone)]
pub struct UnreadBudget {
    runs: Arc<Semaphore>,
    files: Arc<Semaphore>,
}

/// What one answer takes of it until all of these are dropped.
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

    /// Nothing yet.
    pub fn share(&self) -> Reservation {
        Reservation {
            room: self.clone(),
            taken: Arc::default(),
        }
    }
}

impl Reservation {
    /// Waits for room for an answer of so many bytes; one that is too large has all of it to itself.
    /// Once for each answer, or two could wait for each other.
    pub async fn take(&self, of: AnswerKind, bytes: u64) {
        let kib = (bytes.saturating_mul(COPIES) >> 10).clamp(1, ANSWERS_MAX.into()) as u32;
        let room = match of {
            AnswerKind::Run => &self.room.runs,
            AnswerKind::Files => &self.room.files,
        };
        // It cannot fail: nobody closes it.
        if let Ok(permit) = Arc::clone(room).acquire_many_owned(kib).await {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push(permit);
        }
    }
}
