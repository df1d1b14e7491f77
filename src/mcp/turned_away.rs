//! What is turned away at a door is written down too, but not each time: whoever has no token could
//! fill the log.

use crate::mcp::server::Shared;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// After an entry, the next one is for all of this long.
const PERIOD: Duration = Duration::from_secs(10);

/// Whose, and why.
type Kind = (Arc<str>, &'static str);

/// How many there were of each since they were last written down; those of late only.
#[derive(Default)]
pub struct TurnedAway(Mutex<HashMap<Kind, u64>>);

impl TurnedAway {
    /// One more.
    pub fn count(shared: &Arc<Shared>, client: &str, why: &'static str) {
        let kind = (Arc::from(client), why);
        let mut counts = shared.turned_away.counts();
        if let Some(count) = counts.get_mut(&kind) {
            *count += 1;
            return;
        }
        counts.insert(kind.clone(), 1);
        tokio::spawn(write_down(Arc::clone(shared), kind));
    }

    fn take(&self, kind: &Kind) -> Option<u64> {
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

async fn write_down(shared: Arc<Shared>, kind: Kind) {
    // A server that stops waits for what is to be written.
    let _until_it_is_written = shared.calls.more(1);
    while let Some(times) = shared.turned_away.take(&kind) {
        let (client, why) = &kind;
        shared.governor.turned_away(client, why, times).await;
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}
