//! Resources that a host may lack or lose during a run: descriptors, memory, readers, files, the
//! device, its clock. Each run ends with the right output, or with an exit code of ours and a
//! message that says what happened and what to do; never with a panic, a hang or a signal.

use crate::common::{Cache, PYTHON, binary, exit_code, finish, start, text};
use crate::faults::Expected::{Refused, Right};
use crate::faults::{PROGRAM, RUN, RUN_TIMEOUT, STDIN, assert_ended_as};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Does a run in a shell that executes this first.
fn run_after(shell: &str) -> Output {
    let script = format!("{shell}; exec timeout --signal=KILL {RUN_TIMEOUT} \"$0\" \"$@\"");
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

/// A reader that stops must not hold up the end, neither of its stream nor of the other.
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

/// Truncates a file of the cache, which is not writable.
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

/// The file is truncated when the machine is restored, when it waits, and in the midst of its work.
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

/// Makes a name for the device that can go away.
fn linked_device(directory: &Path) -> String {
    let link = directory.join("kvm");
    symlink("/dev/kvm", &link).unwrap();
    link.to_str().unwrap().into()
}

#[test]
fn a_device_that_vanishes_matters_to_the_next_run_alone() {
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

/// Limits go by a clock that nobody sets. If that clock has another offset, the limits are the
/// same, and the guest's wall clock is still the host's.
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
