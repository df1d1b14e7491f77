//! Standard input that is large, or cannot be read to its end.

use crate::common::*;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Output;

/// Runs code, or with "-" what comes through standard input, which is this file.
fn given(program: &[&str], stdin: OwnedFd) -> Output {
    let mut command = sandbox(&[&["run"], program].concat());
    let child = command.stdin(stdin).stdout(std::process::Stdio::piped());
    let child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.wait_with_output().unwrap()
}

const READS: [&str; 2] = ["-c", "import sys; print(len(sys.stdin.read()))"];

#[track_caller]
fn assert_refused(output: &Output, why: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    let told = format!("sandbox: standard input could not be read: {why}");
    assert!(stderr.contains(&told), "{stderr}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn what_cannot_be_read_is_no_empty_input() {
    for program in [READS.as_slice(), &["-"]] {
        assert_refused(
            &given(program, File::open("/").unwrap().into()),
            "Is a directory",
        );
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert_refused(&given(program, null.into()), "Bad file descriptor");
    }
}

/// A connection that its other end resets after a while.
fn reset_after(sent: &[u8]) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    ours.write_all(sent).unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let size = size_of::<libc::linger>() as u32;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
    // SAFETY: setsockopt(2) reads one linger, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            ours.as_raw_fd(),
            level,
            option,
            (&raw const linger).cast(),
            size,
        )
    };
    assert_eq!(result, 0);
    drop(ours);
    theirs
}

#[test]
fn an_input_that_is_cut_never_passes_for_a_whole_one() {
    for program in [READS.as_slice(), &["-"]] {
        let cut = reset_after(b"print('half of it')\n");
        assert_refused(&given(program, cut.into()), "Connection reset by peer");
    }
}

#[test]
fn input_of_any_size_is_passed_on_in_bounded_memory() {
    const SIZE: usize = 200 << 20;
    let code = "import hashlib, sys
digest, size = hashlib.sha256(), 0
while piece := sys.stdin.buffer.read(1 << 20): digest.update(piece); size += len(piece)
print(size, digest.hexdigest())";
    let mut child = start(&mut sandbox(&["run", "-m", "64M", "-c", code]));
    let mut stdin = child.stdin.take().unwrap();
    let piece: Vec<u8> = (0..1 << 20)
        .map(|number: u32| (number * 7 / 3) as u8)
        .collect();
    for _ in 0..SIZE / piece.len() {
        stdin.write_all(&piece).unwrap();
    }
    let peak = peak_of(child.id());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        text(&output.stdout).starts_with(&format!("{SIZE} ")),
        "{output:?}"
    );
    // The guest's memory, and what this process needs beside it.
    assert!(peak < 160 << 20, "{peak}");
}

/// Returns the most bytes of memory that a process has had so far.
fn peak_of(process: u32) -> u64 {
    let mut status = String::new();
    let path = format!("/proc/{process}/status");
    File::open(path)
        .unwrap()
        .read_to_string(&mut status)
        .unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn a_program_gets_its_input_from_its_pipe_alone() {
    let code = "import ctypes, os
kernel, bytes = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(16)
print(kernel.prctl(0x484f5305, bytes, 16, 0, 0), os.strerror(ctypes.get_errno()), input())";
    let output = finish(&mut sandbox(&["run", "-c", code]), b"data\n");
    assert_eq!(text(&output.stdout), "-1 Operation not permitted data\n");
}

#[test]
fn what_one_reader_leaves_the_next_one_gets() {
    let take = |size: u32| format!("dd bs={size} count=1 iflag=fullblock 2>/dev/null");
    let code = format!("{} | wc -c; sleep 0.1; {}; wc -c", take(100_001), take(3));
    let input = [&[b'x'; 100_001][..], b"abc", &[0; 3 << 20]].concat();
    for machine in [&[][..], &["--fresh"]] {
        let words = [&["run", "-l", "bash"], machine, &["-c", &code]].concat();
        let output = finish(&mut sandbox(&words), &input);
        let expected = format!("100001\nabc{}\n", 3 << 20);
        assert_eq!(text(&output.stdout), expected, "{machine:?}");
    }
}

/// Runs a program that reads nothing with no input and with some, and prints the page faults of the two
/// processes.
const COUNTS: &str = r#"
import os, subprocess, sys
def faults(path):
    with open(path) as stdin:
        child = subprocess.Popen([sys.argv[1], "run", "-c", "pass"], stdin=stdin)
        _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, status
    return usage.ru_minflt
print(min(faults("/dev/null") for _ in range(3)), min(faults("/etc/passwd") for _ in range(3)))
"#;

#[test]
fn pages_that_reading_writes_to_are_there_where_input_waits() {
    let mut python = std::process::Command::new(PYTHON);
    python.args(["-c", COUNTS, &binary()]);
    let output = finish(&mut python, b"");
    let told = text(&output.stdout);
    let faults: Vec<u64> = told.split_whitespace().flat_map(str::parse).collect();
    assert_eq!(faults.len(), 2, "{told}{}", text(&output.stderr));
    assert!(faults[1] >= faults[0] + 30, "{told}");
}
