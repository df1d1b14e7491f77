//! The files of the repository, and what is found in them.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

/// A file of the repository: its path in there, and its text.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    pub fn ends_with(&self, extension: &str) -> bool {
        Path::new(&self.path).extension() == Some(extension.as_ref())
    }

    pub fn is_shell(&self) -> bool {
        let interpreters = ["bash", "/sh", "/sh -e"];
        self.ends_with("sh") || interpreters.iter().any(|its| self.is_run_by(its))
    }

    pub fn is_python(&self) -> bool {
        self.ends_with("py") || self.is_run_by("python3")
    }

    pub fn is_run_by(&self, interpreter: &str) -> bool {
        let first = self.text.lines().next().unwrap_or("");
        first.starts_with("#!") && first.ends_with(interpreter)
    }

    pub fn is_c(&self) -> bool {
        self.ends_with("c") || self.ends_with("h")
    }

    pub fn is_code(&self) -> bool {
        self.ends_with("rs") || self.is_c() || self.is_python() || self.is_shell()
    }
}

/// A place that breaks a rule, and what to do there.
#[derive(Debug)]
pub struct Finding {
    pub path: String,
    pub line: usize,
    pub what: String,
}

impl Finding {
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: path.into(),
            line,
            what: what.into(),
        }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

pub fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Returns all code in a directory, without what was built or installed there.
pub fn code_in(directory: &str) -> Vec<File> {
    let mut files = Vec::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{directory}/{name}");
        if name.starts_with('.') || ["target", "node_modules"].contains(&name.as_str()) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files.extend(code_in(&path));
        } else if let Some(text) = read(&path) {
            files.push(File { path, text });
        }
    }
    files.retain(File::is_code);
    files
}

/// Returns all code of the repository.
pub fn all_code() -> Vec<File> {
    let directories = [
        "src", "build", "guest", "tests", "benches", "scripts", "examples",
    ];
    let files: Vec<_> = directories.into_iter().flat_map(code_in).collect();
    assert!(files.len() > 200, "{}", files.len());
    files
}

/// Reads a file that must be there.
pub fn file(path: &str) -> File {
    let text = read(path).unwrap_or_else(|| panic!("{path} is not there"));
    let path = path.into();
    File { path, text }
}

/// Returns the patches of the guest's kernel.
pub fn kernel_patches() -> Vec<File> {
    let directory = "kernel-config/patches";
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<_> = names
        .map(|name| file(&format!("{directory}/{name}")))
        .collect();
    files.retain(|file| file.ends_with("patch"));
    files
}

/// Fails with a line for each finding.
pub fn check(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<_> = findings.into_iter().map(|one| one.to_string()).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}
