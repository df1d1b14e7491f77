//! Files go in and come out unchanged, and nothing else comes out.

use crate::common::{Cache, binary, exit_code, finish, said, sandbox, text};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A current directory for a test.
pub struct Here(pub TempDir);

impl Here {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    pub fn is_empty(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }

    /// Returns the processes that work here.
    pub fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let is_here = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|path| path == self.0.path())
        };
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(is_here).collect()
    }

    pub fn command(&self, options: &[&str], code: &str) -> Command {
        let mut command = sandbox(&["run"]);
        command.args(options).args(["-c", code]);
        command.current_dir(self.0.path());
        command
    }

    pub fn run(&self, options: &[&str], code: &str) -> Output {
        finish(&mut self.command(options, code), b"")
    }

    /// Does a run that must succeed without any message of ours.
    pub fn succeed(&self, options: &[&str], code: &str) -> String {
        let output = self.run(options, code);
        assert_eq!(said(&output), "");
        assert_eq!(exit_code(output.status), 0);
        text(&output.stdout)
    }

    /// Does a run that must fail with an exit code of ours and this text on standard error.
    pub fn fail(&self, options: &[&str], code: &str, told: &str) {
        let output = self.run(options, code);
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    }
}

pub fn eventually(holds: impl Fn() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{otherwise}");
        sleep(Duration::from_millis(10));
    }
}

/// Returns bytes without a pattern; all values are among them if there are enough.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

/// Returns everything below a directory: mode and content, which is the target for a link.
pub fn tree(top: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if metadata.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let mode = metadata.permissions().mode();
        found.insert(path.strip_prefix(top).unwrap().into(), (mode, content));
    }
    found
}

#[test]
fn files_of_any_size_go_in_and_come_out_byte_by_byte() {
    const MIB: usize = 1 << 20;
    let here = Here::new();
    fs::create_dir(here.path("in")).unwrap();
    for size in [0, 1, 4095, 4096, 4097, MIB - 1, MIB, MIB + 1, 64 * MIB] {
        here.write(&format!("in/{size}"), &noise(size));
    }
    here.write("in/values", &(0..=255).collect::<Vec<u8>>());
    let code = "import os; os.rename('in', 'moved'); print(len(os.listdir('moved')))";
    let options = ["-m", "320M", "--put", "in", "--get", "moved:out"];
    assert_eq!(here.succeed(&options, code), "10\n");
    assert!(tree(&here.path("in")) == tree(&here.path("out")));
}

#[test]
fn the_guest_sees_the_bytes_that_were_put() {
    let here = Here::new();
    here.write("data", &noise(3_000_001));
    let expected = Command::new("sha256sum")
        .arg(here.path("data"))
        .output()
        .unwrap();
    let code = "import hashlib; print(hashlib.sha256(open('data', 'rb').read()).hexdigest())";
    let sum = here.succeed(&["--put", "data"], code);
    assert!(text(&expected.stdout).starts_with(sum.trim()));
}

