//! A run for a client, in a worker, or a cell in one of its sessions.

use crate::fs::in_memory;
use crate::image::LayerFile;
use crate::job::Source;
use crate::kvm_mode::Device;
use crate::limits::Limits;
use crate::log::say;
use crate::mcp::cell::{self, Asked};
use crate::mcp::run_end::Ended;
use crate::mcp::session_files::Fetcher;
use crate::mcp::sessions::{Packages, Reserved, Sessions};
use crate::mcp::tool::arguments::Arguments;
use crate::mcp::tool::remedies::in_words;
use crate::mcp::workspace::{Workspace, puts};
use crate::policy::Grant;
use crate::process::{self, OURS};
use crate::record::Record;
use crate::run::{Request, record_of};
use crate::template::builder::Interrupted;
use crate::worker::client::{self, Channel, Worker};
use crate::worker::{self, Spec};
use anyhow::{Context, Result};
use nix::unistd::Pid;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

/// A run, or a cell of a session, at work. It is ended when this is dropped.
pub struct Run {
    work: Work,
    ended: oneshot::Receiver<Result<Ended>>,
}

/// The worker or session that does a run.
enum Work {
    Process(Arc<Mutex<Child>>),
    /// A session, at the other end of this, and what fetches files from it. The end of the connection ends its
    /// cell.
    Cell(UnixStream, Fetcher),
}

impl Work {
    fn end(&self) {
        match self {
            Self::Process(child) => kill(child),
            // One that has ended already has no end to be told of.
            Self::Cell(socket, fetcher) => {
                socket.shutdown(Shutdown::Both).unwrap_or_default();
                fetcher.end();
            }
        }
    }
}

impl Run {
    /// Has a cell run in a session of this client's, which is started if there is none.
    pub async fn in_session(
        sessions: Arc<Sessions>,
        (client, reserved): (Arc<str>, Reserved),
        (asked, packages): (Asked, Option<Packages>),
        (grant, kvm): (&Grant, &Device),
        output: Option<OwnedFd>,
    ) -> Result<Self> {
        let (grant, kvm) = (grant.clone(), kvm.clone());
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        let fetcher = Fetcher::default();
        let its = fetcher.clone();
        thread::Builder::new()
            .name("cell".into())
            .spawn(move || {
                let key = (&*client, asked.session.as_str());
                let opened = sessions.open(key, reserved, (&grant, packages), &kvm);
                let opened = opened.and_then(|opened| Ok((opened.client.socket()?, opened)));
                let opened = match opened {
                    Ok((socket, opened)) => {
                        if tell_started.send(Ok(socket)).is_err() {
                            // The caller no longer waits for it.
                            return;
                        }
                        opened
                    }
                    Err(error) => {
                        tell_started.send(Err(error)).unwrap_or_default();
                        return;
                    }
                };
                let ended = cell::run(opened, asked, output, (sessions.directory(), &its));
                // If nobody receives this, the caller no longer waits.
                tell_ended.send(Ok(ended)).unwrap_or_default();
            })
            .context("starting a thread")?;
        let socket = started.await.context("waiting for a thread")??;
        let work = Work::Cell(socket, fetcher);
        Ok(Self { work, ended })
    }

