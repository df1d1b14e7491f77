//! Sessions at a terminal: what is kept from cell to cell, what is told when it is not, and that nothing is left.

use crate::common::{Cache, exit_code, finish, start, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a process may take to be gone on a busy machine.
pub const WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A directory of sessions, which end with it.
pub struct Sessions(pub TempDir);

impl Sessions {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Makes it with a session `a`.
    pub fn with(options: &[&str]) -> Self {
        let sessions = Self::new();
        let started = sessions.ask(&[&["start", "a"], options].concat());
        assert_eq!(text(&started.stdout), "a\n", "{}", text(&started.stderr));
        sessions
    }

    /// Makes it with a session `a` of which the cache that all share has no template.
    pub fn of_another_kind(options: &[&str]) -> Self {
        let sessions = Self::new();
        let words = [&["session", "start", "a"], options].concat();
        let mut start = Cache::growing().sandbox(&words);
        let started = finish(start.env("XDG_RUNTIME_DIR", sessions.0.path()), b"");
        assert_eq!(text(&started.stdout), "a\n", "{}", text(&started.stderr));
        sessions
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Cache::shared().sandbox(&["session"]);
        command.args(arguments);
        command.env("XDG_RUNTIME_DIR", self.0.path());
        command
    }

    pub fn ask(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments), b"")
    }

    /// Runs a cell in `a`; returns its standard output.
    pub fn gives(&self, code: &str) -> String {
        let output = self.ask(&["run", "a", "-c", code]);
        let stderr = text(&output.stderr);
        assert_eq!(
            (exit_code(output.status), stderr.as_str()),
            (0, ""),
            "{code}"
        );
        text(&output.stdout)
    }

    /// Runs a cell in `a`; returns its record.
    pub fn record(&self, options: &[&str], code: &str) -> Value {
        let output = self.ask(&[&["run", "a", "--json", "-c", code], options].concat());
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        let schema = include_str!("../../docs/record.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        jsonschema::validate(&schema, &record).unwrap();
        record
    }

    /// Returns what is told about `a`.
    pub fn description(&self) -> Value {
        let output = self.ask(&["list", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn pid(&self) -> i32 {
        self.description()["pid"].as_i64().unwrap() as i32
    }

    pub fn socket(&self) -> PathBuf {
        self.0.path().join("sandbox/a.sock")
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.ask(&["stop", "--all"]);
    }
}

#[test]
fn variables_functions_and_files_are_kept_from_cell_to_cell() {
    let sessions = Sessions::with(&[]);
    assert_eq!(sessions.gives("x = 40\ndef f(): return x + 2"), "");
    assert_eq!(sessions.gives("print('from', f())"), "from 42\n");
    assert_eq!(sessions.gives("open('file', 'w').write('ü'); f()"), "42\n");
    assert_eq!(sessions.gives("open('file').read() + str(_)"), "'ü42'\n");
    assert_eq!(
        sessions.gives("print('no line feed', end=''); 1"),
        "no line feed\n1\n"
    );
}

#[test]
fn a_cell_is_told_as_a_run_is() {
    let sessions = Sessions::with(&[]);
    let record = sessions.record(&[], "print('out'); display({'a': 1}); 6 * 7");
    for (field, value) in [
        ("status", json!("exited")),
        ("exit_code", json!(0)),
        ("stdout", json!("out\n")),
        ("result", json!({"text/plain": "42"})),
        ("displays", json!([{"text/plain": "{'a': 1}"}])),
        ("session", json!("a")),
        ("state", json!("kept")),
        ("state_reason", Value::Null),
        ("path", json!("warm")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    let record = sessions.record(&[], "exit(7)");
    assert_eq!(
        (&record["exit_code"], &record["state"]),
        (&json!(7), &json!("kept"))
    );
}

#[test]
fn a_traceback_shows_the_lines_of_the_cells_that_it_names() {
    let sessions = Sessions::with(&[]);
    sessions.gives("def f():\n    return 1 / 0");
    for cell in [2, 3] {
        let record = sessions.record(&[], &format!("f()  # {cell}"));
        let exception = &record["exception"];
        assert_eq!(exception["type"], "ZeroDivisionError");
        let traceback = exception["traceback"].as_str().unwrap();
        for line in [
            &format!("File \"<cell {cell}>\", line 1, in <module>\n    f()  # {cell}\n"),
            "File \"<cell 1>\", line 2, in f\n    return 1 / 0\n",
        ] {
            assert!(traceback.contains(line), "{traceback}");
        }
        assert_eq!(record["stderr"], *traceback);
    }
}

#[test]
fn a_cell_over_its_time_is_interrupted_and_its_state_is_kept() {
    let sessions = Sessions::with(&["--grace", "300s"]);
    sessions.gives("x = 1");
    let code = "print('before', flush=True)\nwhile True: x += 1";
    let record = sessions.record(&["--timeout", "0.5"], code);
    assert_eq!(
        (&record["status"], &record["state"]),
        (&json!("timeout"), &json!("kept"))
    );
    assert_eq!(record["exception"]["type"], "KeyboardInterrupt");
    assert_eq!(record["stdout"], "before\n");
    assert_eq!(record["limits_hit"], json!(["timeout"]));
    assert_eq!(sessions.gives("x > 1"), "True\n");
    let output = sessions.ask(&[
        "run",
        "a",
        "--timeout",
        "0.2",
        "-c",
        "import time; time.sleep(900)",
    ]);
    assert_eq!(exit_code(output.status), 124);
}

#[test]
fn a_cell_that_no_interrupt_ends_costs_the_variables_but_not_the_files() {
    let sessions = Sessions::with(&["--grace", "200ms"]);
    sessions.gives("x = 1; open('file', 'w').write('kept')");
    let stubborn =
        "import time\nwhile True:\n    try: time.sleep(900)\n    except KeyboardInterrupt: pass";
    let record = sessions.record(&["--timeout", "0.2"], stubborn);
    assert_eq!(
        (&record["status"], &record["state"]),
        (&json!("timeout"), &json!("reset"))
    );
    let why = record["state_reason"].as_str().unwrap();
    assert!(why.contains("after it was interrupted"), "{why}");
    assert_eq!(
        sessions.gives("'x' in globals(), open('file').read()"),
        "(False, 'kept')\n"
    );
}

#[test]
fn what_ends_the_interpreter_is_told_and_the_session_goes_on() {
    let sessions = Sessions::with(&["--timeout", "300"]);
    for (code, status, why) in [
        ("import os; os._exit(3)", "exited", "exited with 3"),
        ("import os; os.kill(os.getpid(), 9)", "signaled", "signal 9"),
        (
            "import ctypes; ctypes.string_at(0)",
            "signaled",
            "signal 11",
        ),
        (
            "a = []\nwhile True: a.append(bytearray(1 << 20))",
            "oom",
            "memory ran out",
        ),
    ] {
        sessions.gives("x = 1; open('file', 'w').write('kept')");
        let record = sessions.record(&[], code);
        assert_eq!(
            (&record["status"], &record["state"]),
            (&json!(status), &json!("reset")),
            "{code}"
        );
        let told = record["state_reason"].as_str().unwrap();
        assert!(told.contains(why), "{told}");
        if status == "oom" {
            let remedy = record["error"]["remedy"].as_str().unwrap();
            assert!(remedy.contains("session start --memory"), "{remedy}");
        }
        assert_eq!(
            sessions.gives("'x' in globals(), open('file').read()"),
            "(False, 'kept')\n"
        );
    }
    let output = sessions.ask(&["run", "a", "-c", "import os; os._exit(4)"]);
    assert_eq!(exit_code(output.status), 4);
    let told = "sandbox: the interpreter's variables are gone, the session's files are there: the interpreter exited with 4\n";
    assert_eq!(text(&output.stderr), told);
}

#[test]
fn an_interpreter_that_ends_between_cells_is_told_with_the_next() {
    let sessions = Sessions::with(&[]);
    let later = "import os, threading\nthreading.Timer(0.05, os._exit, [5]).start()";
    sessions.gives(later);
    let record = || sessions.record(&[], "import time; time.sleep(0.1)");
    let end = Instant::now() + WAIT_TIMEOUT;
    let told = loop {
        let record = record();
        if record["state"] == "reset" || Instant::now() > end {
            break record;
        }
    };
    assert!(
        told["state_reason"]
            .as_str()
            .unwrap()
            .contains("exited with 5"),
        "{told}"
    );
    assert_eq!(record()["state"], "kept");
}

#[test]
fn input_has_an_end_in_an_interpreter_that_follows_another() {
    let sessions = Sessions::with(&[]);
    let given = |code: &str| text(&sessions.ask(&["run", "a", "-c", code]).stdout);
    for end in [
        "import os; os._exit(0)",
        "import signal; signal.raise_signal(9)",
    ] {
        given(end);
        assert_eq!(given("import sys; sys.stdin.read()"), "''\n");
    }
}

#[test]
fn a_fork_bomb_ends_with_its_cell() {
    let sessions = Sessions::with(&["--grace", "1s", "--pids-limit", "40"]);
    let record = sessions.record(
        &["--timeout", "1"],
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    );
    assert_eq!(record["status"], "timeout");
    // What interrupted children print may come with the next answer.
    let next = sessions.ask(&["run", "a", "-c", "1 + 1"]);
    assert_eq!(
        (exit_code(next.status), text(&next.stdout)),
        (0, "2\n".into())
    );
}

#[test]
fn input_is_for_one_cell_and_has_an_end() {
    let sessions = Sessions::with(&[]);
    let ask = |stdin: &[u8], code: &str| {
        let mut command = sessions.command(&["run", "a", "--stdin", "-", "-c", code]);
        text(&finish(&mut command, stdin).stdout)
    };
    let ends = "try: input()\nexcept EOFError: print('end')";
    assert_eq!(sessions.gives(ends), "end\n");
    assert_eq!(ask(b"one\ntwo\n", "print(input())"), "one\n");
    assert_eq!(sessions.gives(ends), "end\n");
    assert_eq!(
        ask(b"three\n", &format!("print(input())\n{ends}")),
        "three\nend\n"
    );
    let child = "import subprocess; print(subprocess.run(['cat'], capture_output=True).stdout)";
    assert_eq!(ask(b"four", child), "b'four'\n");
    // Which closes standard input.
    sessions.ask(&["run", "a", "-c", "exit()"]);
    assert_eq!(sessions.gives(ends), "end\n");
    assert_eq!(ask(b"five\n", "print(input())"), "five\n");
}

#[test]
fn threads_and_processes_go_on_between_cells() {
    let sessions = Sessions::with(&[]);
    let begin = "import subprocess, threading, time\n\
        now, later = threading.Event(), threading.Event()\n\
        def wait(): now.wait(); print('from a thread', flush=True); later.set()\n\
        threading.Thread(target=wait).start()\n\
        child = subprocess.Popen(['sleep', '900'])";
    sessions.gives(begin);
    let output = sessions.gives("now.set(); print(later.wait(300), child.poll()); child.kill()");
    assert!(
        output.contains("from a thread\n") && output.contains("True None\n"),
        "{output}"
    );
}

#[test]
fn ctrl_c_interrupts_the_cell_and_not_the_session() {
    let sessions = Sessions::with(&[]);
    let code = "import time\nx = 5; print('up', flush=True)\ntime.sleep(900)";
    let mut child = start(&mut sessions.command(&["run", "a", "-c", code]));
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 1, "{stderr}");
    assert!(stderr.ends_with("KeyboardInterrupt\n"), "{stderr}");
    assert_eq!(sessions.gives("x"), "5\n");
}

#[test]
fn another_verb_interrupts_the_cell_that_runs() {
    let sessions = Sessions::with(&[]);
    assert_eq!(exit_code(sessions.ask(&["interrupt", "a"]).status), 0);
    let code = "import time\nprint('up', flush=True)\ntime.sleep(900)";
    let mut child = start(&mut sessions.command(&["run", "a", "-c", code]));
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    assert_eq!(sessions.description()["cell"], 1);
    assert_eq!(exit_code(sessions.ask(&["interrupt", "a"]).status), 0);
    assert_eq!(exit_code(child.wait().unwrap()), 1);
}

#[test]
fn output_is_bounded_and_what_is_cut_is_told() {
    let sessions = Sessions::with(&["--max-output", "1000"]);
    let record = sessions.record(&[], "print('x' * 5000)");
    assert_eq!(
        record["stdout_bytes"],
        json!({"captured": 1000, "total": 5001, "omitted": 4001})
    );
    assert_eq!(record["stdout"], "x".repeat(1000));
    let output = sessions.ask(&["run", "a", "-c", "print('x' * 5000)"]);
    let told = "standard output was cut at 1000 of 5001 bytes\nsandbox: allow more with session start --max-output";
    assert!(text(&output.stderr).contains(told), "{output:?}");
    assert_eq!(sessions.gives("1"), "1\n");
}

#[test]
fn a_session_has_what_it_was_started_with() {
    let sessions = Sessions::new();
    let file = sessions.0.path().join("data.txt");
    fs::write(&file, "data").unwrap();
    let options = [
        "--env",
        "A=b",
        "--put",
        file.to_str().unwrap(),
        "--workdir",
        "/work/deep",
        "--memory",
        "200M",
    ];
    let output = sessions.ask(&[&["start", "a"], &options[..]].concat());
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let code = "import os; print(os.environ['A'], os.getcwd(), open('data.txt').read())";
    assert_eq!(sessions.gives(code), "b /work/deep data\n");
    sessions.ask(&["run", "a", "-c", "os._exit(1)"]);
    assert_eq!(sessions.gives(code), "b /work/deep data\n");
}

#[test]
fn a_session_that_reads_variables_when_it_starts_boots() {
    let sessions = Sessions::with(&["--env", "PYTHONHASHSEED=0"]);
    assert_eq!(sessions.record(&[], "1")["path"], "cold");
    assert_eq!(
        sessions.gives("import sys; sys.flags.hash_randomization"),
        "0\n"
    );
}
