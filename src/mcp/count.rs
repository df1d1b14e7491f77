//! How many there are of something now.

use std::sync::Arc;
use tokio::sync::watch;

#[derive(Clone)]
pub struct Count(Arc<watch::Sender<usize>>);

/// One of them, until it is dropped.
pub struct One(Arc<watch::Sender<usize>>);

impl Count {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub fn one(&self) -> One {
        self.0.send_modify(|count| *count += 1);
        One(Arc::clone(&self.0))
    }

    /// When there are at most so many.
    pub async fn at_most(&self, most: usize) {
        // It cannot fail: a sender is here.
        drop(self.0.subscribe().wait_for(|&count| count <= most).await);
    }

    pub async fn none(&self) {
        self.at_most(0).await;
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
