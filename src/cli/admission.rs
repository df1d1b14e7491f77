//! What a run has to pass before anything is done for its program: the policy, and the log.

use crate::audit::{Code, Event, Files, Limits, Log, ROTATE, Start};
use crate::cli::options::RunArgs;
use crate::error::{Error, Kind, Remedy};
use crate::job::{Work, name};
use crate::policy::{Ceiling, Excess, Policy};
use crate::run::Request;
use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::dup2_stdin;
use std::env;
use std::fs::File;
use std::io::{PipeWriter, Read, Seek, Write, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Who runs `sandbox run`.
pub const CLIENT: &str = "cli";
/// Bytes of code that is read from standard input at most, as of a script.
const CODE_MAX: u64 = 56 << 20;

pub struct Gate {
    pub ceiling: Ceiling,
    /// If runs are written down.
    pub entrance: Option<Entrance>,
}

/// Where the beginning of a run is written down.
pub struct Entrance {
    pub log: Log,
    /// The code itself too.
    pub keep_code: bool,
    /// Who writes down its end.
    pub parent: PipeWriter,
}

impl Gate {
    /// Writes a refusal down.
    pub fn refuse(&self, excess: Excess) -> anyhow::Error {
        if let Some(entrance) = &self.entrance {
            let refusal = Event::Refusal((&excess).into());
            if let Err(error) = entrance.log.append(CLIENT, &refusal) {
                return error;
            }
        }
        Error::from(excess).into()
    }

    /// The run may begin, and its beginning is written down. From here on this process has nothing
    /// of the log any more.
    pub fn pass(self, request: &Request, work: &Work) -> Result<()> {
        if self.entrance.is_none() && self.ceiling == Ceiling::default() {
            return Ok(());
        }
        let files = Files {
            count: work.files.len() as u64,
            bytes: work
                .files
                .iter()
                .map(|file| file.content.len() as u64)
                .sum(),
        };
        let read;
        let code = match work.code() {
            Some(code) => code,
            None => {
                read = self.read_code()?;
                &read
            }
        };
        self.ceiling
            .check_language(work.language())
            .and_then(|()| {
                let arguments = request.arguments.iter().map(|word| word.as_bytes());
                let variables = request.env.iter().map(Vec::as_slice);
                let size = code.len() as u64;
                self.ceiling.check_program(size, arguments, variables)
            })
            .and_then(|()| self.ceiling.check_files(files.count, files.bytes))
            .map_err(|excess| self.refuse(excess))?;
        let Some(mut entrance) = self.entrance else {
            return Ok(());
        };
        let start = Start {
            code: Code::new(code, entrance.keep_code),
            language: work.language().name(),
            arguments: request.arguments.len(),
            environment: names(&request.env),
            files,
            limits: limits(&request.limits),
            root: request.root,
        };
        let anchor = entrance.log.append(CLIENT, &Event::Start(start))?;
        writeln!(entrance.parent, "{}", anchor.sequence).context("telling of a run's beginning")
    }

    /// All of standard input, which is the program; it is put back for it.
    fn read_code(&self) -> Result<Vec<u8>> {
        // A byte more than is allowed tells that there is one.
        let most = self
            .ceiling
            .code
            .map_or(CODE_MAX, |most| most.0.min(CODE_MAX));
        let mut code = Vec::new();
        stdin()
            .take(most.saturating_add(1))
            .read_to_end(&mut code)
            .context("reading the program from standard input")?;
        if code.len() as u64 > CODE_MAX {
            return Err(Error::new(
                Kind::BadProgram,
                format!(
                    "the program on standard input is larger than {} MiB",
                    CODE_MAX >> 20
                ),
                Remedy::PutDataIntoFile,
            )
            .into());
        }
        let memory = memfd_create(c"code", MFdFlags::MFD_CLOEXEC).context("keeping the program")?;
        let mut file = File::from(memory);
        file.write_all(&code).context("keeping the program")?;
        file.rewind().context("keeping the program")?;
        dup2_stdin(&file).context("giving the program back")?;
        Ok(code)
    }
}

/// An option may not contradict the variable: an administrator sets it for other users.
pub fn keep_to_environment(option: &str, name: &str, given: Option<&Path>) -> Result<(), Error> {
    match env::var_os(name) {
        Some(set) if given != Some(Path::new(&set)) => Err(Error::new(
            Kind::Policy,
            format!("{option} is not what {name} says: {}", set.display()),
            format!("leave out {option}"),
        )),
        _ => Ok(()),
    }
}

/// The policy, and the log with whether code goes into it, if there is to be one.
pub fn prepare(args: &RunArgs) -> Result<(Policy, Option<(Log, bool)>)> {
    keep_to_environment("--policy", "SANDBOX_POLICY", args.policy.as_deref())?;
    keep_to_environment("--audit", "SANDBOX_AUDIT", args.audit.as_deref())?;
    let policy = match &args.policy {
        Some(path) => Policy::read(path)?,
        None => Policy::default(),
    };
    let log = match (&policy.audit, &args.audit) {
        (Some(audit), Some(path)) if *path != audit.file => {
            return Err(Error::new(
                Kind::Policy,
                format!("the policy has runs written to {}", audit.file.display()),
                "leave out --audit, or name that file",
            )
            .into());
        }
        (Some(audit), _) => {
            let rotate = audit.rotate.map_or(ROTATE, |rotate| rotate.0);
            Some((Log::open(&audit.file, rotate, audit.sync)?, audit.code))
        }
        (None, Some(path)) => Some((Log::open(path, ROTATE, false)?, false)),
        (None, None) => None,
    };
    Ok((policy, log))
}

fn names(variables: &[Vec<u8>]) -> Vec<String> {
    /// Of which more are not told, and bytes of each.
    const COUNT: usize = 100;
    const LENGTH: usize = 100;
    let names = variables.iter().take(COUNT).map(|variable| name(variable));
    names
        .map(|name| String::from_utf8_lossy(&name[..name.len().min(LENGTH)]).into_owned())
        .collect()
}

fn limits(limits: &crate::limits::Limits) -> Limits {
    Limits {
        memory: limits.memory,
        timeout_s: limits.timeout.map(|timeout| timeout.as_secs_f64()),
        output: limits.max_output,
        pids: limits.pids,
        stdin: (limits.input < u64::MAX).then_some(limits.input),
    }
}
