//! What goes wrong around a run: system calls that fail, scarce descriptors and memory, readers
//! that are slow or gone, files and devices that vanish. Each ends in the right output, or in an
//! exit code of ours with what happened and what to do; never in a panic, a hang or a signal.

use crate::common::{Cache, PYTHON, binary, exit_code, finish, start, text};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What runs a program here.
const RUN: &[&str] = &["run"];
/// Until `timeout` ends what hangs; then the exit code is 137.
const PATIENCE: &str = "600";
/// It needs random numbers, reads standard input, and writes to both streams.
const PROGRAM: &str = "
import os, sys
sys.stderr.write(sys.stdin.read())
print(len(os.urandom(5000)))
";
const STDIN: &[u8] = b"given\n";

/// How a run may end in which this error was injected; the right output and 0 are always fine.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    /// Right.
    Right,
    /// 125, with a sentence and a remedy.
    Refused,
    /// 141.
    ReaderGone,
    /// Right for an empty standard input.
    NoInput,
    /// 125, and the sentence was lost.
    Silenced,
}
use Expected::{NoInput, ReaderGone, Refused, Right, Silenced};

/// Errors that these system calls may give to a program on a host in trouble. Not futex(2):
/// strace would skip wake-ups, which never fail. Not brk(2), which fails by giving the old end.
const FAULTS: &[(&str, &str, Expected)] = &[
    ("openat", "EMFILE", Refused),
    ("openat", "ENFILE", Refused),
    ("openat", "ENOMEM", Refused),
    ("openat", "EIO", Refused),
    ("statx", "EACCES", Refused),
    ("statx", "ENOMEM", Refused),
    ("mkdir", "ENOSPC", Refused),
    ("mkdir", "EROFS", Refused),
    ("read", "EINTR", Right),
    ("read", "EIO", Refused),
    ("pread64", "EINTR", Right),
    ("write", "EINTR", Right),
    ("write", "EAGAIN", Right),
    ("write", "ENOSPC", Refused),
    ("write", "EIO", Refused),
    ("write", "EPIPE", ReaderGone),
    ("poll", "EINTR", Right),
    ("poll", "ENOMEM", Refused),
    ("getrandom", "EINTR", Right),
    ("getrandom", "EIO", Refused),
    ("ioctl", "EINTR", Refused),
    ("ioctl", "EAGAIN", Refused),
    ("ioctl", "ENOMEM", Refused),
    ("ioctl", "EIO", Refused),
    ("ioctl", "ENODEV", Refused),
    ("mmap", "ENOMEM", Refused),
    ("mmap", "EAGAIN", Refused),
    ("mprotect", "ENOMEM", Refused),
    ("madvise", "ENOMEM", Right),
    ("madvise", "EINVAL", Right),
    ("madvise", "EFAULT", Right),
    ("munmap", "ENOMEM", Right),
    ("close", "EINTR", Right),
    ("close", "EIO", Right),
    ("clone3", "EAGAIN", Refused),
    ("clone3", "ENOMEM", Refused),
    ("eventfd2", "EMFILE", Refused),
    ("signalfd4", "EMFILE", Refused),
    ("signalfd4", "ENOMEM", Refused),
    ("fcntl", "EMFILE", Refused),
];

/// Requests that go on where a signal interrupted them, or where there was nothing yet.
const RETRIED: [(&str, &str); 3] = [
    ("EINTR", "KVM_RUN"),
    ("EAGAIN", "KVM_RUN"),
    ("EINTR", "KVM_CREATE_VM"),
];

/// Under strace, which writes what it sees to `log`. Not confined: it makes a call fail by making
/// another of no number, which kills.
fn traced(cache: &Cache, log: &Path, options: &[&str]) -> Output {
    let mut command = cache.command("timeout");
    command.args(["--signal=KILL", PATIENCE, "strace", "-f", "-o"]);
    command.arg(log).args(options).arg(binary()).args(RUN);
    let mut output = finish(command.args(["--confine=off", "-c", PROGRAM]), STDIN);
    // That is told, unless that is what failed.
    let stderr = text(&output.stderr);
    let told = stderr
        .split_once('\n')
        .filter(|(line, _)| line.contains("--confine=off"));
    output.stderr = told.map_or(stderr.as_str(), |(_, rest)| rest).into();
    output
}

