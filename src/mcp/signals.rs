//! Signals that ask this server to stop.

use crate::signals::is_ignored;
use anyhow::{Context, Result};
use std::future::pending;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The watched signals. A signal that was ignored when the server started is `None` and stays
/// ignored.
pub struct Signals {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    pub fn watch() -> Result<Self> {
        let watch = |kind: SignalKind| {
            let number = kind.as_raw_value().try_into()?;
            let watched = (!is_ignored(number)?).then(|| signal(kind));
            watched.transpose().context("watching for a signal")
        };
        Ok(Self {
            hangup: watch(SignalKind::hangup())?,
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal and returns its number.
    pub async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            () = come(&mut self.hangup) => SignalKind::hangup(),
            () = come(&mut self.interrupt) => SignalKind::interrupt(),
            () = come(&mut self.terminate) => SignalKind::terminate(),
        };
        kind.as_raw_value() as u8
    }
}

async fn come(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}
