//! Limits hold whatever the program does, and the output that it wrote before is delivered.

use crate::agent::ANSWER_TIMEOUT;
use crate::common::{enough_to_start, exit_code, finish, run, sandbox, start, text};
use crate::files::Here;
use crate::record::read;
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::Pid;
use sandbox::internals::record::Status;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Output;
use std::time::{Duration, Instant};

/// Returns the time that the program had, as `--verbose` reports it.
fn program_time(output: &Output) -> Duration {
    let stderr = text(&output.stderr);
    let seconds = stderr
        .split_once(", program ")
        .and_then(|(_, rest)| rest.split_once(" s"))
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or_else(|| panic!("no time in {stderr}"));
    Duration::from_secs_f64(seconds)
}

/// Checks that a run was stopped at the limit: not before, and not much later. `scripts/bench
/// bounds` measures how late.
fn assert_stopped_at(limit: &str, output: &Output) {
    let limit = Duration::from_secs(limit.parse().unwrap());
    let noise = Duration::from_secs(60);
    let time = program_time(output);
    assert_eq!(exit_code(output.status), 124, "{}", text(&output.stderr));
    assert!((limit..limit + noise).contains(&time), "{time:?}");
    assert!(
        text(&output.stderr).contains("time limit of"),
        "{}",
        text(&output.stderr)
    );
}

fn run_for(limit: &str, code: &str) -> Output {
    run(&["--verbose", "-t", limit], code)
}

#[test]
fn a_busy_loop_is_stopped_and_its_output_delivered() {
    let code = "print('before', flush=True)\nwhile True: pass";
    let output = run_for(enough_to_start(), code);
    assert_stopped_at(enough_to_start(), &output);
    assert_eq!(text(&output.stdout), "before\n");
}

#[test]
fn a_sleeper_is_stopped() {
    let code = "import time; print('sleeping', flush=True); time.sleep(1000)";
    let output = run_for(enough_to_start(), code);
    assert_stopped_at(enough_to_start(), &output);
    assert_eq!(text(&output.stdout), "sleeping\n");
}

#[test]
fn a_limit_before_the_interpreter_is_up_holds_too() {
    assert_stopped_at("1", &run_for("1", "import time; time.sleep(1000)"));
}

/// Were it not so, a program with half of the time that files take would be stopped as soon as it begins.
#[test]
fn files_that_go_in_do_not_count_against_the_time_limit() {
    let here = Here::new();
    fs::create_dir(here.path("many")).unwrap();
    for number in 0..10_000 {
        here.write(&format!("many/{number}"), b"x");
    }
    // The guest mounts the first, which takes its time before there is a machine. It makes the second one by one.
    for put in ["many", "many:/tmp"] {
        let run = |limit: f64, code: &str| {
            let options = ["--put", put, "--json", "-t", &format!("{limit}ms")];
            read(&here.run(&options, code).stdout)
        };
        let took = run(0.0, "pass").timings_ms;
        let longest = took.setup.max(took.total - took.setup - took.teardown);
        let limit = (longest / 2.0).floor();
        // Half of it is more than the moment that a program has at its limit to give out what it holds.
        let code = format!(
            "import time; time.sleep({limit} / 2000); print('up', flush=True)\nwhile True: pass"
        );
        let works = || {
            let record = run(limit, &code);
            assert_eq!(record.status, Status::Timeout);
            assert!(record.timings_ms.guest.unwrap() >= limit, "{record:?}");
            record.stdout.as_deref() == Some("up\n")
        };
        // A program may need more than that on a busy machine, but not always.
        assert!((0..20).any(|_| works()), "{put} {limit}");
    }
}

#[test]
fn a_fork_bomb_is_stopped_and_held_to_its_processes() {
    let code = "
import os
while True:
    try: os.fork()
    except BlockingIOError: os.write(1, b'no more\\n'); break
while True: pass
";
    let limit = enough_to_start();
    let output = run(&["--verbose", "-t", limit, "--pids-limit", "8"], code);
    assert_stopped_at(limit, &output);
    assert!(text(&output.stdout).starts_with("no more\n"), "{output:?}");
}