/// Which occurrences of a system call in a thread are worth a fault, from a trace of a whole run.
/// What the libraries do before `main` is not ours; each thread counts for itself.
fn occurrences(log: &str) -> BTreeMap<&str, BTreeSet<usize>> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut ours: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    let mut left_alone: BTreeMap<&str, usize> = BTreeMap::new();
    let mut begun = false;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, arguments)) = call.trim_start().split_once('(') else {
            continue;
        };
        let count = counts.entry((name, thread)).or_default();
        *count += 1;
        begun |= arguments.contains("/dev/kvm");
        // Without what is there, what is remembered of the host counts for nothing.
        if !begun || arguments.contains("/sys/module") {
            left_alone.insert(name, *count);
        }
        if begun && left_alone.get(name).is_none_or(|last| *count > *last) {
            ours.entry((name, thread)).or_default().push(*count);
        }
    }
    let mut chosen: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for ((name, _), counts) in ours {
        let few = [0, 1, counts.len() / 2, counts.len() - 1];
        let few = few.into_iter().filter_map(|index| counts.get(index));
        let chosen = chosen.entry(name).or_default();
        match name {
            "ioctl" => chosen.extend(counts.iter().take(40)),
            _ => chosen.extend(few),
        }
    }
    chosen
}

/// Nothing but a part of the right output, and a message of ours that ends it.
fn is_told(output: &Output) -> bool {
    let stderr = text(&output.stderr);
    let stderr = stderr.strip_prefix("given\n").unwrap_or(&stderr);
    let said = stderr.lines().all(|line| line.starts_with("sandbox: "));
    said && stderr.lines().count() >= 2 && "5000\n".starts_with(&text(&output.stdout))
}

#[track_caller]
fn assert_ended_as(expected: Expected, output: &Output, what: &str) {
    let (code, stderr) = (exit_code(output.status), text(&output.stderr));
    let right = code == 0 && output.stdout == b"5000\n" && stderr == "given\n";
    let fine = match expected {
        Right => right,
        Refused => right || code == 125 && is_told(output),
        ReaderGone => right || code == 141,
        Silenced => code == 125,
        NoInput => code == 0 && output.stdout == b"5000\n" && stderr.is_empty(),
    };
    assert!(fine, "{what}: {code}, {stderr}, {:?}", text(&output.stdout));
}

#[test]
fn each_system_call_of_a_run_may_fail() {
    let cache = Cache::shared();
    let before = cache.identities();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let read_log = || text(&fs::read(&log).unwrap());
    assert_ended_as(Right, &traced(cache, &log, &[]), "without a fault");
    let whole = read_log();
    let occurrences = occurrences(&whole);
    let mut injected = 0;
    for (call, errno, expected) in FAULTS {
        for when in occurrences.get(call).into_iter().flatten() {
            let inject = format!("--inject={call}:error={errno}:when={when}");
            let output = traced(cache, &log, &[&format!("--trace={call}"), &inject]);
            let log = read_log();
            let hit: Vec<_> = log.lines().filter(|l| l.contains("(INJECTED)")).collect();
            let is_retried = |line: &str| {
                let is = |&(its, call): &(&str, &str)| its == *errno && line.contains(call);
                RETRIED.iter().any(is)
            };
            let expected = match hit[..] {
                // The run did not come to it this time.
                [] => Right,
                [line] if is_retried(line) => Right,
                // What we say failed as well: each thread counts for itself.
                [_, line] if *expected == Refused && line.contains("write(2,") => Silenced,
                [line] if *errno == "EIO" && line.contains("read(0,") => NoInput,
                _ => *expected,
            };
            injected += usize::from(!hit.is_empty());
            assert_ended_as(expected, &output, &format!("{inject} {hit:?}"));
        }
    }
    println!("{injected} faults were injected");
    assert!(injected >= 250, "only {injected} faults were injected");
    assert_eq!(cache.identities(), before);
    assert!(!cache.list(&["--verify"])[0].contains("refused"));
    let output = cache.run(&[], "print('unharmed')");
    assert_eq!(text(&output.stdout), "unharmed\n");
}

/// Writes of fewer bytes than asked for, of a pipe that has no room for more.
#[test]
fn short_writes_lose_nothing() {
    let code = "import sys; sys.stdout.write(''.join(f'{n:07}\\n' for n in range(50_000)))";
    let expected: String = (0..50_000).map(|n| format!("{n:07}\n")).collect();
    let cache = Cache::shared();
    // A non-blocking pipe, as shells and servers hand on.
    let parent = "
import os, select, subprocess, sys
reader, writer = os.pipe(); os.set_blocking(writer, False)
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=writer); os.close(writer)
while piece := os.read(reader, 777): sys.stdout.write(piece.decode())
sys.exit(child.wait())
";
    let mut command = cache.command(PYTHON);
    command.args(["-c", parent, &binary()]).args(RUN);
    let output = finish(command.args(["-c", code]), b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout) == expected);
}

