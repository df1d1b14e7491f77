//! Files that do not come, or not completely: each is reported, and nothing else is touched.

use crate::common::{enough_to_start, exit_code, finish, start, text};
use crate::files::{Here, eventually, tree};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[test]
fn what_cannot_be_put_is_refused_before_a_machine_is_made() {
    let here = Here::new();
    mkfifo(&here.path("fifo"), Mode::S_IRWXU).unwrap();
    fs::File::create(here.path("large"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    // No machine could be made.
    let fail = |options: &[&str], told| {
        let options = [&["-m", "256M"], options].concat();
        let mut command = here.command(&options, "");
        let output = finish(command.env("SANDBOX_KVM", "/dev/null"), b"");
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert!(stderr.contains(told), "{stderr}");
    };
    fail(
        &["--put", "large:/tmp/large"],
        "1024 MiB of files do not fit in a guest with 256 MiB",
    );
    fail(&["--put", "large:/tmp/large"], "--memory 2304M");
    fail(&["--put", "fifo"], "fifo is neither a file nor a directory");
    fail(&["--put", "missing"], "there is no missing");
    fail(&["--put", "large:../x"], "goes up with ..");
    fail(&["--get", "a:missing/b"], "there is no directory missing");
    fail(&["--get", "a:large"], "large is there already");
}

#[test]
fn files_that_the_guest_cannot_make_are_an_error_with_a_remedy() {
    let here = Here::new();
    here.write("a", b"x");
    let code = "open('a')";
    here.fail(
        &["--put", "a:/usr/a"],
        code,
        "all else in the guest is read-only",
    );
    here.fail(&["--put", "a", "--put", "a"], code, "a path of its own");
    here.fail(
        &["-w", "/etc/passwd"],
        code,
        "no directory /etc/passwd in the guest",
    );
}

#[test]
fn no_force_replaces_a_device_a_pipe_or_a_socket() {
    let here = Here::new();
    mkfifo(&here.path("fifo"), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(here.path("socket")).unwrap();
    for path in ["fifo", "socket"] {
        let get = format!("a:{path}");
        let mut command = here.command(&["--force", "--get", &get], "open('a', 'w')");
        let output = finish(&mut command, b"");
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert!(stderr.contains("which is never replaced"), "{stderr}");
        let there = fs::symlink_metadata(here.path(path)).unwrap();
        assert!(!there.is_file(), "{path}");
    }
}

#[test]
fn what_is_on_the_host_is_not_replaced_without_force() {
    let here = Here::new();
    here.write("out", b"old");
    here.write("target", b"old");
    symlink("target", here.path("link")).unwrap();
    let code = "print('ran'); open('out', 'w').write('new'); open('link', 'w').write('new')";
    let gets = ["--get", "out", "--get", "link"];
    let refused = here.run(&gets, code);
    assert_eq!(text(&refused.stdout), "", "{refused:?}");
    here.fail(&gets, code, "out is there already");
    assert_eq!(here.read("out"), b"old");
    assert_eq!(
        here.succeed(&[&gets[..], &["--force"]].concat(), code),
        "ran\n"
    );
    assert_eq!(here.read("out"), b"new");
    assert_eq!(here.read("link"), b"new");
    assert_eq!(here.read("target"), b"old");
}

#[test]
fn what_appears_on_the_host_meanwhile_is_not_replaced_either() {
    let here = Here::new();
    let code = "print('up', flush=True); input(); open('out', 'w').write('new')";
    let mut child = start(&mut here.command(&["--get", "out"], code));
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    here.write("out", b"old");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("out is there already"),
        "{output:?}"
    );
    assert_eq!(here.read("out"), b"old");
}

#[test]
fn a_program_that_is_stopped_leaves_nothing_and_that_is_told() {
    let here = Here::new();
    let code = "open('out', 'w').write('x'); print('up', flush=True)\nwhile True: pass";
    let output = here.run(&["-t", enough_to_start(), "--get", "out"], code);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 124, "{stderr}");
    assert!(
        stderr.contains("none of the program's files was fetched"),
        "{stderr}"
    );
    assert!(!here.has("out"));
}

#[test]
fn guest_root_gets_out_nothing_but_files() {
    let here = Here::new();
    let code = "
import os, socket, stat
os.makedirs('tree/kept')
os.mkfifo('tree/fifo')
os.mknod('tree/device', stat.S_IFCHR | 0o666, os.makedev(1, 5))
os.symlink('/', 'tree/root')
socket.socket(socket.AF_UNIX).bind('tree/socket')
open('tree/kept/run', 'w').write('x')
os.chmod('tree/kept/run', 0o6755)
if os.fork() == 0:
    os.setsid()
    while True: open('tree/growing', 'a').write('x' * 10000)
";
    let output = here.run(&["--root", "--get", "tree"], code);
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 0, "{stderr}");
    for name in ["fifo", "device", "root", "socket"] {
        assert!(stderr.contains(&format!("/work/tree/{name}\n")), "{stderr}");
        assert!(!here.has(&format!("tree/{name}")));
    }
    let run = here.path("tree/kept/run").metadata().unwrap();
    assert_eq!(run.permissions().mode(), 0o100_755);
}

