//! From what the user named (a script, code, standard input) to the job that the guest gets.

use crate::outcome::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OURS};
use clap::ValueEnum;
use guest::{File, Job, WORKDIR, handover, kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

const PYTHON: &[u8] = b"python3";
const SHELL: &[u8] = b"bash";

/// Makes an interpreter stop where it would run its command, and ask for a job.
const WARM_LIBRARY: &[u8] = b"/usr/lib/sandbox/warm.so";
const PRELOAD: &[u8] = b"LD_PRELOAD=";

const SCRIPT_MODE: u32 = kind::FILE | 0o644;

/// Bytes of a script at most.
const SCRIPT_MAX: u64 = 56 << 20;

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    Script(PathBuf),
    Code(OsString),
    /// Code from standard input.
    Stdin,
}

/// The user's mistake: what is wrong, what to do, and the exit code that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub what: String,
    pub remedy: String,
    pub exit_code: u8,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Complaint {}

/// What the program is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Python,
    Bash,
}

impl Language {
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
        }
    }
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
    pub fn check_words(&self, boots: bool) -> Result<(), Complaint> {
        /// With the NUL at its end: MAX_ARG_STRLEN of execve(2).
        const WORD_MAX: usize = 128 << 10;
        let takes_any = self.is_python() && (self.record || !boots);
        let is_long = |word: &Vec<u8>| word.len() >= WORD_MAX;
        if takes_any || !self.job.argv.iter().any(is_long) {
            return Ok(());
        }
        Err(Complaint {
            what: "the code or an argument is too long for an interpreter that has yet to start"
                .into(),
            remedy: "put it into a script".into(),
            exit_code: EXIT_OURS,
        })
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

/// A path in the guest, from a directory's and one relative to it.
pub fn beneath(directory: &[u8], path: &[u8]) -> Vec<u8> {
    match (directory, path) {
        (directory, []) => directory.into(),
        (b"/", path) => [b"/", path].concat(),
        (directory, path) => [directory, b"/", path].concat(),
    }
}

/// A path in the guest as the user gave it, absolute and without `.`. The error: it has a `..`.
pub fn resolve(workdir: &[u8], given: &OsStr) -> Result<Vec<u8>, Complaint> {
    let mut names = PathBuf::new();
    for component in Path::new(given).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => {
                return Err(Complaint {
                    what: format!("the path in the guest {} goes up with ..", given.display()),
                    remedy: "give the path that it means".into(),
                    exit_code: EXIT_OURS,
                });
            }
            _ => {}
        }
    }
    let start = if given.as_bytes().starts_with(b"/") {
        b"/"
    } else {
        workdir
    };
    Ok(beneath(start, names.as_os_str().as_bytes()))
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
) -> Result<Work, Complaint> {
    let mut script = None;
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
            let content = read_script(path)?;
            let mut argv = interpreter_of(path, &content, language)?;
            let (word, name) = guest_path(path);
            argv.push(word);
            script = Some(File {
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
        script,
        ..Work::default()
    })
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

/// The start of the command line that runs a script: of the language that was asked for, or else
/// its name or its first line tells.
fn interpreter_of(
    path: &Path,
    content: &[u8],
    language: Option<Language>,
) -> Result<Vec<Vec<u8>>, Complaint> {
    let shebang = Shebang::of(content);
    let is_shell = |shebang: &Shebang| matches!(shebang.name, b"sh" | b"bash");
    let extension = path.extension().map(OsStr::as_bytes);
    let language = match (language, extension, &shebang) {
        (Some(language), ..) => language,
        (None, Some(b"py"), _) => Language::Python,
        (None, Some(b"sh"), _) => Language::Bash,
        (None, _, None) => Language::Python,
        (None, _, Some(shebang)) if is_shell(shebang) => Language::Bash,
        (None, _, Some(shebang)) if shebang.name.starts_with(b"python") => Language::Python,
        (None, _, Some(shebang)) => {
            return Err(Complaint {
                what: format!(
                    "the script {} is for {}, which is not there",
                    path.display(),
                    String::from_utf8_lossy(shebang.name).escape_debug()
                ),
                remedy: "there are Python and Bash; say with --lang if it is one of them".into(),
                exit_code: EXIT_NOT_FOUND,
            });
        }
    };
    Ok(match language {
        Language::Python => words(&[PYTHON]),
        Language::Bash => {
            let options = shebang.filter(is_shell).and_then(|shebang| shebang.option);
            [SHELL].into_iter().chain(options).map(Vec::from).collect()
        }
    })
}

/// The interpreter that a script's first line names (execve(2)).
struct Shebang<'a> {
    /// Without the directory.
    name: &'a [u8],
    /// What follows it, as one word.
    option: Option<&'a [u8]>,
}

impl<'a> Shebang<'a> {
    fn of(content: &'a [u8]) -> Option<Self> {
        let line = content
            .strip_prefix(b"#!")?
            .split(|&byte| byte == b'\n')
            .next()?;
        let (path, option) = first_word(line)?;
        match (last_name(path), option) {
            (b"env", Some(rest)) => {
                let (name, option) = first_word(rest.strip_prefix(b"-S").unwrap_or(rest))?;
                Some(Self {
                    name: last_name(name),
                    option,
                })
            }
            (name, option) => Some(Self { name, option }),
        }
    }
}

/// The first word of a line, and the others if there are any.
fn first_word(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace);
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_ascii();
    (!word.is_empty()).then_some((word, (!rest.is_empty()).then_some(rest)))
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
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

