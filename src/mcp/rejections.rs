//! What is turned away at a door is written down too, but not each time: whoever has no token could
//! fill the log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whose, and why.
pub type Kind = (Arc<str>, &'static str);

/// How many there were of each since they were last written down; those of late only.
#[derive(Default)]
pub struct TurnedAway(Mutex<HashMap<Kind, u64>>);

impl TurnedAway {
    /// Counts one more; returns whether it is the first of late.
    pub fn add(&self, kind: &Kind) -> bool {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(kind) {
            *count += 1;
            return false;
        }
        counts.insert(kind.clone(), 1);
        true
    }

    /// Takes how many there were since the last time; of a kind that had none, it forgets.
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
