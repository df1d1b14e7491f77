//! A run as a process of this binary, which has the machine.

use crate::audit::Usage;
use crate::job::Language;
use crate::kvm_mode::Device;
use crate::log::say;
use crate::mcp::tool::arguments::Arguments;
use crate::mcp::tool::remedies::words;
use crate::policy::{Files, Grant};
use crate::process;
use crate::record::{Failure, Record, Status};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

/// Bytes of a record at most: far more than those of a run that keeps its limits.
const RECORD_MAX: u64 = 64 << 20;

/// The exit code in the log of a run without a process.
const NO_PROCESS: i32 = 125;

/// How a run ended.
pub struct Ended {
    pub record: Record,
    /// It is its process's own; else we say what is known.
    is_told: bool,
    /// Bytes of it as they were told.
    pub size: u64,
    pub usage: Usage,
    /// What it left is in here until this is dropped.
    pub workspace: Option<Workspace>,
}

impl Ended {
    /// It never began.
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

    /// Without what there is no room for, as its client does not read.
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

/// A run at work. It ends when this is dropped.
pub struct Run {
    child: Arc<Mutex<Child>>,
    ended: oneshot::Receiver<Result<Ended>>,
}

impl Run {
    /// Starts it from a thread of its own, which lasts as long as its process: that dies with the
    /// thread, and so with this server.
    pub async fn start(
        workspace: Workspace,
        arguments: &Arguments,
        grant: &Grant,
        kvm: &Device,
    ) -> Result<Self> {
        let mut command = workspace.command(arguments, grant, kvm)?;
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        thread::Builder::new()
            .name("run".into())
            .spawn(move || {
                let spawned = command.spawn().context("starting a process");
                // With what was handed on.
                drop(command);
                let child = match spawned {
                    Ok(child) => Arc::new(Mutex::new(child)),
                    Err(error) => {
                        tell_started.send(Err(error)).unwrap_or_default();
                        return;
                    }
                };
                if tell_started.send(Ok(Arc::clone(&child))).is_err() {
                    // Nobody waits for it any more.
                    kill(&child);
                }
                let ended = attend(&child, workspace);
                // The same.
                tell_ended.send(ended).unwrap_or_default();
            })
            .context("starting a thread")?;
        let child = started.await.context("waiting for a thread")??;
        Ok(Self { child, ended })
    }

    /// Waits for its end. May be called again if it was given up.
    pub async fn ended(&mut self) -> Result<Ended> {
        (&mut self.ended).await.context("waiting for a thread")?
    }