/// The script on the guest's command line, and its path relative to the working directory:
/// as it was given where that stays inside, else its name alone.
fn guest_path(path: &Path) -> (Vec<u8>, Vec<u8>) {
    let inside = path
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    let word = match (inside, path.file_name()) {
        (false, Some(name)) => Path::new(name),
        _ => path,
    };
    let plain: PathBuf = word
        .components()
        .filter(|component| matches!(component, Component::Normal(_)))
        .collect();
    let mut word = word.as_os_str().as_bytes().to_vec();
    if word.starts_with(b"-") {
        // Not an option of the interpreter's.
        word.splice(..0, *b"./");
    }
    (word, plain.as_os_str().as_bytes().to_vec())
}

fn read_script(path: &Path) -> Result<Vec<u8>, Complaint> {
    let shown = path.display();
    let complaint = |what: String, remedy: &str, exit_code| Complaint {
        what,
        remedy: remedy.into(),
        exit_code,
    };
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => complaint(
            format!("there is no script {shown}"),
            "check the path; code goes after -c, or to standard input with -",
            EXIT_NOT_FOUND,
        ),
        ErrorKind::PermissionDenied => complaint(
            format!("you may not read the script {shown}"),
            "give yourself permission to read it: chmod u+r",
            EXIT_NOT_EXECUTABLE,
        ),
        _ => complaint(
            format!("the script {shown} cannot be read: {error}"),
            "check that it is a file with Python code",
            EXIT_NOT_EXECUTABLE,
        ),
    };
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(complaint(
            format!("the script {shown} is a directory"),
            "name the file in it that should run",
            EXIT_NOT_EXECUTABLE,
        ));
    }
    let mut content = Vec::new();
    // Not by its size: a device or a pipe has none.
    std::fs::File::open(path)
        .and_then(|file| file.take(SCRIPT_MAX + 1).read_to_end(&mut content))
        .map_err(unreadable)?;
    if content.len() as u64 > SCRIPT_MAX {
        return Err(complaint(
            format!("the script {shown} is larger than {} MiB", SCRIPT_MAX >> 20),
            "give the data to its standard input instead",
            EXIT_NOT_EXECUTABLE,
        ));
    }
    Ok(content)
}

/// Code that is to run as after -c.
pub fn read_code(path: &Path) -> Result<OsString, Complaint> {
    let code = read_script(path)?;
    if code.contains(&0) {
        return Err(Complaint {
            what: format!("the code in {} has a NUL in it", path.display()),
            remedy: "give Python code, which is text".into(),
            exit_code: EXIT_NOT_EXECUTABLE,
        });
    }
    Ok(OsString::from_vec(code))
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
    fn a_scripts_language_is_told_by_its_name_or_its_first_line() {
        let python = ["python3"].as_slice();
        let bash = ["bash"].as_slice();
        for (name, line, words) in [
            ("a.py", "", python),
            ("a", "", python),
            ("a", "# no #! line", python),
            ("a", "#!/usr/bin/python3 -u", python),
            ("a", "#! /usr/bin/env python3.11", python),
            ("a.py", "#!/bin/sh", python),
            ("a.sh", "", bash),
            ("a.sh", "#!/usr/bin/perl", bash),
            ("a", "#!/bin/sh", bash),
            ("a", "#!/bin/bash -eu ", &["bash", "-eu"]),
            ("a", "#!/usr/bin/env bash", bash),
            ("a", "#!/usr/bin/env -S bash -e", &["bash", "-e"]),
        ] {
            let content = format!("{line}\nmore");
            let argv = interpreter_of(Path::new(name), content.as_bytes(), None).unwrap();
            let expected: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().into()).collect();
            assert_eq!(argv, expected, "{name} {line}");
        }
    }

    #[test]
    fn a_script_for_another_interpreter_runs_only_in_a_language_that_there_is() {
        let of = |language| interpreter_of(Path::new("a"), b"#!/usr/bin/perl\n", language);
        let complaint = of(None).unwrap_err();
        assert_eq!(complaint.exit_code, EXIT_NOT_FOUND);
        assert!(complaint.what.contains("is for perl"), "{complaint}");
        assert_eq!(of(Some(Language::Bash)), Ok(words(&[SHELL])));
        assert_eq!(of(Some(Language::Python)), Ok(words(&[PYTHON])));
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
    fn a_script_keeps_its_path_where_that_stays_inside_the_working_directory() {
        for (given, word, inside) in [
            ("hello.py", "hello.py", "hello.py"),
            ("./hello.py", "./hello.py", "hello.py"),
            ("a/b/hello.py", "a/b/hello.py", "a/b/hello.py"),
            ("../hello.py", "hello.py", "hello.py"),
            ("a/../../hello.py", "hello.py", "hello.py"),
            ("/tmp/hello.py", "hello.py", "hello.py"),
            ("/tmp/-v.py", "./-v.py", "-v.py"),
        ] {
            let expected = (word.into(), inside.into());
            assert_eq!(guest_path(Path::new(given)), expected, "{given}");
        }
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
    fn paths_in_the_guest_start_from_the_working_directory() {
        for (workdir, given, path) in [
            ("/work", "a", "/work/a"),
            ("/work", "./a//b/.", "/work/a/b"),
            ("/work", "/tmp/a/", "/tmp/a"),
            ("/work", ".", "/work"),
            ("/work", "", "/work"),
            ("/work", "/", "/"),
            ("/", "a", "/a"),
        ] {
            let resolved = resolve(workdir.as_bytes(), OsStr::new(given));
            assert_eq!(resolved, Ok(path.into()), "{workdir} {given}");
        }
        assert!(resolve(b"/work", OsStr::new("a/../b")).is_err());
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
