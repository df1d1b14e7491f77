//! `sandbox mcp` runs programs for agents through the Model Context Protocol. Only this module uses
//! tokio.

mod admission;
mod artifacts;
mod cell;
mod packages;
mod progress;
mod rejections;
mod run;
mod run_end;
mod server;
mod session_files;
mod session_log;
mod sessions;
mod signals;
mod state;
pub(crate) mod tool;
mod transport;
mod workspace;

use crate::error::{Error, Kind, Remedy};
use crate::kvm_mode::Device;
use crate::mcp::transport::gauge::Gauge;
pub use crate::mcp::transport::http::Options as HttpOptions;
use crate::mcp::transport::token_file::TokenFile;
pub use crate::mcp::transport::tokens::new_line as new_token;
use crate::worker::temp_dir::TempDir;
use admission::Governor;
use anyhow::{Context, Result};
use artifacts::ArtifactStore;
use rejections::TurnedAway;
use sessions::Sessions;

use signals::Signals;
use state::Shared;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The time that a stopping server gives its runs to end and to be logged.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The beginning of the names of servers' directories, which nothing else in the directory of temporary files has.
const DIRECTORY: &str = "sandbox-mcp-";

/// The operator's options.
#[derive(Debug, Clone)]
pub struct Options {
    pub kvm: Device,
    /// The server listens on HTTP with these options, instead of on standard input and output.
    pub http: Option<crate::mcp::transport::http::Options>,
    pub tokens: Option<PathBuf>,
    pub policy: Option<PathBuf>,
    pub audit: Option<PathBuf>,
}

/// Serves until the client goes or a signal comes; returns the signal's number if one came.
pub fn serve(options: Options) -> Result<Option<u8>> {
    let tokens = options.tokens.as_deref().map(TokenFile::read).transpose()?;
    if let Some(http) = &options.http
        && tokens.is_none()
        && !http.address.ip().is_loopback()
    {
        return Err(open_to_all(http.address).into());
    }
    let governor = Governor::new(
        options.policy.as_deref(),
        options.audit.as_deref(),
        options.http.is_none() || tokens.is_none(),
    )?;
    // One thread is enough: the runs, which take long, are processes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    let ended = runtime.block_on(serve_until_the_end(options, tokens, governor));
    // The runtime must not wait for a read of standard input, which nothing ends.
    runtime.shutdown_background();
    ended
}

async fn serve_until_the_end(
    options: Options,
    tokens: Option<TokenFile>,
    governor: Governor,
) -> Result<Option<u8>> {
    let directory = TempDir::create(DIRECTORY)?;
    let stop = CancellationToken::new();
    let sessions = Sessions::new(
        directory.path(),
        governor.sessions().clone(),
        governor.log(),
    )?;
    let shared = Arc::new(Shared {
        kvm: options.kvm,
        directory: directory.path().into(),
        kept: ArtifactStore::new(directory.path().into()),
        sessions: Arc::new(sessions),
        governor,
        calls: Gauge::new(),
        turned_away: TurnedAway::default(),
        stop: stop.clone(),
    });
    let mut signals = Signals::watch()?;
    let at_work = Arc::clone(&shared);
    let door = async {
        match options.http {
            None => {
                crate::mcp::transport::stdio::serve(shared).await;
                Ok(None)
            }
            Some(http) => match crate::mcp::transport::http::serve(shared, http, tokens).await? {},
        }
    };
    let ended = tokio::select! {
        ended = door => ended,
        number = signals.next() => Ok(Some(number)),
    };
    // The server's runs end now, and their ends are logged.
    stop.cancel();
    drop(timeout(STOP_TIMEOUT, at_work.calls.none()).await);
    at_work.sessions.end(STOP_TIMEOUT);
    ended
}

fn open_to_all(address: SocketAddr) -> Error {
    Error::new(
        Kind::Request,
        format!("{address} is open to others, and without tokens all of them may run code"),
        Remedy::GiveTokens,
    )
}