/// A pipe of which each read gets a single byte of this (pipe(2), O_DIRECT).
fn byte_by_byte(bytes: &[u8]) -> PipeReader {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_DIRECT)).unwrap();
    let bytes = bytes.to_vec();
    // A reader that is gone shows in what it lacks.
    std::thread::spawn(move || bytes.chunks(1).try_for_each(|byte| writer.write_all(byte)));
    reader
}

/// Of standard input, and of what options name.
#[test]
fn short_reads_lose_nothing() {
    let words = |first: char| -> String { (0..500).map(|n| format!("{first}{n} ")).collect() };
    let code = format!(
        "import os, sys; print(sys.stdin.read(), os.environ['A'], *sys.argv[1:], '{}', sep='|')",
        words('c')
    );
    let expected = ['s', 'e', 'a', 'c'].map(words).join("|") + "\n";
    let pipes = [code.clone(), format!("A={}", words('e')), words('a') + "\0"]
        .map(|content| byte_by_byte(content.as_bytes()));
    let mut command = Cache::shared().sandbox(RUN);
    for (option, pipe) in ["--code-file", "--env-file", "--args-file"]
        .iter()
        .zip(&pipes)
    {
        fcntl(pipe, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        command.arg(format!("{option}=/dev/fd/{}", pipe.as_raw_fd()));
    }
    command.stdin(byte_by_byte(words('s').as_bytes()));
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));

    let (code, expected) = (format!("print('{}')", words('c')), words('c') + "\n");
    let script = byte_by_byte(code.as_bytes());
    fcntl(&script, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let log = tempfile::tempdir().unwrap();
    let logged = format!("--audit={}", log.path().join("log").display());
    for arguments in [
        vec!["-".to_string()],
        // We read it ourselves then.
        vec![logged, "-".into()],
        vec![format!("/dev/fd/{}", script.as_raw_fd())],
    ] {
        let mut command = Cache::shared().sandbox(RUN);
        let stdin = byte_by_byte(code.as_bytes());
        let output = command.args(&arguments).stdin(stdin).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(text(&output.stdout), expected, "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_template_that_fails_to_be_written_leaves_nothing() {
    let shared = Cache::shared();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for (call, errno) in [
        ("pwrite64", "EIO"),
        ("fallocate", "ENOSPC"),
        ("fsync", "EIO"),
        ("rename", "EACCES"),
    ] {
        let cache = Cache::empty();
        fs::create_dir(cache.0.path().join("sandbox")).unwrap();
        for file in [shared.image(), shared.verdict()] {
            crate::common::copy(&file, &cache.0.path().join("sandbox"));
        }
        let inject = format!("--inject={call}:error={errno}:when=1");
        let output = traced(&cache, &log, &[&format!("--trace={call}"), &inject]);
        let log = text(&fs::read(&log).unwrap());
        assert!(log.contains("(INJECTED)"), "{call}: {log}");
        assert_eq!(exit_code(output.status), 125, "{call}: {output:?}");
        assert!(is_told(&output), "{call}: {output:?}");
        assert_eq!(cache.kinds(), ["erofs", "lock"], "{call}");
    }
}

/// A run in a shell that first says this.
fn run_after(shell: &str) -> Output {
    let script = format!("{shell}; exec timeout --signal=KILL {PATIENCE} \"$0\" \"$@\"");
    let mut command = Cache::shared().command("sh");
    command.args(["-c", &script, &binary()]).args(RUN);
    finish(command.args(["-c", PROGRAM]), STDIN)
}

#[test]
fn too_few_descriptors_are_told_wherever_they_run_out() {
    let mut refusals = BTreeSet::new();
    for descriptors in 4..40 {
        let what = format!("ulimit -n {descriptors}");
        let output = run_after(&what);
        // With fewer, timeout(1) itself does not start.
        assert_ended_as(Refused, &output, &what);
        if exit_code(output.status) == 125 {
            let stderr = text(&output.stderr);
            assert!(stderr.contains("ulimit -n"), "{what}: {stderr}");
            refusals.insert(stderr);
        }
    }
    assert!(refusals.len() > 5, "{refusals:?}");
    assert_ended_as(Right, &run_after("ulimit -n 40"), "enough");
}

#[test]
fn too_little_address_space_is_told() {
    for mebibytes in (60..480).step_by(12) {
        let what = format!("ulimit -v {}", mebibytes << 10);
        let output = run_after(&what);
        assert_ended_as(Refused, &output, &what);
        if exit_code(output.status) == 125 {
            let stderr = text(&output.stderr);
            assert!(stderr.contains("ulimit -v"), "{what}: {stderr}");
        }
    }
    assert_ended_as(Right, &run_after("ulimit -v 1000000"), "enough");
}

fn starts(arguments: &[&str], code: &str) -> Child {
    let mut command = Cache::shared().sandbox(RUN);
    start(command.args(arguments).args(["-c", code]))
}

#[test]
fn a_slow_reader_gets_everything() {
    let mut child = starts(&[], "print('x' * 200_000)");
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
        sleep(Duration::from_secs(1));
    }
    stdout.read_to_end(&mut bytes).unwrap();
    assert_eq!(text(&bytes), "x".repeat(200_000) + "\n");
    assert_eq!(exit_code(child.wait().unwrap()), 0);
}

/// A reader that stops must not hold up the end: neither its stream nor the other's.
#[test]
fn the_time_limit_holds_though_nobody_reads() {
    for stream in ["stdout", "stderr"] {
        let code = format!("import sys\nwhile True: sys.{stream}.write('y' * 9999 + '\\n')");
        let mut child = starts(&["-q", "-t", "5"], &code);
        let began = Instant::now();
        assert_eq!(exit_code(child.wait().unwrap()), 124, "{stream}");
        assert!(began.elapsed() < Duration::from_secs(60));
        let mut bytes = Vec::new();
        match stream {
            "stdout" => child.stdout.unwrap().read_to_end(&mut bytes).unwrap(),
            _ => child.stderr.unwrap().read_to_end(&mut bytes).unwrap(),
        };
        // What a pipe holds at most (pipe(7)).
        assert!(bytes.starts_with(b"yyyy"), "{stream}");
        assert!(bytes.len() <= 65_536, "{stream}: {}", bytes.len());
    }
}

#[test]
fn a_signal_ends_a_run_that_nobody_reads() {
    let mut child = starts(&[], "while True: print('y' * 9999)");
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 143);
}

