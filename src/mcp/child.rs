//! A run as a process of this binary, which has the machine.

use crate::audit::Usage;
use crate::job::Language;
use crate::mcp::arguments::Arguments;
use crate::mcp::say;
use crate::outcome::EXIT_OURS;
use crate::own;
use crate::policy::{Files, Grant};
use crate::record::{Failure, Record, Status};
use anyhow::{Context, Result};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes of a record at most: far more than a run may put out.
const RECORD_MAX: u64 = 256 << 20;
/// Bytes of each output stream that are kept.
pub const OUTPUT_MAX: u64 = 1 << 20;

/// How a run ended.
pub struct Ended {
    pub record: Record,
    pub usage: Usage,
    /// What it left is in here until this is dropped.
    pub workspace: Option<Workspace>,
}

impl Ended {
    /// It never began.
    pub fn without_process(failure: Failure) -> Self {
        let mut record = Record::empty(Status::Error);
        record.error = Some(failure);
        Self {
            record,
            usage: Usage {
                wall_ms: 0.0,
                cpu_ms: 0.0,
                exit: EXIT_OURS.into(),
            },
            workspace: None,
        }
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
        kvm: &Path,
    ) -> Result<Self> {
        let mut command = workspace.command(arguments, grant, kvm)?;
        let (tell_started, started) = oneshot::channel();
        let (tell_ended, ended) = oneshot::channel();
        thread::Builder::new()
            .name("run".into())
            .spawn(move || {
                let spawned = command.spawn().context("starting a process");
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

    /// Ends it now.
    pub fn kill(&self) {
        kill(&self.child);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
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
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        .context("waiting for a process")?;
    let cpu = processor_time(pid)?;
    let status = lock(child).wait().context("waiting for a process")?;
    let record = match status.code() {
        None => Record::empty(Status::Cancelled),
        Some(code) => serde_json::from_slice(&told)
            .with_context(|| format!("reading the record of a process that exited with {code}"))?,
    };
    let usage = Usage {
        wall_ms: began.elapsed().as_secs_f64() * 1000.0,
        cpu_ms: cpu.as_secs_f64() * 1000.0,
        exit: status
            .code()
            .or(status.signal().map(|signal| 128 + signal))
            .unwrap_or_default(),
    };
    Ok(Ended {
        record,
        usage,
        workspace: Some(workspace),
    })
}

/// That a process used which is no more than an entry: proc_pid_stat(5), utime to cstime.
fn processor_time(pid: Pid) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).context("reading a process's times")?;
    // The name may have spaces and parentheses in it.
    let (_, fields) = stat.rsplit_once(')').context("a process without a name")?;
    let times = fields.split_whitespace().skip(11).take(4);
    let ticks: u64 = times.filter_map(|field| field.parse::<u64>().ok()).sum();
    let frequency = sysconf(SysconfVar::CLK_TCK)?.context("a system without a clock")?;
    Ok(Duration::from_secs_f64(ticks as f64 / frequency as f64))
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A private directory with what a run gets and what it leaves; removed when this is dropped.
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn create(path: PathBuf, arguments: &Arguments) -> Result<Self> {
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("making {}", path.display()))?;
        let workspace = Self { path };
        workspace.fill(arguments)?;
        Ok(workspace)
    }

    fn fill(&self, arguments: &Arguments) -> Result<()> {
        let write = |name: &str, content: &[u8]| {
            let path = self.path.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
        };
        write("code", arguments.code.as_bytes())?;
        write("stdin", arguments.stdin.as_bytes())?;
        let variables = arguments.env.iter();
        let variables: String = variables
            .map(|(name, value)| format!("{name}={value}\0"))
            .collect();
        write("env", variables.as_bytes())?;
        let words = arguments.args.iter();
        let words: String = words.map(|word| format!("{word}\0")).collect();
        write("args", words.as_bytes())?;
        for (number, file) in arguments.files.iter().enumerate() {
            if let Some(content) = &file.content {
                write(&format!("put-{number}"), content)?;
            }
        }
        Ok(())
    }

    /// `sandbox run` with what is in here. What the caller gave is in files: anybody on this
    /// machine may read a command line.
    fn command(&self, arguments: &Arguments, grant: &Grant, kvm: &Path) -> Result<Command> {
        let confine = format!("{:?}", grant.confine).to_lowercase();
        let mut command = own::command();
        command
            // The server's.
            .env_remove("SANDBOX_POLICY")
            .env_remove("SANDBOX_AUDIT")
            .arg("--kvm")
            .arg(kvm)
            .args(["run", "--json", "--quiet"])
            .arg("--code-file")
            .arg(self.path.join("code"))
            .arg("--env-file")
            .arg(self.path.join("env"))
            .arg("--args-file")
            .arg(self.path.join("args"))
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
            let path = self.path.join("policy");
            fs::write(&path, policy).with_context(|| format!("writing {}", path.display()))?;
            command.arg("--policy").arg(path);
        }
        for (number, file) in arguments.files.iter().enumerate() {
            if file.content.is_some() {
                let put = self.path.join(format!("put-{number}"));
                command.arg(option("--put=", pair(put.as_os_str(), &file.path)));
            }
            if file.is_fetched {
                let get = self.path.join(format!("get-{number}"));
                let guest = OsStr::new(&file.path);
                command.arg(option("--get=", pair(guest, get.as_os_str())));
            }
        }
        let stdin = File::open(self.path.join("stdin")).context("opening its standard input")?;
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        Ok(command)
    }
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