#[test]
fn a_tree_keeps_its_names_modes_and_empty_directories() {
    let here = Here::new();
    let top = here.path("tree");
    let long = "l".repeat(255);
    for directory in ["", "empty", "closed", "ünïcode ☃"] {
        fs::create_dir(top.join(directory)).unwrap();
    }
    let names = [
        &b"plain"[..],
        b"two words",
        b"new\nline",
        b"-rf",
        b"not \xff UTF-8",
        b"a:b",
        b"closed/in",
        long.as_bytes(),
    ];
    for (name, mode) in names
        .iter()
        .zip([0o644, 0o755, 0o600, 0o400, 0o444, 0o711, 0o644, 0o666])
    {
        let path = top.join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    fs::set_permissions(top.join("closed"), PermissionsExt::from_mode(0o555)).unwrap();
    fs::set_permissions(top.join("empty"), PermissionsExt::from_mode(0o700)).unwrap();
    let code = "
import os
for directory, _, names in os.walk('tree'):
    for path in [directory] + [os.path.join(directory, name) for name in names]:
        status = os.stat(path)
        assert status.st_uid == status.st_gid == 1000, path
        print(ascii(os.fsencode(path)), oct(status.st_mode))
";
    let seen = here.succeed(&["--put", "tree", "--get", "tree:back"], code);
    let expected = tree(&top);
    assert_eq!(seen.lines().count(), expected.len(), "{seen}");
    for (name, mode) in [
        ("tree/two words", 0o100_755),
        ("tree/closed", 0o40_555),
        ("tree/closed/in", 0o100_644),
    ] {
        assert!(seen.contains(&format!("b'{name}' {mode:#o}")), "{seen}");
    }
    // The umask of the tests may take write permissions of others; who fetched a directory can remove it.
    let mut back = tree(&here.path("back"));
    back.get_mut(Path::new(&long)).unwrap().0 |= 0o022;
    let closed = &mut back.get_mut(Path::new("closed")).unwrap().0;
    assert_eq!(*closed, 0o40_755);
    *closed = 0o40_555;
    assert_eq!(back, expected);
}

#[test]
fn links_in_a_tree_stay_links_and_are_left_out_on_the_way_back() {
    let here = Here::new();
    fs::create_dir(here.path("tree")).unwrap();
    here.write("tree/file", b"content");
    symlink("file", here.path("tree/link")).unwrap();
    symlink("/etc/shadow", here.path("tree/away")).unwrap();
    symlink("tree", here.path("top")).unwrap();
    let code = "
import os
print(os.readlink('top/link'), os.readlink('top/away'), open('top/link').read())
os.symlink('top', 'asked')
";
    let output = here.run(&["--put", "top", "--get", "asked:back"], code);
    assert_eq!(text(&output.stdout), "file /etc/shadow content\n");
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{stderr}");
    for link in ["/work/asked/link", "/work/asked/away"] {
        assert!(
            stderr.contains(&format!("left out, neither file nor directory: {link}\n")),
            "{stderr}"
        );
    }
    assert_eq!(here.read("back/file"), b"content");
    assert!(!here.has("back/link") && !here.has("back/away"));
}

#[test]
fn a_module_that_was_put_is_imported_even_one_named_like_the_librarys() {
    let here = Here::new();
    here.write("mine.py", b"what = 'mine'");
    here.write("colorsys.py", b"what = 'mine too'");
    here.write(
        "main.py",
        b"import mine, colorsys; print(mine.what, colorsys.what)",
    );
    let mut command = sandbox(&["run", "--put", ".", "main.py"]);
    let output = finish(command.current_dir(here.0.path()), b"");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(text(&output.stdout), "mine mine too\n");
}

/// This holds on a restored machine and on a booted one.
#[test]
fn a_program_runs_in_the_working_directory_that_it_was_given() {
    let here = Here::new();
    fs::create_dir(here.path("src")).unwrap();
    here.write("src/other.py", b"");
    here.write(
        "src/main.py",
        b"import os, sys, other; print(os.getcwd(), __file__, sys.path[0], os.environ['HOME'], os.listdir())",
    );
    for fresh in [&[][..], &["--fresh"]] {
        for (given, is) in [("a/b", "/work/a/b"), ("/tmp/x", "/tmp/x"), ("/tmp", "/tmp")] {
            let mut command = sandbox(&["run", "-w", given, "--put", "src/other.py:src/"]);
            command.args(fresh).arg("src/main.py");
            let output = finish(command.current_dir(here.0.path()), b"");
            assert_eq!(text(&output.stderr), "");
            let expected = format!("{is} {is}/src/main.py {is}/src /work ['src']\n");
            assert_eq!(text(&output.stdout), expected, "{fresh:?}");
        }
    }
}

#[test]
fn a_program_that_fails_leaves_its_files_and_its_own_exit_code() {
    let here = Here::new();
    let gets = ["--get", "report", "--get", "missing"];
    for (end, code) in [
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), 15)", 143),
        ("sys.exit()", 125),
    ] {
        let program = format!(
            "import os, sys; open('report', 'w').write('why'); print('x', flush=True); {end}"
        );
        let output = here.run(&gets, &program);
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), code, "{stderr}");
        assert_eq!(text(&output.stdout), "x\n");
        assert!(
            stderr.contains("not fetched: /work/missing: No such file or directory"),
            "{stderr}"
        );
        assert_eq!(here.read("report"), b"why");
        fs::remove_file(here.path("report")).unwrap();
    }
}

