//! Checks that the repository is in order. Each rule reads the sources, and says of each place that
//! breaks it what to do there.

mod abi;
mod circles;
mod floors;
mod heads;
mod native;
mod options;
mod reader;
mod rust;
mod sizes;

use rust::Crate;
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::Path;

/// A file of the repository: its path in there, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn ends_with(&self, extension: &str) -> bool {
        Path::new(&self.path).extension() == Some(extension.as_ref())
    }

    fn is_shell(&self) -> bool {
        let interpreters = ["bash", "/sh", "/sh -e"];
        self.ends_with("sh") || interpreters.iter().any(|its| self.is_run_by(its))
    }

    fn is_python(&self) -> bool {
        self.ends_with("py") || self.is_run_by("python3")
    }

    fn is_run_by(&self, interpreter: &str) -> bool {
        let first = self.text.lines().next().unwrap_or("");
        first.starts_with("#!") && first.ends_with(interpreter)
    }

    fn is_c(&self) -> bool {
        self.ends_with("c") || self.ends_with("h")
    }

    fn is_code(&self) -> bool {
        self.ends_with("rs") || self.is_c() || self.is_python() || self.is_shell()
    }
}

/// A place that breaks a rule, and what to do there.
#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
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

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Returns all code in a directory, without what was built or installed there.
fn code_in(directory: &str) -> Vec<File> {
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
fn all_code() -> Vec<File> {
    let directories = ["src", "build", "guest", "tests", "benches", "scripts"];
    let files: Vec<_> = directories.into_iter().flat_map(code_in).collect();
    assert!(files.len() > 200, "{}", files.len());
    files
}

/// Reads a file that must be there.
fn file(path: &str) -> File {
    let text = read(path).unwrap_or_else(|| panic!("{path} is not there"));
    let path = path.into();
    File { path, text }
}

/// Returns the patches of the guest's kernel.
fn kernel_patches() -> Vec<File> {
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
fn check(findings: impl IntoIterator<Item = Finding>) {
    let lines: Vec<_> = findings.into_iter().map(|one| one.to_string()).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn no_import_runs_up_between_floors() {
    check(floors::findings(&Crate::read("src/lib.rs", &read)));
}

#[test]
fn no_text_names_an_option_or_a_command_below_the_command_line() {
    check(options::findings(
        &Crate::read("src/lib.rs", &read),
        &options::EXCEPTIONS,
    ));
}

#[test]
fn only_the_module_of_machines_knows_kvm() {
    let mut files = code_in("src");
    files.retain(|file| !file.path.starts_with("src/vm/"));
    check(files.iter().filter_map(|file| {
        let mut lines = file.text.lines();
        let line =
            lines.position(|line| line.contains("kvm_ioctls") || line.contains("kvm_bindings"))?;
        let what = "it knows KVM: use what src/vm makes of it";
        Some(Finding::new(&file.path, line + 1, what))
    }));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let roots = ["src/lib.rs", "guest/src/lib.rs", "guest/src/main.rs"];
    let uses = roots.map(|root| Crate::read(root, &read).uses());
    assert!(uses.iter().all(|uses| !uses.is_empty()));
    check(uses.iter().flat_map(circles::findings));
}

#[test]
fn no_files_of_c_call_each_other_in_a_circle() {
    let places = [
        ("guest/images/python/warm", "warm.h"),
        ("guest/waiting", "waiting.h"),
    ];
    for (directory, header) in places {
        let uses = native::uses(&code_in(directory), &format!("{directory}/{header}"));
        assert!(!uses.is_empty(), "{directory}");
        check(circles::findings(&uses));
    }
}

#[test]
fn no_function_is_longer_than_a_screen() {
    check(all_code().iter().flat_map(sizes::long_functions));
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    check(all_code().iter().filter_map(sizes::long_file));
}

#[test]
fn each_file_says_first_what_it_is() {
    check(all_code().iter().filter_map(heads::finding));
}

#[test]
fn the_hypercall_abi_of_c_is_that_of_rust() {
    let source = file("guest/src/hypercall.rs");
    let mut files = kernel_patches();
    files.extend(code_in("guest").into_iter().filter(File::is_c));
    check(abi::findings(&source, &files));
    check(abi::table_findings(&source, &file("docs/architecture.md")));
}
