//! From what the user named (a script, code, standard input) to the job that the guest gets.

mod path;
mod script;

pub use crate::image::language::Language;
pub use path::{beneath, resolve};
pub use script::read_code;

use crate::error::{Error, Kind};
use crate::image::language::{PYTHON, SHELL, words};
use crate::wire::Bytes;
use guest::{File, Job, WORKDIR, handover, kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Makes an interpreter stop where it would run its command, and ask for a job.
const WARM_LIBRARY: &[u8] = b"/usr/lib/sandbox/warm.so";
const PRELOAD: &[u8] = b"LD_PRELOAD=";

const SCRIPT_MODE: u32 = kind::FILE | 0o644;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Program {
    Script(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        PathBuf,
    ),
    Code(
        #[serde(with = "crate::wire")]
        #[schemars(with = "Bytes")]
        OsString,
    ),
    /// Code from standard input.
    Stdin,
}

/// A job with its files.
#[derive(Debug, Default)]
pub struct Work {
    pub job: Job,
    /// What it runs, if that is a file; its path is relative to the working directory.
    pub script: Option<File>,
    /// All others, with absolute paths.
    pub files: Vec<File>,
    /// A record of the run is wanted.
    pub record: bool,
}

impl Work {
    /// As an interpreter gets it that was started already.
    pub fn handover(&self) -> Vec<u8> {
        let enters = !self.files.is_empty() || self.job.workdir != WORKDIR.as_bytes();
        let is_code = self.job.argv.get(1).is_some_and(|word| word == b"-c");
        let flags = [
            (handover::ENTER, enters),
            (handover::REPORT, self.record),
            (handover::NOTEBOOK, self.record && is_code),
            (handover::EXECUTE, !self.is_python()),
        ];
        let flags = flags.iter().filter(|(_, wanted)| *wanted);
        let flags = flags.fold(0, |flags, (flag, _)| flags | flag);
        self.job.handover(self.script.as_ref(), flags)
    }

    pub fn language(&self) -> Language {
        match self.is_python() {
            true => Language::Python,
            false => Language::Bash,
        }
    }

    /// The code itself; `None`: it comes through standard input.
    pub fn code(&self) -> Option<&[u8]> {
        let argv = &self.job.argv;
        match (&self.script, argv.get(1)) {
            (Some(script), _) => Some(&script.content),
            (None, Some(word)) if word == b"-c" => argv.get(2).map(Vec::as_slice),
            _ => None,
        }
    }

    pub fn is_python(&self) -> bool {
        self.job.argv.first().is_some_and(|word| word == PYTHON)
    }

    /// Whether an interpreter that is up already can run it as a fresh one would: some variables
    /// are read when a process starts, by the interpreter, the C library or the dynamic linker.
    pub fn suits_a_warm_interpreter(&self) -> bool {
        const READ_AT_START: [&[u8]; 6] = [b"HOME", b"LANG", b"LANGUAGE", b"PATH", b"TZ", b"TZDIR"];
        const PREFIXES: [&[u8]; 5] = [b"PYTHON", b"LD_", b"LC_", b"MALLOC_", b"GLIBC_"];
        let usual = environment();
        let suits = |variable: &Vec<u8>| {
            let name = name(variable);
            let at_start = READ_AT_START.contains(&name)
                || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            !at_start || usual.contains(variable)
        };
        // What is no Python gets a process that starts anew.
        !self.is_python() || self.job.env.iter().all(suits)
    }

    /// Whether its words can be handed over: an interpreter that is up takes any. `boots`: a machine
    /// is booted for it alone.
    pub fn check_words(&self, boots: bool) -> Result<(), Error> {
        /// With the NUL at its end: MAX_ARG_STRLEN of execve(2).
        const WORD_MAX: usize = 128 << 10;
        let takes_any = self.is_python() && (self.record || !boots);
        let is_long = |word: &Vec<u8>| word.len() >= WORD_MAX;
        if takes_any || !self.job.argv.iter().any(is_long) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Request,
            "the code or an argument is too long for an interpreter that has yet to start",
            "put it into a script",
        ))
    }

    /// Where a machine is booted for it alone: the interpreter to be started first, which gets the
    /// job from the host because it is to tell of it.
    pub fn interpreter(&self) -> Option<Job> {
        if !self.record || !self.is_python() {
            return None;
        }
        // Any command that is not the one of an interpreter to be saved.
        Some(interpreter(self.job.clone(), b"pass"))
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        let files = self.files.iter().chain(&self.script);
        files.map(|file| file.content.len() as u64).sum()
    }

    /// Everything that must be there: the working directory, then what goes into it.
    pub fn into_files(self) -> Vec<File> {
        let mut files = Vec::new();
        if self.job.workdir != WORKDIR.as_bytes() {
            files.push(File {
                path: self.job.workdir.clone(),
                mode: kind::DIRECTORY | 0o755,
                content: Vec::new(),
            });
        }
        files.extend(self.files);
        if let Some(mut script) = self.script {
            script.path = beneath(&self.job.workdir, &script.path);
            // What runs is what there is, also where the directory around it was given.
            files.retain(|file| file.path != script.path);
            files.push(script);
        }
        files
    }
}

