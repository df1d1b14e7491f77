//! A gauge: the current amount of something, which tasks can wait on.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Gauge(Arc<watch::Sender<usize>>);

/// An amount that counts until this is dropped.
pub struct GaugeGuard {
    of: Arc<watch::Sender<usize>>,
    count: usize,
}

impl Gauge {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub fn more(&self, count: usize) -> GaugeGuard {
        self.0.send_modify(|all| *all += count);
        GaugeGuard {
            of: Arc::clone(&self.0),
            count,
        }
    }

    /// Waits until the amount is at most this.
    pub async fn at_most(&self, most: usize) {
        // This cannot fail: `self` holds a sender.
        drop(self.0.subscribe().wait_for(|&count| count <= most).await);
    }

    pub async fn none(&self) {
        self.at_most(0).await;
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.of.send_modify(|all| *all -= self.count);
    }
}