#[test]
fn both_streams_in_a_pipe_that_nobody_reads_any_more() {
    for code in ["print(1)", "import sys; sys.stderr.write('x')"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Cache::shared().sandbox(RUN);
        command.args(["-c", code]).stdin(Stdio::null());
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(exit_code(command.status().unwrap()), 141, "{code}");
    }
}

#[test]
fn standard_streams_that_are_closed_are_empty_or_nowhere() {
    let script = "\"$0\" \"$@\" >&- 2>/dev/null && \"$0\" \"$@\" <&- >&- 2>&- && echo well";
    let mut command = Cache::shared().command("sh");
    command.args(["-c", script, &binary()]).args(RUN);
    let output = finish(command.args(["-c", PROGRAM]), STDIN);
    assert_eq!(text(&output.stdout), "well\n", "{output:?}");
}

#[test]
fn standard_input_that_cannot_be_read_is_empty() {
    let mut command = Cache::shared().sandbox(RUN);
    command.args(["-c", "import sys; print(repr(sys.stdin.read()))"]);
    let directory = fs::File::open("/").unwrap();
    let output = command.stdin(directory).output().unwrap();
    assert_eq!(text(&output.stdout), "''\n", "{output:?}");
    assert_eq!(exit_code(output.status), 0);
}

#[test]
fn a_terminal_that_hangs_up_is_an_output_that_cannot_be_written() {
    let parent = "
import os, pty, subprocess, sys
master, slave = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdin=slave, stdout=slave); os.close(slave)
seen = b''
while len(seen) < 4: seen += os.read(master, 4 - len(seen))
assert seen == b'up\\r\\n'; os.close(master)
sys.exit(child.wait())
";
    let code = "import sys\nprint('up', flush=True); sys.stdin.read(); print('lost')";
    let mut command = Cache::shared().command(PYTHON);
    command.args(["-c", parent, &binary()]).args(RUN);
    let output = finish(command.args(["-c", code]), b"");
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(stderr.contains("Input/output error"), "{stderr}");
}

/// Truncates a file of the cache, which may not be written to.
fn truncate(path: &Path, length: u64) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Starts the program and waits until it uses the cache's files as memory.
fn starts_from(cache: &Cache, code: &str) -> Child {
    let mut child = start(cache.sandbox(RUN).args(["-c", code]));
    let maps = format!("/proc/{}/maps", child.id());
    while !fs::read_to_string(&maps).unwrap().contains(".erofs") {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
    }
    child
}

