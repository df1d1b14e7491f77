//! What all connections of a server share.

use crate::kvm_mode::Device;
use crate::mcp::admission::Governor;
use crate::mcp::artifacts::ArtifactStore;
use crate::mcp::rejections::{Kind, TurnedAway};
use crate::mcp::transport::gauge::Gauge;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// After an entry on what was turned away, the next one is for all of this long.
const PERIOD: Duration = Duration::from_secs(10);

/// The state of a server, for all its connections.
pub struct Shared {
    pub kvm: Device,
    /// Private, and gone when this server ends.
    pub directory: PathBuf,
    pub kept: ArtifactStore,
    pub governor: Governor,
    pub calls: Gauge,
    pub turned_away: TurnedAway,
    /// Cancelled when this server is to stop.
    pub stop: CancellationToken,
}

impl Shared {
    /// Has it written down that a client was turned away.
    pub fn turn_away(self: &Arc<Self>, client: &str, why: &'static str) {
        let kind = (Arc::from(client), why);
        if self.turned_away.add(&kind) {
            tokio::spawn(Arc::clone(self).write_down(kind));
        }
    }

    async fn write_down(self: Arc<Self>, kind: Kind) {
        // A server that stops waits for what is to be written.
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
