//! Counts of rejected requests and connections. Rejections are logged too, but not one by one: a
//! client without a token could otherwise fill the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The client, and the reason.
pub type Kind = (Arc<str>, &'static str);

/// The rejections of each kind since they were last logged. Only kinds with recent ones are kept.
#[derive(Default)]
pub struct TurnedAway(Mutex<HashMap<Kind, u64>>);

impl TurnedAway {
    /// Counts one more rejection; returns whether it is the first recent one of its kind.
    pub fn add(&self, kind: &Kind) -> bool {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(kind) {
            *count += 1;
            return false;
        }
        counts.insert(kind.clone(), 1);
        true
    }

    /// Takes the number of rejections since the last call. A kind that had none is forgotten.
    pub fn take(&self, kind: &Kind) -> Option<u64> {
        let mut counts = self.counts();
        let count = std::mem::take(counts.get_mut(kind)?);
        if count == 0 {
            counts.remove(kind);
            return None;
        }
        Some(count)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Kind, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
