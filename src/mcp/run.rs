//! A run for a client, in a worker.

use crate::audit::Usage;
use crate::error::Error;
use crate::files::{Get, Put, PutContent};
use crate::job::Source;
use crate::kvm_mode::Device;
use crate::limits::Limits;
use crate::log::say;
use crate::mcp::tool::arguments::Arguments;
use crate::mcp::tool::remedies::words;
use crate::policy::Grant;
use crate::process::{self, OURS};
use crate::record::{Failure, Record, Status};
use crate::run::advice::advice;
use crate::run::{Request, record_of};
use crate::template::builder::Interrupted;
use crate::worker::client::{self, Channel, Worker};
use crate::worker::{self, Spec};
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

/// The exit code that the log has for a run without a process.
const NO_PROCESS: i32 = 125;

/// The end of a run.
pub struct Ended {
    pub record: Record,
    /// Whether the record comes from the run's process; otherwise it has what the server knows.
    is_told: bool,
    /// The size in bytes of the record as the worker sent it.
    pub size: u64,
    pub usage: Usage,
    /// The directory with the files that the run left, until this is dropped.
    pub workspace: Option<Workspace>,
}

impl Ended {
    /// Returns the end of a run that never began.
    pub fn without_process(failure: Failure) -> Self {
        Self {
            record: failed(failure),
            is_told: false,
            size: 0,
            usage: Usage {
                wall_ms: 0.0,
                cpu_ms: 0.0,
                exit: NO_PROCESS,
            },
            workspace: None,
        }
    }

    /// Replaces the record by a short one, because the client does not read and there is no room.
    pub fn unread(self) -> Self {
        let mut record = failed(Failure {
            message: "the program has ended, but there is no room for its answer: others are not read yet".into(),
            remedy: "read the answers that there are, and call again".into(),
        });
        record.audit = self.record.audit;
        Self { record, ..self }
    }
}

fn failed(failure: Failure) -> Record {
    Record {
        error: Some(failure),
        ..Record::empty(Status::Error)
    }
}

/// A run at work. It is killed when this is dropped.
pub struct Run {
    child: Arc<Mutex<Child>>,
    ended: oneshot::Receiver<Result<Ended>>,
}

impl Run {
    /// Starts the run from a thread of its own, which lasts as long as the process: the process
    /// dies with the thread, and so with this server. What the program prints is also written to
    /// `output`, as far as that takes it at once.
    pub async fn start(
        workspace: Workspace,
        arguments: &Arguments,
        grant: &Grant,
        kvm: &Device,
        output: Option<OwnedFd>,
    ) -> Result<Self> {
        let spec = Spec {
            request: Request {
                shows: output.is_some(),
                ..workspace.request(arguments, grant, kvm)
            },
            inspect: None,
        };
        let stdout = output.map_or(Stdio::null(), Stdio::from);
        let stdin = in_memory(arguments.stdin.as_bytes())?;
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
        let child = started.await.context("waiting for a thread")??;
        Ok(Self { child, ended })
    }

    /// Waits for the end. It may be called again after its future was dropped.
    pub async fn ended(&mut self) -> Result<Ended> {
        (&mut self.ended).await.context("waiting for a thread")?
    }

    /// Ends the run now. The record gives the reason, unless the process still sent its own.
    pub async fn end(&mut self, record: Record) -> Result<Ended> {
        kill(&self.child);
        let ended = self.ended().await?;
        Ok(match ended.is_told {
            true => ended,
            false => Ended { record, ..ended },
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        kill(&self.child);
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
    record.advice = advice(&record).iter().map(words).collect();
    Ok(Ended {
        is_told,
        record,
        size: channel.total(),
        usage: client::usage(began, &exit),
        workspace: Some(workspace),
    })
}

fn in_words(error: Error) -> Failure {
    Failure {
        remedy: words(&error.remedy),
        message: error.message,
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private directory for the files that a run leaves; removed when this is dropped.
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn create(path: PathBuf) -> Result<Self> {
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    /// Returns the request for a run whose files are left in here.
    fn request(&self, arguments: &Arguments, grant: &Grant, kvm: &Device) -> Request {
        let files = arguments.files.iter();
        let puts = files.clone().filter_map(|file| {
            Some(Put {
                content: PutContent::Given(file.content.clone()?),
                guest: Some(file.path.clone().into()),
            })
        });
        let gets = files.enumerate().filter(|(_, file)| file.is_fetched);
        let gets = gets.map(|(number, file)| Get {
            guest: file.path.clone().into(),
            host: Some(self.path.join(format!("get-{number}"))),
        });
        Request {
            language: Some(arguments.language.to_string()),
            arguments: arguments.args.iter().map(Into::into).collect(),
            env: arguments.variables().into_iter().map(Vec::from).collect(),
            puts: puts.collect(),
            gets: gets.collect(),
            limits: Limits {
                memory: grant.memory,
                machine_memory: grant.machine_memory,
                timeout: grant.timeout,
                max_output: grant.output,
                fetch_count: grant.files.count.unwrap_or(u64::MAX),
                fetch_size: grant.files.size.map_or(u64::MAX, |size| size.0),
                pids: grant.pids,
                ..Limits::default()
            },
            kvm: kvm.clone(),
            confine: grant.confine,
            tells: true,
            ..Request::of(Source::Code(arguments.code.clone().into()))
        }
    }
}

fn in_memory(content: &[u8]) -> Result<File> {
    let doing = "keeping what the caller gave";
    let memory = memfd_create(c"given", MFdFlags::MFD_CLOEXEC).context(doing)?;
    let mut file = File::from(memory);
    file.write_all(content).context(doing)?;
    file.rewind().context(doing)?;
    Ok(file)
}

impl Drop for Workspace {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => say(&format!(
                "{} cannot be removed: {error}",
                self.path.display()
            )),
        }
    }
}