    /// Ends it now, for the reason in this record.
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
    // Nothing happens to one that has ended, and a process can always end its child.
    lock(child).kill().unwrap_or_default();
}

/// Follows a process to its end.
fn attend(child: &Mutex<Child>, workspace: Workspace) -> Result<Ended> {
    let began = Instant::now();
    let (pid, stdout) = {
        let mut child = lock(child);
        (Pid::from_raw(child.id() as i32), child.stdout.take())
    };
    let mut told = Vec::new();
    if let Some(stdout) = stdout {
        stdout
            .take(RECORD_MAX)
            .read_to_end(&mut told)
            .context("reading a record")?;
    }
    // Not under the lock, which whoever ends it needs.
    let ended = process::ended(pid)?;
    lock(child).wait().context("waiting for a process")?;
    let usage = Usage {
        wall_ms: began.elapsed().as_secs_f64() * 1000.0,
        cpu_ms: ended.processor_time.as_secs_f64() * 1000.0,
        exit: ended.status.unwrap_or_else(|signal| 128 + signal),
    };
    let record = ended.record(&told);
    Ok(Ended {
        is_told: record.is_ok(),
        record: record.unwrap_or_else(|error| {
            failed(Failure {
                remedy: words(&error.remedy),
                message: error.message,
            })
        }),
        size: told.len() as u64,
        usage,
        workspace: Some(workspace),
    })
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private directory for what a run leaves; removed when this is dropped.
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

    /// `sandbox run` with what the caller gave, which is in memory: anybody on this machine may
    /// read a command line, and a file may outlive this server.
    fn command(&self, arguments: &Arguments, grant: &Grant, kvm: &Device) -> Result<Command> {
        let mut given = Given::default();
        let confine = format!("{:?}", grant.confine).to_lowercase();
        let mut command = process::command();
        // Those are the server's.
        for (name, _) in env::vars_os().filter(|(name, _)| is_option(name)) {
            command.env_remove(name);
        }
        command
            .arg("--kvm")
            .arg(&kvm.path)
            .args(["--kvm-mode", kvm.choice.name()])
            .args(["run", "--json", "--quiet"])
            .arg("--code-file")
            .arg(given.path(arguments.code.as_bytes())?)
            .arg("--env-file")
            .arg(given.path(&ended_by_nul(&arguments.variables()))?)
            .arg("--args-file")
            .arg(given.path(&ended_by_nul(&arguments.args))?)
            .args(["--memory", &grant.memory.to_string()])
            .args(["--max-output", &grant.output.to_string()])
            .args(["--pids-limit", &grant.pids.to_string()])
            .args(["--confine", &confine]);
        let timeout = grant.timeout.map_or(0.0, |timeout| timeout.as_secs_f64());
        command.args(["--timeout", &timeout.to_string()]);
        if arguments.language == Language::Bash {
            command.args(["--lang", "bash"]);
        }
        // What is fetched is known only there.
        if let Some(policy) = policy_of(&grant.files) {
            command.arg("--policy").arg(given.path(policy.as_bytes())?);
        }
        for (number, file) in arguments.files.iter().enumerate() {
            if let Some(content) = &file.content {
                let put = given.path(content)?;
                command.arg(option("--put=", pair(put.as_os_str(), &file.path)));
            }
            if file.is_fetched {
                let get = self.path.join(format!("get-{number}"));
                let guest = OsStr::new(&file.path);
                command.arg(option("--get=", pair(guest, get.as_os_str())));
            }
        }
        command
            .stdin(in_memory(arguments.stdin.as_bytes())?)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        given.hand_on(&mut command);
        Ok(command)
    }
}

/// Files without names, for a process to be started.
#[derive(Default)]
struct Given(Vec<File>);

impl Given {
    /// Where that process finds one with this content.
    fn path(&mut self, content: &[u8]) -> Result<PathBuf> {
        let file = in_memory(content)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        self.0.push(file);
        Ok(path.into())
    }

    fn hand_on(self, command: &mut Command) {
        let hand_on = move || {
            for file in &self.0 {
                fcntl(file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(hand_on) };
    }
}

fn in_memory(content: &[u8]) -> Result<File> {
    let doing = "keeping what the caller gave";
    let memory = memfd_create(c"given", MFdFlags::MFD_CLOEXEC).context(doing)?;
    let mut file = File::from(memory);
    // The mode of files that are put.
    file.set_permissions(Permissions::from_mode(0o644))
        .context(doing)?;
    file.write_all(content).context(doing)?;
    file.rewind().context(doing)?;
    Ok(file)
}

fn is_option(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"SANDBOX_")
}

fn ended_by_nul(words: &[String]) -> Vec<u8> {
    let words = words.iter();
    words
        .flat_map(|word| [word.as_bytes(), b"\0"].concat())
        .collect()
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

/// A policy that says only this, if there is anything to say.
fn policy_of(files: &Files) -> Option<String> {
    let count = files.count.map(|count| format!("count = {count}\n"));
    let size = files.size.map(|size| format!("size = \"{}\"\n", size.0));
    let limits: String = count.into_iter().chain(size).collect();
    (!limits.is_empty()).then(|| format!("[run.files]\n{limits}"))
}

/// In one word: a path may begin like an option.
fn option(name: &str, value: OsString) -> OsString {
    let mut word = OsString::from(name);
    word.push(value);
    word
}

fn pair(one: &OsStr, other: impl AsRef<OsStr>) -> OsString {
    let mut both = one.to_os_string();
    both.push(":");
    both.push(other);
    both
}