#[test]
fn a_program_that_ignores_all_signals_is_stopped() {
    let code = "
import signal
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}: signal.signal(number, signal.SIG_IGN)
print('deaf', flush=True)
while True: pass
";
    let output = run_for(enough_to_start(), code);
    assert_stopped_at(enough_to_start(), &output);
    assert_eq!(text(&output.stdout), "deaf\n");
}

#[test]
fn a_reader_of_input_that_never_ends_is_stopped() {
    let code = "import sys; print('reading', flush=True); sys.stdin.read()";
    let mut child = start(&mut sandbox(&[
        "run",
        "--verbose",
        "-t",
        enough_to_start(),
        "-c",
        code,
    ]));
    let held_open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held_open);
    assert_stopped_at(enough_to_start(), &output);
    assert_eq!(text(&output.stdout), "reading\n");
}

#[test]
fn a_program_that_eats_its_memory_is_killed_and_told_why() {
    let output = run(
        &["-m", "128M"],
        "x = []\nwhile True: x.append(b'x' * (1 << 20))",
    );
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 137, "{stderr}");
    assert!(
        stderr.contains("ran out of the 128 MiB of memory"),
        "{stderr}"
    );
    assert!(stderr.contains("--memory 256M"), "{stderr}");
}

#[test]
fn a_request_for_more_memory_than_hosts_have_fails_as_in_python() {
    let output = run(&["-m", "128M"], "b = bytearray(64 << 30)");
    assert_eq!(exit_code(output.status), 1);
    assert!(
        text(&output.stderr).ends_with("MemoryError\n"),
        "{output:?}"
    );
}

