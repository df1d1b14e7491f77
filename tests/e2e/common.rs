//! Helpers that the end-to-end tests share: the real binary on the real KVM, and Debian's python3.

use sandbox::internals::kvm_mode::verdicts;
use sandbox::internals::vm::mode::Mode;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;

/// This machine's own Python, which runs what tests need done outside of a guest.
pub const PYTHON: &str = "/usr/bin/python3";

/// Returns the binary under test. `SANDBOX_BINARY` names it where it is not the one that cargo made beside
/// the tests.
pub fn binary() -> String {
    std::env::var("SANDBOX_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sandbox").into())
}

/// Returns a `sandbox` with patience for a slow machine, for tests that set no limit of their own.
pub fn sandbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env("SANDBOX_TIMEOUT", "300");
    command
}

/// Starts the command with its streams piped.
pub fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs the command to its end with this standard input.
pub fn finish(command: &mut Command, stdin: &[u8]) -> Output {
    let mut child = start(command);
    let mut pipe = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // In a thread: the program may not read it, or write before it does.
    let writer = std::thread::spawn(move || pipe.write_all(&stdin).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Returns the exit code that a shell gives for a process.
pub fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().expect("neither code nor signal"))
}

/// Returns the mode in which guests run, as `sandbox doctor` reports it with these options.
pub fn mode_with(options: &[&str]) -> Mode {
    let cache = Cache::empty();
    let output = finish(cache.sandbox(&["doctor", "--json"]).args(options), b"");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let modes = [Mode::Hardware, Mode::Native, Mode::Emulated];
    let named = |mode: &Mode| report["kvm_mode"] == mode.name();
    modes.into_iter().find(named).expect("a mode")
}

pub fn mode() -> Mode {
    static MODE: LazyLock<Mode> = LazyLock::new(|| mode_with(&[]));
    *MODE
}

/// Returns the seconds in which a program gets to its work on this host, also while others do.
pub fn enough_to_start() -> &'static str {
    match mode() {
        Mode::Emulated => "60",
        Mode::Hardware | Mode::Native => "10",
    }
}

/// Returns how many runs follow each other where a test looks for what they leave: what
/// `SANDBOX_RUNS` says, or 1,000.
pub fn runs() -> String {
    std::env::var("SANDBOX_RUNS").unwrap_or("1000".into())
}

/// Returns options that let the guest's root reach I/O ports, for runs in [`Cache::growing`], whose
/// template they share. Native mode does not allow that: user mode's page table has nothing of the
/// kernel, and so no bitmap that allows ports.
pub fn with_ports() -> &'static [&'static str] {
    match mode() {
        Mode::Native => &["--kvm-mode=emulated"],
        Mode::Hardware | Mode::Emulated => &[],
    }
}

/// Does a `sandbox run` of this code.
pub fn run(options: &[&str], code: &str) -> Output {
    let mut arguments = vec!["run"];
    arguments.extend(options);
    arguments.extend(["-c", code]);
    finish(&mut sandbox(&arguments), b"")
}