#[test]
fn a_file_larger_than_the_guests_memory_is_refused() {
    let here = Here::new();
    let code = "open('small', 'w').write('x'); open('sparse', 'w').truncate(10 << 30)";
    here.fail(
        &["--get", "small", "--get", "sparse"],
        code,
        "more than 256 MiB of files",
    );
    assert_eq!(here.read("small"), b"x");
    assert!(!here.has("sparse"));
}

#[test]
fn guest_root_that_forges_the_stream_of_files_ends_its_machine() {
    let here = Here::new();
    let code = "
import ctypes, os, struct
reader, writer = os.pipe()
assert ctypes.CDLL(None).prctl(0x484f5301, writer, 3, 0, 0) == 0
os.write(writer, struct.pack('<IIQq', 1, 0o100644, 6, 0) + b'0forged')
";
    here.fail(
        &["--root", "--get", "out"],
        code,
        "files that nobody asked for",
    );
    here.fail(&["--root"], code, "output to stream 3");
    assert!(!here.has("out"));
}

#[test]
fn ctrl_c_while_files_are_fetched_leaves_no_half_file() {
    const SIZE: u64 = 400 << 20;
    let here = Here::new();
    let code = format!("open('out', 'w').truncate({SIZE})");
    let mut child = start(&mut here.command(&["-m", "512M", "--get", "out"], &code));
    while here.is_empty() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let out = here.path("out");
    let is_whole = || out.metadata().is_ok_and(|file| file.len() == SIZE);
    match exit_code(child.wait().unwrap()) {
        130 => eventually(|| here.is_empty() || is_whole(), "half a file is there"),
        // It was quicker.
        0 => assert!(is_whole()),
        other => panic!("{other}"),
    }
}

#[test]
fn a_run_that_is_not_confined_ends_in_time_and_leaves_no_process() {
    let here = Here::new();
    let began = Instant::now();
    let options = ["--confine=off", "-t", "2", "--get", "x"];
    let output = here.run(&options, "while True: pass");
    assert_eq!(exit_code(output.status), 124, "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(60));
    eventually(|| here.processes().is_empty(), "a process is left");
}

#[test]
fn a_limit_of_the_size_of_files_is_told_and_leaves_what_was_there() {
    let here = Here::new();
    here.write("out", b"old");
    let code = "open('small', 'w').write('x'); open('out', 'wb').write(b'x' * (8 << 20))";
    let gets = ["--force", "--get", "small", "--get", "out"];
    let command = here.command(&gets, code);
    let mut limited = Command::new("sh");
    // 4 MiB.
    limited.args(["-c", "ulimit -f 8192; exec \"$@\"", "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let output = finish(limited.current_dir(here.0.path()), b"");
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(
        stderr.contains("out cannot be written: File too large"),
        "{stderr}"
    );
    assert!(stderr.contains("ulimit -f"), "{stderr}");
    assert_eq!(here.read("out"), b"old");
    assert_eq!(here.read("small"), b"x");
    assert_eq!(tree(here.0.path()).len(), 3);
}

#[test]
fn a_program_keeps_its_output_when_the_writer_of_its_files_is_killed() {
    let here = Here::new();
    let code = "print('up', flush=True); input(); print('down')";
    let mut child = start(&mut here.command(&["--get", "out"], code));
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let run = child.id() as i32;
    for writer in here.processes().into_iter().filter(|&pid| pid != run) {
        kill(Pid::from_raw(writer), Signal::SIGKILL).unwrap();
    }
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert_eq!(text(&output.stdout), "down\n");
    assert!(
        stderr.contains("the process that writes the program's files was ended"),
        "{stderr}"
    );
}

#[test]
fn what_is_too_deep_for_a_path_is_told_and_the_rest_fetched() {
    let here = Here::new();
    let code = "
import os
os.mkdir('tree')
open('tree/a', 'w').write('x')
os.chdir('tree')
for _ in range(22):
    os.mkdir('d' * 200)
    os.chdir('d' * 200)
";
    here.fail(
        &["--get", "tree", "--get", "tree/a:b"],
        code,
        "File name too long",
    );
    assert_eq!(here.read("tree/a"), b"x");
    assert_eq!(here.read("b"), b"x");
}
