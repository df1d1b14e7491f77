//! `sandbox mcp`: programs for agents, through the Model Context Protocol. tokio stays in here.

mod answer;
mod arguments;
mod child;
mod client;
mod kept;
mod plausible;
mod random;
mod scratch;
mod server;
mod signals;
mod stdio;

use anyhow::{Context, Result};
use kept::Kept;
use scratch::Scratch;
use server::{Server, Shared};
use signals::Signals;
use std::path::PathBuf;
use std::sync::Arc;

/// What the operator asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub kvm: PathBuf,
}

/// Serves until the client goes or a signal comes; gives the exit code.
pub fn serve(options: Options) -> Result<u8> {
    // One thread: what takes long, runs, are processes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a runtime")?;
    let code = runtime.block_on(serve_until_the_end(options));
    // Not waiting for a read of standard input that nothing ends.
    runtime.shutdown_background();
    code
}

async fn serve_until_the_end(options: Options) -> Result<u8> {
    let directory = Scratch::create()?;
    let shared = Arc::new(Shared {
        kvm: options.kvm,
        directory: directory.path().into(),
        kept: Kept::new(directory.path().into()),
    });
    let mut signals = Signals::watch()?;
    tokio::select! {
        () = stdio::serve(Server::new(shared)) => Ok(0),
        number = signals.next() => Ok(128 + number),
    }
}
