//! The start of sessions for clients, and what the log says of it and of their ends.

use crate::audit::{Event, Files, Log, Usage};
use crate::error::Error;
use crate::log::say;
use crate::process;
use crate::session::protocol::Spec;
use crate::session::{first_entry, start};
use crate::template::builder::Listener;
use crate::worker::client::usage;
use anyhow::{Context, Result};
use nix::unistd::Pid;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The log of sessions, if the server keeps one, and the threads that wait for their ends.
pub struct SessionLog {
    log: Option<Arc<Log>>,
    /// Each thread has one of the senders, so that the receiver ends with the last.
    waits: Mutex<Option<Sender<()>>>,
    waited: Mutex<Receiver<()>>,
}

/// The entry of a session that has begun.
struct OpenEntry {
    log: Arc<Log>,
    client: String,
    run: u64,
}

impl SessionLog {
    pub fn new(log: Option<Arc<Log>>) -> Self {
        let (sender, receiver) = channel();
        Self {
            log,
            waits: Mutex::new(Some(sender)),
            waited: Mutex::new(receiver),
        }
    }

    /// Starts a session for a client, by whose name for it the log knows it. Returns the socket with whose end
    /// it ends.
    pub fn start(&self, spec: &Spec, (client, name): (&str, &str)) -> Result<UnixStream> {
        let begin = |log: &Arc<Log>| -> Result<OpenEntry> {
            let entry = first_entry(spec, name, Files::default(), None);
            Ok(OpenEntry {
                run: log.append(client, &entry)?.sequence,
                log: Arc::clone(log),
                client: client.into(),
            })
        };
        let begun = self.log.as_ref().map(begin).transpose()?;
        let began = Instant::now();
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = waits.clone();
        match start(spec, &mut Logged) {
            Ok(session) => {
                let child = session.child;
                let wait = move || {
                    let _until_it_is_written = waits;
                    attend(child, began, begun);
                };
                let thread = thread::Builder::new().name("attend".into());
                thread.spawn(wait).context("starting a thread")?;
                Ok(session.socket)
            }
            Err(error) => {
                let process = Usage::unknown(began.elapsed());
                end(begun, process, "it could not be started");
                Err(error)
            }
        }
    }

    /// Waits until the ends of all sessions are written, for so long at most. None can start after it.
    pub fn wait(&self, timeout: Duration) {
        drop(
            self.waits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let waited = self.waited.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody sends anything: this is the end of the last sender, or of the time.
        waited.recv_timeout(timeout).unwrap_or_default();
    }
}

/// Waits for the end of a session's process.
fn attend(mut child: Child, began: Instant, begun: Option<OpenEntry>) {
    let exit = process::ended(Pid::from_raw(child.id() as i32));
    match exit {
        Ok(exit) => end(begun, usage(began, &exit), "its process ended"),
        Err(error) => say(&format!("{error:#}")),
    }
    // It has ended, and leaves no entry among the processes.
    drop(child.wait());
}

fn end(begun: Option<OpenEntry>, process: Usage, why: &str) {
    let Some(OpenEntry { log, client, run }) = begun else {
        return;
    };
    let why = why.into();
    if let Err(error) = log.append(&client, &Event::SessionEnd { run, process, why }) {
        say(&format!("{error:#}"));
    }
}

/// A listener that tells the server's own log what its operator should know.
struct Logged;

impl Listener for Logged {
    fn refused(&mut self, why: &str) {
        say(why);
    }

    fn waiting(&mut self) {}

    fn building(&mut self, _: &str, _: Duration, _: Option<Duration>) {}

    fn built(&mut self, _: Duration) {}

    fn unsaved(&mut self, why: &Error) {
        say(&why.message);
    }

    fn booting(&mut self, _: &str) {}

    fn emulating(&mut self, how: &str) {
        say(how);
    }
}
