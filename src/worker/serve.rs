//! The worker's end: it reads the request, does the run and sends its events.

use crate::error::{Error, Kind, Remedy};
use crate::run::record_of::explained;
use crate::run::{Report, Request, inspect, prepare, run};
use crate::signals::Signals;
use crate::template::builder::Interrupted;
use crate::worker::{Ended, Event, Notice, Notices, Spec};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::mem::forget;
use std::os::fd::{AsRawFd, OwnedFd};

/// Does the run that is requested over this socket, and tells how it ended. Returns what `seen` makes
/// of that.
pub fn serve<T>(socket: OwnedFd, seen: impl FnOnce(&Ended) -> T) -> Result<T> {
    let mut channel = Lines(BufReader::new(File::from(socket)));
    let (ended, signals) = match carry_out(&mut channel) {
        Ok((report, signals)) => (Ended::Report(Box::new(report)), Some(signals)),
        Err(error) => (failed(&error), None),
    };
    // Signals stay watched: none may end this process once its last message is sent.
    forget(signals);
    let seen = seen(&ended);
    channel.tell(&Event::Ended(ended))?;
    Ok(seen)
}

fn carry_out(channel: &mut Lines) -> Result<(Report, Signals)> {
    let spec: Spec = serde_json::from_str(&channel.hear()?).map_err(|error| {
        let message = format!("what the worker is to run is not as it should be: {error}");
        Error::new(Kind::Internal, message, Remedy::Report)
    })?;
    let request = Request {
        record: Some(channel.0.get_ref().as_raw_fd()),
        ..spec.request
    };
    let prepared = prepare(&request)?;
    if let Some(wanted) = spec.inspect {
        let inspection = inspect(&prepared.job, wanted.code, wanted.code_max)?;
        channel.tell(&Event::Inspected(inspection))?;
        channel.hear()?;
    }
    let notices = &mut Notices(|notice| channel.notice(notice));
    run(prepared, notices)
}

fn failed(error: &anyhow::Error) -> Ended {
    match explained(error) {
        Ok(error) => Ended::Failed(error),
        Err(Interrupted(signal)) => Ended::Interrupted(signal),
    }
}

/// The socket, with one line for each message. It is a single descriptor, since a run closes those
/// that it does not know of.
struct Lines(BufReader<File>);

impl Lines {
    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line);
        match count.context("reading what to run")? {
            0 => Err(Error::new(
                Kind::Internal,
                "whoever started the worker has gone",
                Remedy::Report,
            )
            .into()),
            _ => Ok(line),
        }
    }

    fn tell(&self, event: &Event) -> Result<()> {
        // The message is not made as one string: a report may hold a lot of output.
        let mut writer = BufWriter::new(self.0.get_ref());
        serde_json::to_writer(&mut writer, event)
            .map_err(Into::into)
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| writer.flush())
            .context("telling how the run went")
    }

    /// Sends a notice. If nobody receives it, that is noticed soon enough.
    fn notice(&self, notice: Notice) {
        self.tell(&Event::Notice(notice)).unwrap_or_default();
    }
}