/// Makes the job; reads the script.
pub fn make(
    program: &Program,
    arguments: &[OsString],
    language: Option<Language>,
    variables: &[Vec<u8>],
    workdir: &[u8],
    pids: u32,
    root: bool,
) -> Result<Work, Error> {
    let mut file = None;
    let mut argv = match program {
        Program::Stdin => match language {
            Some(Language::Bash) => words(&[SHELL, b"-s", b"--"]),
            _ => words(&[PYTHON, b"-"]),
        },
        Program::Code(code) => match language {
            // Its $0 comes first.
            Some(Language::Bash) => words(&[SHELL, b"-c", code.as_bytes(), SHELL]),
            _ => words(&[PYTHON, b"-c", code.as_bytes()]),
        },
        Program::Script(path) => {
            let content = script::read(path)?;
            let mut argv = script::interpreter(path, &content, language)?;
            let (word, name) = path::of_script(path);
            argv.push(word);
            file = Some(File {
                path: name,
                mode: SCRIPT_MODE,
                content,
            });
            argv
        }
    };
    argv.extend(
        arguments
            .iter()
            .map(|argument| argument.as_bytes().to_vec()),
    );
    let mut env = environment();
    for variable in variables {
        env.retain(|present| name(present) != name(variable));
        env.push(variable.clone());
    }
    let job = Job {
        argv,
        env,
        pids_limit: pids,
        root,
        workdir: workdir.into(),
    };
    Ok(Work {
        job,
        script: file,
        ..Work::default()
    })
}

/// The part of a variable before the `=`.
pub fn name(variable: &[u8]) -> &[u8] {
    let end = variable.iter().position(|&byte| byte == b'=');
    &variable[..end.unwrap_or(variable.len())]
}

/// The interpreter to be saved before it has a program. It must start as one for a program does.
pub fn warm_interpreter(pids: u32, root: bool) -> Job {
    let job = Job {
        argv: Vec::new(),
        env: environment(),
        pids_limit: pids,
        root,
        workdir: WORKDIR.into(),
    };
    interpreter(job, b"")
}

/// Started with this command, it stops before that; the library puts the variable back.
fn interpreter(mut job: Job, command: &[u8]) -> Job {
    job.argv = words(&[PYTHON, b"-c", command]);
    let (preloads, mut env): (Vec<_>, Vec<_>) = job
        .env
        .into_iter()
        .partition(|variable| variable.starts_with(PRELOAD));
    let others = preloads
        .iter()
        .flat_map(|variable| [b":", &variable[PRELOAD.len()..]].concat());
    env.push(
        [PRELOAD, WARM_LIBRARY]
            .into_iter()
            .flatten()
            .copied()
            .chain(others)
            .collect(),
    );
    job.env = env;
    job
}

/// The least of programs.
pub fn rehearsal(pids: u32, root: bool) -> Work {
    let name = b"rehearsal.py";
    let job = Job {
        argv: words(&[PYTHON, name]),
        env: environment(),
        pids_limit: pids,
        root,
        workdir: WORKDIR.into(),
    };
    let script = File {
        path: name.into(),
        mode: SCRIPT_MODE,
        content: b"print('hello')\n".into(),
    };
    Work {
        job,
        script: Some(script),
        ..Work::default()
    }
}

/// Nothing of the host's environment is in it.
fn environment() -> Vec<Vec<u8>> {
    [
        "HOME=/work",
        "LANG=C.UTF-8",
        "LOGNAME=sandbox",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "SHELL=/bin/bash",
        "USER=sandbox",
    ]
    .map(|variable| variable.into())
    .into()
}

/// What the user's words name: `-` is standard input.
pub fn program_named(name: &OsStr) -> Program {
    if name == "-" {
        Program::Stdin
    } else {
        Program::Script(name.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(language: Option<Language>, variables: &[Vec<u8>]) -> Work {
        let program = Program::Code("pass".into());
        make(&program, &[], language, variables, b"/work", 1, false).unwrap()
    }

    #[test]
    fn a_library_of_the_users_is_loaded_beside_ours() {
        let mut work = code(None, &[b"LD_PRELOAD=/a.so".to_vec()]);
        assert_eq!(work.interpreter(), None);
        work.record = true;
        let env = work.interpreter().unwrap().env;
        let expected: &[u8] = b"LD_PRELOAD=/usr/lib/sandbox/warm.so:/a.so";
        assert_eq!(env.last().unwrap(), expected);
        assert_eq!(env.len(), work.job.env.len());
    }

    #[test]
    fn nothing_of_the_hosts_environment_is_in_a_job() {
        let work = code(None, &[]);
        let job = &work.job;
        let host = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        assert!(
            job.env
                .iter()
                .all(|variable| !variable.ends_with(host.as_bytes()))
        );
        assert_eq!(job.env.len(), 6);
        assert!(work.suits_a_warm_interpreter());
    }

    #[test]
    fn a_variable_that_is_read_at_start_wants_an_interpreter_of_its_own() {
        for (variable, suits) in [
            ("A=b", true),
            ("USER=other", true),
            ("LANG=C.UTF-8", true),
            ("LANG=C", false),
            ("PYTHONHASHSEED=0", false),
            ("TZ=Asia/Tokyo", false),
            ("LC_ALL=C", false),
        ] {
            let work = code(None, &[variable.into()]);
            assert_eq!(work.suits_a_warm_interpreter(), suits, "{variable}");
            let work = code(Some(Language::Bash), &[variable.into()]);
            assert!(work.suits_a_warm_interpreter(), "{variable}");
        }
    }

    #[test]
    fn the_script_is_the_one_file_at_its_path() {
        let file = |path: &str, content: &str| File {
            path: path.into(),
            mode: SCRIPT_MODE,
            content: content.into(),
        };
        let mut work = rehearsal(1, false);
        work.job.workdir = b"/tmp/x".into();
        work.files = vec![file("/tmp/x/rehearsal.py", "other"), file("/tmp/x/b", "b")];
        let files = work.into_files();
        let paths: Vec<_> = files.iter().map(|file| &file.path[..]).collect();
        assert_eq!(paths, [&b"/tmp/x"[..], b"/tmp/x/b", b"/tmp/x/rehearsal.py"]);
        assert_eq!(files[2].content, b"print('hello')\n");
    }
}
