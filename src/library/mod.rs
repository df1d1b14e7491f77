//! The library: runs programs in virtual machines of their own, from another program.
//!
//! Each run is a process of the `sandbox` binary, since confinement is for a whole process: a program
//! that uses this library keeps all its rights, and what runs in the machine gets none of them.

pub(crate) mod remedies;

use crate::error::{self, Kind, Remedy};
use crate::files::{Put, PutContent};
use crate::job::Source;
use crate::kvm_mode::{Choice, Device};
use crate::limits::Limits;
use crate::outcome::Outcome;
use crate::run::{Report, Request};
use crate::units::memory_step;
use crate::worker::client::follow;
use crate::worker::{Ended, Spec};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The name of the binary, where it is looked for in PATH.
const BINARY: &str = "sandbox";

/// A way to run programs, each in a virtual machine of its own.
///
/// ```no_run
/// use std::time::Duration;
///
/// let sandbox = sandbox::Sandbox::builder()
///     .memory(512 << 20)
///     .timeout(Duration::from_secs(10))
///     .build()?;
/// let output = sandbox.run("print(6 * 7)")?;
/// assert_eq!(output.stdout, b"42\n");
/// assert!(output.ended.is_success());
/// # Ok::<(), sandbox::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sandbox {
    binary: PathBuf,
    settings: Settings,
}

/// The settings of a [`Sandbox`], most of which can be left alone.
#[derive(Debug, Clone)]
pub struct Builder {
    binary: Option<PathBuf>,
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    limits: Limits,
    language: Option<String>,
    files: Vec<Put>,
    env: Vec<Vec<u8>>,
    kvm: PathBuf,
}

/// The output of a program, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The end of the program.
    pub ended: End,
    /// The bytes that the program wrote to standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// The bytes that the program wrote to standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// Whether the program wrote more than the limit to either stream.
    pub is_cut: bool,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It exited with this status.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
    /// It ran out of memory.
    OutOfMemory,
    /// It ran into the time limit.
    TimedOut,
}

/// The reason why there was no run, or none to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(error::Error);

impl Sandbox {
    /// Returns settings to change: 256 MiB of memory, a minute, 8 MiB of each output stream.
    pub fn builder() -> Builder {
        Builder {
            binary: None,
            settings: Settings {
                limits: Limits {
                    // There is none to give.
                    input: 0,
                    ..Limits::default()
                },
                language: None,
                files: Vec::new(),
                env: Vec::new(),
                kvm: "/dev/kvm".into(),
            },
        }
    }

    /// Runs code to its end.
    pub fn run(&self, code: impl Into<OsString>) -> Result<Output, Error> {
        self.run_source(Source::Code(code.into()))
    }

    /// Runs a script of this host to its end.
    pub fn run_file(&self, path: impl Into<PathBuf>) -> Result<Output, Error> {
        self.run_source(Source::File(path.into()))
    }

    fn run_source(&self, source: Source) -> Result<Output, Error> {
        let spec = Spec {
            request: self.request(source),
            inspect: None,
        };
        let report = follow(&self.binary, &spec).map_err(|error| not_run(&self.binary, error))?;
        output(match report {
            Ended::Report(report) => *report,
            Ended::Failed(error) => return Err(Error(error)),
            Ended::Interrupted(signal) => {
                let message = format!("signal {signal} ended the run before its program began");
                return Err(Error(error::Error::new(
                    Kind::Internal,
                    message,
                    "run it again",
                )));
            }
        })
    }

    fn request(&self, source: Source) -> Request {
        let settings = &self.settings;
        Request {
            language: settings.language.clone(),
            env: settings.env.clone(),
            puts: settings.files.clone(),
            limits: settings.limits.clone(),
            kvm: Device {
                path: settings.kvm.clone(),
                choice: Choice::Auto,
            },
            ..Request::of(source)
        }
    }
}

