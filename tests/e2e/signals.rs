//! Signals to the sandbox: they reach the program first, which has a time to end by itself.

use crate::common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Output};
use std::time::Duration;

/// A program that has started, and what it says.
struct Started {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Started {
    /// Runs a program that says "up" once it waits for signals.
    fn new(options: &[&str], code: &str) -> Self {
        let mut arguments = vec!["run"];
        arguments.extend(options);
        arguments.extend(["-c", code]);
        let mut child = start(&mut sandbox(&arguments));
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut started = Self { child, lines };
        assert_eq!(started.line(), "up\n");
        started
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Returns the exit code, and the rest of the output.
    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        while self.lines.read_line(&mut rest).unwrap() > 0 {}
        (exit_code(self.child.wait().unwrap()), rest)
    }
}

const WAITS: &str = "
import atexit, time
atexit.register(print, 'atexit')
try:
    print('up', flush=True)
    time.sleep(300)
except KeyboardInterrupt:
    print('KeyboardInterrupt')
finally:
    print('finally')
";

/// Says which signals come, and lives on.
const SURVIVES: &str = "
import signal, time
for number in 1, 2, 3, 10, 12, 15:
    signal.signal(number, lambda number, frame: print('got', number, flush=True))
print('up', flush=True)
while True: time.sleep(300)
";

#[test]
fn an_interrupt_is_a_keyboard_interrupt_of_the_program() {
    for options in [[].as_slice(), &["--fresh"]] {
        let program = Started::new(options, WAITS);
        program.send(Signal::SIGINT);
        let rest = "KeyboardInterrupt\nfinally\natexit\n";
        assert_eq!(program.end(), (0, rest.into()), "{options:?}");
    }
}

#[test]
fn an_interrupt_that_the_program_does_not_catch_ends_it_as_it_would() {
    let code = "import time; print('up', flush=True); time.sleep(300)";
    let mut program = Started::new(&[], code);
    let stderr = program.child.stderr.take().unwrap();
    program.send(Signal::SIGINT);
    let told: Vec<_> = BufReader::new(stderr).lines().map(Result::unwrap).collect();
    assert_eq!(told.last().unwrap(), "KeyboardInterrupt", "{told:?}");
    assert_eq!(program.end().0, 130);
}

#[test]
fn the_handler_of_the_program_decides_how_it_ends() {
    for (signal, number) in [
        (Signal::SIGTERM, 15),
        (Signal::SIGHUP, 1),
        (Signal::SIGQUIT, 3),
    ] {
        let code = format!(
            "import signal, sys, time
signal.signal({number}, lambda *_: sys.exit(7))
print('up', flush=True)
time.sleep(300)"
        );
        let program = Started::new(&[], &code);
        program.send(signal);
        assert_eq!(program.end(), (7, String::new()), "{signal}");
    }
}

#[test]
fn a_trap_of_a_shell_gets_the_signal() {
    let code = "trap 'echo trapped; exit 5' TERM; echo up; while :; do :; done";
    let program = Started::new(&["-l", "bash"], code);
    program.send(Signal::SIGTERM);
    assert_eq!(program.end(), (5, "trapped\n".into()));
}

#[test]
fn a_program_that_stays_is_ended_after_its_grace() {
    let mut program = Started::new(&["--grace", "0.2"], SURVIVES);
    program.send(Signal::SIGTERM);
    assert_eq!(program.line(), "got 15\n");
    assert_eq!(program.end(), (143, String::new()));
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let mut program = Started::new(&["--grace", "1h"], SURVIVES);
    program.send(Signal::SIGTERM);
    assert_eq!(program.line(), "got 15\n");
    // Within a tenth of a second, it would be a repetition, as timeout(1) sends it.
    std::thread::sleep(Duration::from_millis(150));
    program.send(Signal::SIGINT);
    assert_eq!(program.end(), (130, String::new()));
}

#[test]
fn without_grace_a_signal_ends_the_run_at_once() {
    let program = Started::new(&["--grace", "0"], WAITS);
    program.send(Signal::SIGINT);
    assert_eq!(program.end(), (130, String::new()));
}

#[test]
fn the_signals_of_users_reach_the_program_and_end_nothing() {
    let mut program = Started::new(&[], SURVIVES);
    for (signal, line) in [(Signal::SIGUSR1, "got 10\n"), (Signal::SIGUSR2, "got 12\n")] {
        program.send(signal);
        assert_eq!(program.line(), line);
    }
    program.send(Signal::SIGURG);
    program.send(Signal::SIGKILL);
    assert_eq!(program.end(), (137, String::new()));
}

#[test]
fn a_record_says_that_the_run_was_cancelled_if_the_signal_ended_it() {
    for (code, status) in [
        ("", "cancelled"),
        ("signal.signal(15, lambda *_: exit(3))", "exited"),
    ] {
        let code = format!("import signal, time\n{code}\nprint('up', flush=True)\ntime.sleep(300)");
        let program = Started::new(&["--json-status-fd", "1"], &code);
        program.send(Signal::SIGTERM);
        let record: serde_json::Value = serde_json::from_str(&program.end().1).unwrap();
        assert_eq!(record["status"], status);
    }
}

/// Ways in which a program may pass its time at the limit.
const AT_THE_LIMIT: [&str; 5] = [
    "import time; time.sleep(300)",
    "while True: pass",
    "import threading; threading.Event().wait()",
    "import sys; sys.stdin.read()",
    "import os, subprocess; subprocess.run(['sleep', '300'])",
];

/// Returns the first of a few runs that is not short of what was held back: a busy host may leave the
/// interpreter too little time for it.
fn first_whole(run: impl Fn() -> Output) -> Output {
    let is_whole = |output: &Output| {
        let stdout = text(&output.stdout);
        stdout.contains("held back") || stdout.contains("step 2")
    };
    let mut output = run();
    for _ in 0..4 {
        if is_whole(&output) {
            break;
        }
        output = run();
    }
    output
}

#[test]
fn what_the_interpreter_held_back_at_the_limit_is_delivered() {
    for passes in AT_THE_LIMIT {
        let code = format!("import sys\nprint('held back'); sys.stderr.write('too')\n{passes}");
        let output = first_whole(|| {
            let mut child = start(&mut sandbox(&["run", "-q", "-t", "1", "-c", &code]));
            let stdin = child.stdin.take();
            let output = child.wait_with_output().unwrap();
            drop(stdin);
            output
        });
        assert_eq!(text(&output.stdout), "held back\n", "{passes}");
        assert_eq!(text(&output.stderr), "too", "{passes}");
        assert_eq!(exit_code(output.status), 124, "{passes}");
    }
}

#[test]
fn a_record_of_a_run_at_its_limit_has_what_was_held_back() {
    for options in [["--json", "-t1"].as_slice(), &["--json", "-t1", "--fresh"]] {
        let code = "for i in range(3): print('step', i)\nwhile True: pass";
        let output = first_whole(|| run(options, code));
        let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(record["status"], "timeout");
        assert_eq!(record["stdout"], "step 0\nstep 1\nstep 2\n", "{options:?}");
    }
}
