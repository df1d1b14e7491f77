//! A writer that passes the guest's console on to one of our streams, until the run is to stop.

use crate::agent::{Shared, Sink};
use anyhow::Result;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

pub struct Console {
    sink: Sink,
    shared: Arc<Shared>,
}

impl Console {
    pub fn new(stream: impl AsFd, shared: Arc<Shared>) -> Result<Self> {
        Ok(Self {
            sink: Sink::new(stream, u64::MAX)?,
            shared,
        })
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.deliver(bytes, || self.shared.is_stopped())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