impl Builder {
    /// Sets where the `sandbox` binary is. Without it, the one in PATH is used.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Sets the size of each machine's memory in bytes, a multiple of 2 MiB.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.settings.limits.memory = bytes;
        self.settings.limits.machine_memory = memory_step(bytes);
        self
    }

    /// Sets the limit on the wall-clock time of a program.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.limits.timeout = Some(timeout);
        self
    }

    /// Sets how many bytes are kept of each output stream.
    pub fn max_output(mut self, bytes: u64) -> Self {
        self.settings.limits.max_output = bytes;
        self
    }

    /// Sets the language of code, such as `python` or `bash`. A script tells its own.
    pub fn language(mut self, name: impl Into<String>) -> Self {
        self.settings.language = Some(name.into());
        self
    }

    /// Puts a file with this content into each machine, at a path that starts in the working
    /// directory.
    pub fn file(mut self, path: impl Into<OsString>, content: impl Into<Vec<u8>>) -> Self {
        self.settings.files.push(Put {
            content: PutContent::Given(content.into()),
            guest: Some(path.into()),
        });
        self
    }

    /// Sets a variable of the programs' environment.
    pub fn env(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let variable = format!("{}={}", name.as_ref(), value.as_ref());
        self.settings.env.push(variable.into());
        self
    }

    /// Sets the KVM device, which is `/dev/kvm` otherwise.
    pub fn kvm(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.kvm = path.into();
        self
    }

    /// Finds the binary and checks the settings.
    pub fn build(self) -> Result<Sandbox, Error> {
        let wrong = |message: &str, remedy: &str| {
            Err(Error(error::Error::new(Kind::Request, message, remedy)))
        };
        let memory = self.settings.limits.memory;
        if memory < 64 << 20 || !memory.is_multiple_of(2 << 20) {
            return wrong(
                "a machine cannot have that much memory",
                "give memory() a multiple of 2 MiB from 64 MiB",
            );
        }
        let in_path = || find(BINARY, env::var_os("PATH").as_deref());
        let Some(binary) = self.binary.or_else(in_path) else {
            return wrong(
                "there is no binary sandbox in PATH",
                "install it, or say where it is with binary()",
            );
        };
        Ok(Sandbox {
            binary,
            settings: self.settings,
        })
    }
}

impl End {
    /// Returns whether the program exited with status 0.
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }
}

impl Error {
    /// Returns what to do about it, as a sentence.
    pub fn remedy(&self) -> String {
        remedies::words(&self.0.remedy)
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {}

fn output(report: Report) -> Result<Output, Error> {
    let ended = match report.outcome {
        Outcome::Exited(status) => End::Exited(status),
        Outcome::Signaled {
            out_of_memory: true,
            ..
        } => End::OutOfMemory,
        Outcome::Signaled { signal, .. } => End::Signaled(signal),
        Outcome::TimedOut => End::TimedOut,
        _ => {
            let unexplained =
                || error::Error::new(Kind::Internal, "the run was cut off", Remedy::Report);
            return Err(Error(report.explanation().unwrap_or_else(unexplained)));
        }
    };
    let is_cut = report
        .output
        .iter()
        .any(|totals| totals.delivered < totals.total);
    let mut kept = report.kept.into_iter().map(Option::unwrap_or_default);
    Ok(Output {
        ended,
        stdout: kept.next().unwrap_or_default(),
        stderr: kept.next().unwrap_or_default(),
        is_cut,
    })
}

/// Returns why a process of this binary could not do a run.
fn not_run(binary: &Path, error: anyhow::Error) -> Error {
    let errno = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::raw_os_error);
    Error(match errno {
        Some(errno @ (libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ENOEXEC)) => {
            let (shown, why) = (binary.display(), io::Error::from_raw_os_error(errno));
            error::Error::new(
                Kind::Request,
                format!("there is no sandbox at {shown}: {why}"),
                "give binary() the path of the sandbox binary",
            )
        }
        _ => error::Error::new(Kind::Internal, format!("{error:#}"), Remedy::Report),
    })
}

/// Finds a program in the directories of PATH.
fn find(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let directories = env::split_paths(path?);
    directories
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_no_machine_can_have_are_refused() {
        let error = Sandbox::builder().memory(1).build().unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
        assert!(error.remedy().contains("memory()"), "{}", error.remedy());
    }

    #[test]
    fn the_binary_is_the_first_in_the_path_unless_it_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("sandbox");
        std::fs::write(&binary, "").unwrap();
        let path = env::join_paths([Path::new("/nowhere"), directory.path()]).unwrap();
        assert_eq!(find("sandbox", Some(&path)), Some(binary));
        assert_eq!(find("sandbox", Some(OsStr::new("/nowhere"))), None);
        let given = Sandbox::builder().binary("/given").build().unwrap();
        assert_eq!(given.binary, Path::new("/given"));
    }

    #[test]
    fn a_binary_that_is_not_there_or_is_none_is_told_with_what_to_do() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path();
        for binary in [
            Path::new("/nowhere/sandbox"),
            &file.join("sandbox"),
            file.parent().unwrap(),
            file,
        ] {
            let sandbox = Sandbox::builder().binary(binary).build().unwrap();
            let error = sandbox.run("pass").unwrap_err();
            let expected = format!("there is no sandbox at {}: ", binary.display());
            assert!(error.to_string().starts_with(&expected), "{error}");
            assert!(error.remedy().contains("binary()"), "{}", error.remedy());
        }
    }
}
