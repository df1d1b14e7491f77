//! How much there is of something now.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Count(Arc<watch::Sender<usize>>);

/// So much of it, until this is dropped.
pub struct Part {
    of: Arc<watch::Sender<usize>>,
    count: usize,
}

impl Count {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub fn more(&self, count: usize) -> Part {
        self.0.send_modify(|all| *all += count);
        Part {
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

impl Drop for Part {
    fn drop(&mut self) {
        self.of.send_modify(|all| *all -= self.count);
    }
}