/// Returns what was said on standard error, but for the progress of a build that took over a second.
pub fn said(output: &Output) -> String {
    let is_progress = |line: &str| {
        line.starts_with("sandbox: building a template")
            || line.starts_with("sandbox: the template is built, after ")
    };
    let stderr = text(&output.stderr);
    let lines = stderr.split_inclusive('\n');
    lines.filter(|line| !is_progress(line)).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A cache directory for tests.
pub struct Cache(pub TempDir);

/// The facts that show that a file is still the same: its path, inode, length, and the nanosecond
/// of its last change. The size on disk is not among them, as it may change when a file system gets
/// to writing.
pub type Identity = (PathBuf, u64, u64, i64);

impl Cache {
    /// Makes an empty cache.
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns a cache with the template of usual runs in it, for tests that leave it as it is.
    pub fn of_one() -> &'static Self {
        static OF_ONE: LazyLock<Cache> = LazyLock::new(|| {
            let cache = Cache::empty();
            cache.build(&[]);
            // SAFETY: `remove` is a function that any thread may call at the end.
            unsafe { libc::atexit(remove) };
            cache
        });
        extern "C" fn remove() {
            fs::remove_dir_all(&OF_ONE.0).unwrap_or_default();
        }
        &OF_ONE
    }

    /// Returns a cache with the templates of usual runs of all languages in it, for tests that leave it as
    /// it is.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Cache> = LazyLock::new(|| {
            let cache = Cache::copied();
            cache.build(&["--lang", "bash"]);
            // SAFETY: `remove` is a function that any thread may call at the end.
            unsafe { libc::atexit(remove) };
            cache
        });
        // Nothing else would: statics are not dropped.
        extern "C" fn remove() {
            let kinds = SHARED.kinds();
            fs::remove_dir_all(&SHARED.0).unwrap_or_default();
            if kinds != ["erofs", "lock", "lock", "template", "template"] {
                eprintln!("a test changed the cache that all share: {kinds:?}");
                std::process::abort();
            }
        }
        &SHARED
    }

    /// Returns a copy of the shared cache, for tests that add templates, such as those of another
    /// memory size.
    pub fn growing() -> &'static Self {
        static GROWING: LazyLock<Cache> = LazyLock::new(|| {
            let cache = Cache::copied();
            // SAFETY: `remove` is a function that any thread may call at the end.
            unsafe { libc::atexit(remove) };
            cache
        });
        extern "C" fn remove() {
            fs::remove_dir_all(&GROWING.0).unwrap_or_default();
        }
        &GROWING
    }

    /// Makes a copy of the cache with one template, which a test may change.
    pub fn copied() -> Self {
        let cache = Self::empty();
        copy(&Self::of_one().0.path().join("sandbox"), cache.0.path());
        cache
    }

    /// Builds a template now.
    fn build(&self, options: &[&str]) {
        let mut command = self.sandbox(&["template", "build"]);
        let output = finish(command.args(options), b"");
        assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    }

    /// Returns a command in an environment where `sandbox` finds this cache, and no options.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for option in ["FRESH", "VERIFY", "MEMORY", "PIDS_LIMIT"] {
            command.env_remove(format!("SANDBOX_{option}"));
        }
        command
            .env("SANDBOX_TIMEOUT", "300")
            .env("XDG_CACHE_HOME", self.0.path());
        command
    }

    pub fn sandbox(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&binary());
        command.args(arguments);
        command
    }

    /// Does a `sandbox run` of this code.
    pub fn run(&self, options: &[&str], code: &str) -> Output {
        let mut command = self.sandbox(&["run"]);
        finish(command.args(options).args(["-c", code]), b"")
    }

    /// Returns the lines of `sandbox template list`, which fails if one is refused.
    pub fn list(&self, options: &[&str]) -> Vec<String> {
        let output = finish(self.sandbox(&["template", "list"]).args(options), b"");
        let stdout = text(&output.stdout);
        let code = if stdout.contains("  refused: ") {
            125
        } else {
            0
        };
        assert_eq!(exit_code(output.status), code, "{}", text(&output.stderr));
        stdout.lines().map(str::to_string).collect()
    }

    /// Returns how long the build of the only template took.
    pub fn build_time(&self) -> Duration {
        let lines = self.list(&[]);
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        let (_, seconds) = line.split_once("built in ").unwrap();
        Duration::from_secs_f64(seconds.split_once(" s").unwrap().0.parse().unwrap())
    }

    /// Returns the directory of templates.
    pub fn templates(&self) -> PathBuf {
        self.0.path().join("sandbox/templates")
    }

    /// Returns the file of the only template.
    pub fn template(&self) -> PathBuf {
        self.only("template")
    }

    /// Returns the file of the runtime image.
    pub fn image(&self) -> PathBuf {
        self.only("erofs")
    }

    fn only(&self, extension: &str) -> PathBuf {
        let mut files = files(self.0.path());
        files.retain(|path| path.extension().is_some_and(|its| its == extension));
        let [path] = &files[..] else {
            panic!("{files:?}")
        };
        path.clone()
    }

    /// Returns the file in which the verdict on this host is remembered.
    pub fn verdict(&self) -> PathBuf {
        self.0.path().join("sandbox").join(verdicts::NAME)
    }

    /// Returns all files of the cache except the verdict on the host, which any run may write anew.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = files(self.0.path());
        files.retain(|path| *path != self.verdict());
        files
    }

    /// Returns the kinds of files in the cache, which are the endings of their names.
    pub fn kinds(&self) -> Vec<String> {
        let files = self.files();
        let names = files.iter().map(|path| path.file_name().unwrap());
        let mut kinds: Vec<_> = names
            .map(|name| name.to_str().unwrap().rsplit('.').next().unwrap().into())
            .collect();
        kinds.sort();
        kinds
    }

    /// Returns the identities of all of [`Self::files`].
    pub fn identities(&self) -> BTreeSet<Identity> {
        let identity = |path: PathBuf| {
            let metadata = path.symlink_metadata().unwrap();
            (path, metadata.ino(), metadata.len(), metadata.ctime_nsec())
        };
        self.files().into_iter().map(identity).collect()
    }

    /// Returns the command lines of the processes that have this cache in their environment.
    pub fn processes(&self) -> Vec<String> {
        let here = self.0.path().to_str().unwrap();
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let entry = entry.unwrap().path();
            // They end while we look.
            let environment = fs::read(entry.join("environ")).unwrap_or_default();
            if text(&environment).contains(here) {
                let words = fs::read(entry.join("cmdline")).unwrap_or_default();
                processes.push(format!("{}: {}", entry.display(), text(&words)));
            }
        }
        processes
    }
}

/// Returns all files in a directory and its subdirectories.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// Copies a file, or a directory into another, with modes, times and holes.
pub fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.args(["--archive", "--sparse=always", "--reflink=auto"]);
    assert!(command.arg(from).arg(to).status().unwrap().success());
}