#[test]
fn output_is_cut_at_the_limit_and_the_cut_is_told() {
    let code = "import sys; sys.stdout.write('a' * 100000); sys.stderr.write('b' * 99)";
    let output = run(&["--max-output", "1000"], code);
    let stderr = text(&output.stderr);
    assert_eq!(text(&output.stdout), "a".repeat(1000));
    assert!(stderr.starts_with(&"b".repeat(99)), "{stderr}");
    assert!(
        stderr.contains("standard output was cut at 1000 of 100000 bytes"),
        "{stderr}"
    );
    assert!(!stderr.contains("standard error was cut"), "{stderr}");
    assert_eq!(exit_code(output.status), 0);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_as_it_ends_a_pipeline() {
    let code = "
import sys
while True: sys.stdout.write('y\\n' * 10000)
";
    let mut child = start(&mut sandbox(&["run", "-c", code]));
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    assert_eq!(line, "y\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!(exit_code(output.status), 141);
    assert_eq!(text(&output.stderr), "");
}

/// Sends the signal once the program is up; returns the exit code.
fn interrupted_by(signal: Signal) -> i32 {
    let code = "print('up', flush=True)\nwhile True: pass";
    let mut child = start(&mut sandbox(&["run", "-c", code]));
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    kill(pid, signal).unwrap();
    exit_code(child.wait().unwrap())
}

#[test]
fn ctrl_c_ends_the_run() {
    assert_eq!(interrupted_by(Signal::SIGINT), 130);
}

#[test]
fn sigterm_ends_the_run() {
    assert_eq!(interrupted_by(Signal::SIGTERM), 143);
}

#[test]
fn a_signal_during_the_boot_ends_the_run() {
    let code = "import time; time.sleep(100)";
    let mut child = start(&mut sandbox(&["run", "--fresh", "-c", code]));
    std::thread::sleep(Duration::from_secs(1));
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(exit_code(child.wait().unwrap()), 130);
}

#[test]
fn guest_root_that_brings_its_machine_down_gets_an_outcome() {
    // The sleep is for the agent, which has to pass the output on while there is a machine.
    let sysrq = |key: &str| {
        format!(
            "import time; print('doing it', flush=True); time.sleep(1)
open('/proc/sysrq-trigger', 'w').write('{key}'); time.sleep(1000)"
        )
    };
    let reboot = "import ctypes; ctypes.CDLL(None).reboot(0x01234567)";
    for (code, told) in [
        (sysrq("c"), "its kernel panicked or rebooted"),
        (sysrq("b"), "its kernel panicked or rebooted"),
        (sysrq("o"), "it shut itself down"),
        (reboot.into(), "it shut itself down"),
    ] {
        let output = finish(&mut sandbox(&["run", "--root", "-c", &code]), b"");
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{code}: {stderr}");
        assert!(stderr.contains(told), "{code}: {stderr}");
        if code.contains("doing it") {
            assert_eq!(text(&output.stdout), "doing it\n", "{code}");
        }
    }
}

/// A parent may have blocked the signal with which our threads wake each other.
#[test]
fn a_limit_holds_though_all_signals_are_blocked() {
    use nix::sys::signal::SigSet;
    use std::os::unix::process::CommandExt;
    let mut command = sandbox(&["run", "--verbose", "-t", "1", "-c", "while True: pass"]);
    // SAFETY: sigprocmask(2) is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(SigSet::all().thread_block()?)) };
    assert_stopped_at("1", &finish(&mut command, b""));
}

#[test]
fn output_that_cannot_be_written_is_an_error_of_ours() {
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = sandbox(&["run", "-c", "print('lost')"])
        .stdout(full)
        .output()
        .unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    assert!(stderr.contains("No space left on device"), "{stderr}");
}

#[test]
fn a_policys_limit_of_code_is_for_arguments_and_variables_too() {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.toml");
    std::fs::write(&policy, "[run]\ncode = '1K'").unwrap();
    let long = "x".repeat(2000);
    for (options, told) in [
        (
            &["-c", "pass", &long][..],
            "code 4, arguments 2001, variables 0",
        ),
        (
            &["-e", &format!("A={long}"), "-c", "pass"],
            "code 4, arguments 0, variables 2003",
        ),
    ] {
        let mut command = sandbox(&["run", "--policy"]);
        let output = finish(command.arg(&policy).args(options), b"");
        let stderr = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{stderr}");
        assert!(
            stderr.contains("run.code allows at most 1024 bytes"),
            "{stderr}"
        );
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[test]
fn confinement_that_is_off_is_told_beside_a_record() {
    let output = run(&["--json", "--confine=off"], "pass");
    assert_eq!(exit_code(output.status), 0);
    assert!(text(&output.stderr).contains("--confine=off"), "{output:?}");
}

/// This is for the host that scripts/test-hardware-host emulates.
#[test]
#[ignore = "it sets the clock of its host"]
fn a_clock_that_is_set_changes_no_limit_and_no_log() {
    const LIMIT: Duration = Duration::from_secs(5);
    const HOUR: i64 = 3600;
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.jsonl");
    let log = log.to_str().unwrap();
    for step in [
        HOUR,
        -HOUR,
        24 * HOUR,
        -24 * HOUR,
        10_000 * HOUR,
        -10_000 * HOUR,
    ] {
        let began = Instant::now();
        let code = "print('begun', flush=True)\nwhile True: pass";
        let mut run = start(&mut sandbox(&[
            "run", "--audit", log, "-t", "5", "-c", code,
        ]));
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "begun\n");
        step_clock(step);
        let status = run.wait().unwrap();
        assert_eq!(exit_code(status), 124, "{step}");
        let took = began.elapsed();
        assert!(
            (LIMIT..LIMIT + ANSWER_TIMEOUT).contains(&took),
            "{step}: {took:?}"
        );
    }
    let verified = finish(&mut sandbox(&["audit", "verify", log]), b"");
    assert_eq!(exit_code(verified.status), 0, "{}", text(&verified.stderr));
}

/// Sets the clock by this many seconds, forwards or backwards.
fn step_clock(seconds: i64) {
    let now = ClockId::CLOCK_REALTIME.now().unwrap();
    let then = now + TimeSpec::new(seconds, 0);
    clock_settime(ClockId::CLOCK_REALTIME, then).unwrap();
}
