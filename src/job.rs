//! From what the user named (a script, code, standard input) to the job that the guest gets.

use crate::outcome::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_OURS};
use guest::{File, Job, WORKDIR, kind};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

const INTERPRETER: &str = "python3";

/// Makes an interpreter stop where it would run its command, and ask for a job.
const WARM_LIBRARY: &str = "LD_PRELOAD=/usr/lib/sandbox/warm.so";

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

/// A job with its files.
#[derive(Debug)]
pub struct Work {
    pub job: Job,
    /// What it runs, if that is a file; its path is relative to the working directory.
    pub script: Option<File>,
    /// All others, with absolute paths.
    pub files: Vec<File>,
}

impl Work {
    /// As an interpreter gets it that was started already.
    pub fn handover(&self) -> Vec<u8> {
        let enter = !self.files.is_empty() || self.job.workdir != WORKDIR.as_bytes();
        self.job.handover(self.script.as_ref(), enter)
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
    variables: &[Vec<u8>],
    workdir: &[u8],
    pids: u32,
    root: bool,
) -> Result<Work, Complaint> {
    let mut argv = vec![INTERPRETER.into()];
    let mut script = None;
    match program {
        Program::Stdin => argv.push(b"-".to_vec()),
        Program::Code(code) => argv.extend([b"-c".to_vec(), code.as_bytes().to_vec()]),
        Program::Script(path) => {
            let (word, name) = guest_path(path);
            argv.push(word);
            script = Some(File {
                path: name,
                mode: SCRIPT_MODE,
                content: read_script(path)?,
            });
        }
    }
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
        files: Vec::new(),
    })
}

/// The part of a variable before the `=`.
fn name(variable: &[u8]) -> &[u8] {
    let end = variable.iter().position(|&byte| byte == b'=');
    &variable[..end.unwrap_or(variable.len())]
}

/// Whether an interpreter that is up already can run it as a fresh one would: some variables are
/// read when a process starts, by the interpreter, the C library or the dynamic linker.
pub fn suits_a_warm_interpreter(job: &Job) -> bool {
    const READ_AT_START: [&[u8]; 6] = [b"HOME", b"LANG", b"LANGUAGE", b"PATH", b"TZ", b"TZDIR"];
    const PREFIXES: [&[u8]; 5] = [b"PYTHON", b"LD_", b"LC_", b"MALLOC_", b"GLIBC_"];
    let usual = environment();
    job.env.iter().all(|variable| {
        let name = name(variable);
        let at_start =
            READ_AT_START.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        !at_start || usual.contains(variable)
    })
}

/// The interpreter to be saved before it has a program. It must start as one for a program does.
pub fn warm_interpreter(pids: u32, root: bool) -> Job {
    let mut env = environment();
    env.push(WARM_LIBRARY.into());
    Job {
        argv: vec![INTERPRETER.into(), "-c".into(), "".into()],
        env,
        pids_limit: pids,
        root,
        workdir: WORKDIR.into(),
    }
}

/// The least of programs.
pub fn rehearsal(pids: u32, root: bool) -> Work {
    let name = b"rehearsal.py";
    let job = Job {
        argv: vec![INTERPRETER.into(), name.into()],
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
        files: Vec::new(),
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
    Ok(OsString::from_vec(read_script(path)?))
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
        let job = make(&Program::Code("pass".into()), &[], &[], b"/work", 1, false)
            .unwrap()
            .job;
        let host = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        assert!(
            job.env
                .iter()
                .all(|variable| !variable.ends_with(host.as_bytes()))
        );
        assert_eq!(job.env.len(), 6);
        assert!(suits_a_warm_interpreter(&job));
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
            let program = Program::Code("pass".into());
            let work = make(&program, &[], &[variable.into()], b"/work", 1, false).unwrap();
            assert_eq!(suits_a_warm_interpreter(&work.job), suits, "{variable}");
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