    /// Starts the run from a thread of its own, which lasts as long as the process: the process
    /// dies with the thread, and so with this server. What the program prints is also written to
    /// `output`, as far as that takes it at once.
    pub async fn start(
        workspace: Workspace,
        (arguments, layer): (&Arguments, Option<LayerFile>),
        grant: &Grant,
        kvm: &Device,
        output: Option<OwnedFd>,
    ) -> Result<Self> {
        let spec = Spec {
            request: Request {
                shows: output.is_some(),
                layers: layer.into_iter().collect(),
                ..request(&workspace, arguments, grant, kvm)
            },
            inspect: None,
        };
        let stdout = output.map_or(Stdio::null(), Stdio::from);
        let stdin = in_memory(arguments.stdin.as_bytes()).context("keeping standard input")?;
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        thread::Builder::new()
            .name("run".into())
            .spawn(move || {
                let streams = [stdin.into(), stdout, Stdio::inherit()];
                let started = Worker::start(Path::new(OURS), streams, spec.capture());
                let Worker {
                    child,
                    mut channel,
                    began,
                } = match started {
                    Ok(worker) => worker,
                    Err(error) => {
                        tell_started.send(Err(error)).unwrap_or_default();
                        return;
                    }
                };
                let child = Arc::new(Mutex::new(child));
                if tell_started.send(Ok(Arc::clone(&child))).is_err() {
                    // The caller no longer waits for it.
                    kill(&child);
                }
                // Not before: whoever waits may end it meanwhile.
                if let Err(error) = channel.send(&spec) {
                    say(&format!("{error:#}"));
                    kill(&child);
                }
                let memory = spec.request.limits.memory;
                drop(spec);
                let ended = attend(&child, channel, began, memory, workspace);
                // If nobody receives this, the caller no longer waits.
                tell_ended.send(ended).unwrap_or_default();
            })
            .context("starting a thread")?;
        let work = Work::Process(started.await.context("waiting for a thread")??);
        Ok(Self { work, ended })
    }

    /// Waits for the end. It may be called again after its future was dropped.
    pub async fn ended(&mut self) -> Result<Ended> {
        (&mut self.ended).await.context("waiting for a thread")?
    }

    /// Ends the run now. The record gives the reason, unless the process still sent its own.
    pub async fn end(&mut self, record: Record) -> Result<Ended> {
        self.work.end();
        let ended = self.ended().await?;
        Ok(match ended.is_told {
            true => ended,
            false => Ended { record, ..ended },
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.work.end();
    }
}

fn kill(child: &Mutex<Child>) {
    // This has no effect on a child that has ended, and a process can always end its child.
    lock(child).kill().unwrap_or_default();
}

/// Follows a worker, whose guest has so many bytes of memory, to its end.
fn attend(
    child: &Mutex<Child>,
    mut channel: Channel,
    began: Instant,
    memory: u64,
    workspace: Workspace,
) -> Result<Ended> {
    let pid = Pid::from_raw(lock(child).id() as i32);
    let (told, is_well) = channel.follow(None);
    if !is_well {
        kill(child);
    }
    // This waits without the lock, which `kill` needs.
    let exit = process::ended(pid)?;
    lock(child).wait().context("waiting for a process")?;
    let is_told = told.is_some() && exit.status.is_ok();
    let (mut record, error) = match client::ended(told, &exit) {
        worker::Ended::Report(report) => record_of::report(*report),
        worker::Ended::Failed(error) => record_of::failure(&error.into(), memory, began.elapsed()),
        worker::Ended::Interrupted(signal) => {
            record_of::failure(&Interrupted(signal).into(), memory, began.elapsed())
        }
    };
    record.error = error.map(in_words);
    Ok(Ended {
        is_told,
        record,
        size: channel.total(),
        usage: client::usage(began, &exit),
        workspace: Some(workspace),
    })
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the request for a run whose files are left in this directory.
fn request(workspace: &Workspace, arguments: &Arguments, grant: &Grant, kvm: &Device) -> Request {
    Request {
        image: arguments.image.clone(),
        language: Some(arguments.language.clone()),
        arguments: arguments.args.iter().map(Into::into).collect(),
        env: arguments.variables().into_iter().map(Vec::from).collect(),
        puts: puts(&arguments.files),
        gets: workspace.gets(&arguments.files),
        limits: limits(grant),
        kvm: kvm.clone(),
        confine: grant.confine,
        tells: true,
        share: grant.share.clone(),
        ..Request::of(Source::Code(arguments.code.clone().into()))
    }
}

/// Returns the limits of what a call gets.
pub fn limits(grant: &Grant) -> Limits {
    Limits {
        memory: grant.memory,
        machine_memory: grant.machine_memory,
        timeout: grant.timeout,
        max_output: grant.output,
        fetch_count: grant.files.count.unwrap_or(u64::MAX),
        fetch_size: grant.files.size.map_or(u64::MAX, |size| size.0),
        pids: grant.pids,
        ..Limits::default()
    }
}
