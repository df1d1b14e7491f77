//! System calls of a run that fail, or do less than they were asked to. Each run ends with the
//! right output, or with an exit code of ours and a message that says what happened and what to do;
//! never with a panic, a hang or a signal.

use crate::common::{Cache, PYTHON, binary, exit_code, finish, text};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{PipeReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Output;

/// The arguments that run a program here.
pub const RUN: &[&str] = &["run"];

/// The seconds until `timeout` ends a run that hangs; the exit code is then 137.
pub const RUN_TIMEOUT: &str = "600";

/// A program that needs random numbers, reads standard input, and writes to both streams.
pub const PROGRAM: &str = "
import os, sys
sys.stderr.write(sys.stdin.read())
print(len(os.urandom(5000)))
";

pub const STDIN: &[u8] = b"given\n";

/// The way in which a run with this injected error may end; the right output and 0 are always fine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// The output is right.
    Right,
    /// The exit code is 125, or the output is right without a cache, with a sentence and a remedy.
    Refused,
    /// The exit code is 141.
    ReaderGone,
    /// The output is right for an empty standard input.
    NoInput,
    /// The exit code is 125, and the sentence was lost.
    Silenced,
}
use Expected::{NoInput, ReaderGone, Refused, Right, Silenced};

/// Errors that these system calls may give to a program on a host in trouble. futex(2) is not among
/// them: strace would skip wake-ups, which never fail. Nor is brk(2), which fails by returning the
/// old end.
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

/// Calls that are repeated if a signal interrupted them, or if there was nothing yet.
const RETRIED: [(&str, &str); 3] = [
    ("EINTR", "KVM_RUN"),
    ("EAGAIN", "KVM_RUN"),
    ("EINTR", "KVM_CREATE_VM"),
];

/// Does a run under strace, which writes its trace to `log`. It is not confined: strace makes a
/// call fail by replacing it with one that has no valid number, which kills.
fn traced(cache: &Cache, log: &Path, options: &[&str]) -> Output {
    let mut command = cache.command("timeout");
    command.args(["--signal=KILL", RUN_TIMEOUT, "strace", "-f", "-o"]);
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

/// Returns the occurrences of each system call in a thread that are worth a fault, from a trace of
/// a whole run. The libraries' calls before `main` are not ours; each thread counts for itself.
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

/// Checks that there is nothing but a part of the right output, and a message of ours that ends it.
fn is_told(output: &Output) -> bool {
    let stderr = text(&output.stderr);
    let stderr = stderr.strip_prefix("given\n").unwrap_or(&stderr);
    let said = stderr.lines().all(|line| line.starts_with("sandbox: "));
    said && stderr.lines().count() >= 2 && "5000\n".starts_with(&text(&output.stdout))
}

#[track_caller]
pub fn assert_ended_as(expected: Expected, output: &Output, what: &str) {
    let (code, stderr) = (exit_code(output.status), text(&output.stderr));
    let right = code == 0 && output.stdout == b"5000\n" && stderr == "given\n";
    let unsaved = code == 0
        && output.stdout == b"5000\n"
        && stderr.starts_with("sandbox: nothing is kept, ")
        && stderr.ends_with("\ngiven\n");
    let fine = match expected {
        Right => right,
        Refused => right || unsaved || code == 125 && is_told(output),
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

/// Short writes happen on a pipe that has no room for more bytes.
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

/// Returns a pipe from which each read gets a single byte of these (pipe(2), O_DIRECT).
fn byte_by_byte(bytes: &[u8]) -> PipeReader {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_DIRECT)).unwrap();
    let bytes = bytes.to_vec();
    // A reader that is gone shows in what it lacks.
    std::thread::spawn(move || bytes.chunks(1).try_for_each(|byte| writer.write_all(byte)));
    reader
}

/// Short reads of standard input, and of the files that options name.
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
