//! The owners of sessions, for the protocol versions that have sessions.

use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::session::{SessionId, SessionManager};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// The most sessions of a client at once; a new one replaces the oldest.
const SESSIONS_MAX: usize = 32;
/// The time without any message after which a session ends. It is longer than any run.
const IDLE: Duration = Duration::from_secs(2 * 3600);

pub struct Sessions {
    manager: Arc<LocalSessionManager>,
    /// The sessions with their clients, the oldest first.
    owners: Mutex<VecDeque<(SessionId, Arc<str>)>>,
}

impl Sessions {
    pub fn new() -> Self {
        let mut config = SessionConfig::default();
        config.keep_alive = Some(IDLE);
        // A client that loses a stream loses its run: there is nothing to resume.
        config.sse_retry = None;
        let mut manager = LocalSessionManager::default();
        manager.session_config = config;
        Self {
            manager: Arc::new(manager),
            owners: Mutex::default(),
        }
    }

    pub fn manager(&self) -> Arc<LocalSessionManager> {
        Arc::clone(&self.manager)
    }

    pub async fn belongs(&self, id: &str, client: &str) -> bool {
        let owners = self.owners.lock().await;
        owners
            .iter()
            .any(|(its, owner)| **its == *id && **owner == *client)
    }

    /// Closes a client's oldest sessions so that it can begin another.
    pub async fn make_room(&self, client: &str) {
        let mut owners = self.owners.lock().await;
        let alive = self.manager.sessions.read().await;
        owners.retain(|(id, _)| alive.contains_key(id));
        drop(alive);
        while owners
            .iter()
            .filter(|(_, owner)| **owner == *client)
            .count()
            >= SESSIONS_MAX
        {
            let Some(oldest) = owners.iter().position(|(_, owner)| **owner == *client) else {
                return;
            };
            if let Some((id, _)) = owners.remove(oldest) {
                // The session may have ended by itself.
                self.manager.close_session(&id).await.unwrap_or_default();
            }
        }
    }

    /// Closes all sessions of a client.
    pub async fn close(&self, client: &str) {
        let mut owners = self.owners.lock().await;
        for (id, _) in owners.iter().filter(|(_, owner)| **owner == *client) {
            // The session may have ended by itself.
            self.manager.close_session(id).await.unwrap_or_default();
        }
        owners.retain(|(_, owner)| **owner != *client);
    }

    pub async fn add(&self, id: &str, client: &Arc<str>) {
        self.owners
            .lock()
            .await
            .push_back((id.into(), Arc::clone(client)));
    }
}