#[test]
fn files_are_nowhere_on_the_host_but_where_they_were_wanted() {
    let canary = format!("canary {}", std::process::id());
    let cache = Cache::shared();
    let (here, temporary) = (Here::new(), Here::new());
    here.write("in", canary.as_bytes());
    let before = cache.identities();
    let mut command = cache.command(&binary());
    command
        .args([
            "run",
            "--put",
            "in",
            "--get",
            "out",
            "-c",
            "import os; os.rename('in', 'out')",
        ])
        .current_dir(here.0.path())
        .env("TMPDIR", temporary.0.path());
    assert_eq!(exit_code(finish(&mut command, b"").status), 0);
    assert_eq!(here.read("out"), canary.as_bytes());
    assert_eq!(cache.identities(), before);
    assert_eq!(tree(temporary.0.path()).len(), 1);
    assert_eq!(tree(here.0.path()).len(), 3);
}

#[test]
fn a_gibibyte_goes_in_and_comes_out() {
    let here = Here::new();
    let part = noise(64 << 20);
    let mut file = fs::File::create(here.path("in")).unwrap();
    for _ in 0..16 {
        std::io::Write::write_all(&mut file, &part).unwrap();
    }
    let options = ["-m", "3G", "--put", "in:/tmp/in", "--get", "/tmp/in:out"];
    let size = here.succeed(&options, "import os; print(os.path.getsize('/tmp/in'))");
    assert_eq!(size, format!("{}\n", 1 << 30));
    let mut compare = Command::new("cmp");
    compare.arg(here.path("in")).arg(here.path("out"));
    assert!(compare.status().unwrap().success());
}

#[test]
fn what_matches_a_pattern_stays_on_the_host() {
    let here = Here::new();
    for directory in ["proj/.git", "proj/data", "proj/src/data"] {
        fs::create_dir_all(here.path(directory)).unwrap();
    }
    for file in [
        ".env",
        ".git/config",
        "a.csv",
        "data/b",
        "src/data/b",
        "src/keep.csv",
    ] {
        here.write(&format!("proj/{file}"), b"");
    }
    here.write("ignored", b"# comment\n*.csv\n!keep.csv\n");
    let code = "
import os
print(sorted(os.path.join(top, name)[2:] for top, _, names in os.walk('.') for name in names))
";
    let options = ["--put", "proj/.", "--exclude", ".*", "--exclude", "/data/"];
    let seen = here.succeed(
        &[&options[..], &["--exclude-from", "ignored"]].concat(),
        code,
    );
    assert_eq!(seen, "['src/data/b', 'src/keep.csv']\n");
    // A file that is named itself goes in.
    let seen = here.succeed(&["--put", "proj/a.csv", "--exclude", "*.csv"], code);
    assert_eq!(seen, "['a.csv']\n");
}

#[test]
fn a_colon_in_a_name_is_written_with_a_backslash() {
    let here = Here::new();
    here.write("log-12:00.csv", b"x");
    let options = ["--put", r"log-12\:00.csv", "--get", r"out-12\:30.txt"];
    let code = "import os; os.rename('log-12:00.csv', 'out-12:30.txt')";
    here.succeed(&options, code);
    assert_eq!(here.read("out-12:30.txt"), b"x");
}

#[test]
fn what_is_in_a_directory_is_fetched_into_one_that_is_there() {
    let here = Here::new();
    let code = "
import os
os.makedirs('out/sub')
for name in ['out/a', 'out/sub/b']: open(name, 'w').write(name)
";
    here.succeed(&["--get", "out/."], code);
    assert_eq!(here.read("out/sub/b"), b"out/sub/b");
    fs::create_dir(here.path("there")).unwrap();
    here.write("there/kept", b"kept");
    here.succeed(&["--get", "out/.:there"], code);
    assert_eq!(here.read("there/a"), b"out/a");
    assert_eq!(here.read("there/kept"), b"kept");
    here.fail(&["--get", "out/.:there"], code, "there already");
    here.succeed(&["--force", "--get", "out/.:there"], code);
    here.succeed(&["--get", "out/.:new"], code);
    assert_eq!(here.read("new/sub/b"), b"out/sub/b");
    here.succeed(&["--get", "."], code);
    assert_eq!(here.read("work/out/a"), b"out/a");
    here.fail(
        &["--get", "file/.:there"],
        "open('file', 'w')",
        "/work/file: not a directory",
    );
}