#[track_caller]
fn assert_memory_lost(child: Child, already_read: &str, what: &str) {
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{what}: {stderr}");
    assert!(stderr.contains("was truncated while"), "{what}: {stderr}");
    assert!(stderr.contains("run it again"), "{what}: {stderr}");
    let stdout = format!("{already_read}{}", text(&output.stdout));
    let all: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert!(all.starts_with(&stdout), "{what}: {stdout}");
}

/// In the moments when its machine is restored, when it waits, and in the midst of its work.
#[test]
fn memory_that_is_truncated_under_a_run_ends_it_with_what_it_wrote_before() {
    let code = "
import importlib, os, sys
sys.stdin.readline()
for number, name in enumerate(sorted(sys.stdlib_module_names)):
    if name not in ('antigravity', 'this', 'idlelib'):
        try: importlib.import_module(name)
        except ImportError: pass
    print(number, flush=True)
while True: os.getppid()
";
    for length in [0, 5 << 20, 21 << 20] {
        for image in [false, true] {
            for lines in [None, Some(0), Some(20)] {
                let cache = Cache::copied();
                let (template, runtime) = (cache.template(), cache.image());
                let path = if image { runtime } else { template };
                let what = format!("{} to {length} at {lines:?}", path.display());
                let mut child = starts_from(&cache, code);
                let mut read = String::new();
                if let Some(lines) = lines {
                    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
                    let mut stdout = BufReader::new(child.stdout.as_mut().unwrap());
                    for _ in 0..lines {
                        stdout.read_line(&mut read).unwrap();
                    }
                    read += &text(stdout.buffer());
                }
                truncate(&path, length);
                assert_memory_lost(child, &read, &what);
                // The next run makes good what was lost.
                if lines.is_none() && length == 0 {
                    let output = cache.run(&[], "print('again')");
                    assert_eq!(text(&output.stdout), "again\n", "{what}: {output:?}");
                }
            }
        }
    }
}

#[test]
fn files_that_are_deleted_under_a_run_do_not_matter() {
    let cache = Cache::copied();
    let code = "import sys; sys.stdin.read(); import json, re, sqlite3; print('well')";
    let child = starts_from(&cache, code);
    fs::remove_dir_all(cache.0.path().join("sandbox")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "well\n", "{}", text(&output.stderr));
    assert_eq!(exit_code(output.status), 0);
}

/// The device under a name that can go.
fn linked_device(directory: &Path) -> String {
    let link = directory.join("kvm");
    symlink("/dev/kvm", &link).unwrap();
    link.to_str().unwrap().into()
}

#[test]
fn a_device_that_vanishes_under_a_run_does_not_matter_to_it_but_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let device = linked_device(directory.path());
    let code = "import sys; print('up', flush=True); sys.stdin.read(); import json; print('well')";
    let run = || {
        let mut command = Cache::shared().sandbox(&["--kvm", &device]);
        start(command.args(RUN).args(["-c", code]))
    };
    let mut child = run();
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 3])
        .unwrap();
    fs::remove_file(&device).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "well\n", "{}", text(&output.stderr));
    let output = run().wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("this host has no "),
        "{output:?}"
    );
}

#[test]
fn a_directory_is_not_a_device() {
    let output = finish(
        Cache::shared()
            .sandbox(&["--kvm", "/"])
            .args(RUN)
            .args(["-c", ""]),
        b"",
    );
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("/ is not a KVM device"),
        "{output:?}"
    );
}

/// Limits count by a clock that nobody sets. Where that clock is elsewhere they are the same, and
/// the guest's wall clock is the host's all the same.
#[test]
fn limits_and_clocks_hold_where_the_monotonic_clock_is_another() {
    let code = "import time; print(time.time(), flush=True)\nwhile True: pass";
    let mut command = Cache::shared().command("unshare");
    command.args(["--user", "--map-root-user", "--time"]);
    command.args(["--monotonic", "1000000", "--boottime", "1000000"]);
    command
        .arg(binary())
        .args(RUN)
        .args(["-t", "5", "-c", code]);
    let began = Instant::now();
    let output = finish(&mut command, b"");
    assert_eq!(exit_code(output.status), 124, "{}", text(&output.stderr));
    assert!((5..65).contains(&began.elapsed().as_secs()));
    let guest: f64 = text(&output.stdout).trim().parse().unwrap();
    let host = std::time::SystemTime::now();
    let host = host.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(
        (0.0..60.0).contains(&(host.as_secs_f64() - guest)),
        "{guest}"
    );
}
