//! How much there is of something now.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Gauge(Arc<watch::Sender<usize>>);

/// So much of it, until this is dropped.
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

    /// When there is at most so much.
    pub async fn at_most(&self, most: usize) {
        // It cannot fail: a sender is here.
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
