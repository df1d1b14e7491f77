//! The state that all connections of a server share.

use crate::kvm_mode::Device;
use crate::mcp::admission::Governor;
use crate::mcp::artifacts::ArtifactStore;
use crate::mcp::rejections::{Kind, TurnedAway};
use crate::mcp::sessions::Sessions;
use crate::mcp::transport::gauge::Gauge;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// After the first entry about a client that is turned away, each further entry counts a period of
/// this length.
const PERIOD: Duration = Duration::from_secs(10);

/// The state of a server, shared by all its connections.
pub struct Shared {
    pub kvm: Device,
    /// A private directory, which is removed when this server ends.
    pub directory: PathBuf,
    pub kept: ArtifactStore,
    pub sessions: Arc<Sessions>,
    pub governor: Governor,
    pub calls: Gauge,
    pub turned_away: TurnedAway,
    /// The token that is cancelled when this server is to stop.
    pub stop: CancellationToken,
}

impl Shared {
    /// Has the log record that a client was turned away.
    pub fn turn_away(self: &Arc<Self>, client: &str, why: &'static str) {
        let kind = (Arc::from(client), why);
        if self.turned_away.add(&kind) {
            tokio::spawn(Arc::clone(self).write_down(kind));
        }
    }

    async fn write_down(self: Arc<Self>, kind: Kind) {
        // A stopping server waits for the entries that are still to be written.
        let _until_it_is_written = self.calls.more(1);
        while let Some(times) = self.turned_away.take(&kind) {
            let (client, why) = &kind;
            self.governor.turned_away(client, why, times).await;
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }
}
