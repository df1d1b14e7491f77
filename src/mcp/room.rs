//! How much memory a client's answers take that it has not read yet.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of answers of one client.
const ANSWERS_MAX: u32 = 64 << 10;
/// An answer is there as values and as the message that is made of them, with escapes.
const COPIES: u64 = 4;

/// A client's.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

/// What one answer takes of it until all of these are dropped.
#[derive(Debug, Clone)]
pub struct Share {
    room: Arc<Semaphore>,
    taken: Arc<Mutex<Vec<OwnedSemaphorePermit>>>,
}

impl Room {
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(ANSWERS_MAX as usize)))
    }

    /// Nothing yet.
    pub fn share(&self) -> Share {
        Share {
            room: Arc::clone(&self.0),
            taken: Arc::default(),
        }
    }
}

impl Share {
    /// Waits for room for an answer of so many bytes; one that is too large has all of it to itself.
    /// Once for each answer, or two could wait for each other.
    pub async fn take(&self, bytes: u64) {
        let kib = (bytes.saturating_mul(COPIES) >> 10).clamp(1, ANSWERS_MAX.into()) as u32;
        // It cannot fail: nobody closes it.
        if let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(kib).await {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push(permit);
        }
    }
}
