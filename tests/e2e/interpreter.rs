//! The guest's reports on a program besides its output, and programs that are not Python.

use crate::common::{exit_code, finish, sandbox, text};
use crate::reference::reference;
use serde_json::{Value, json};
use std::process::Output;

/// Does a `sandbox run --json` with these options and words; returns the record.
pub(crate) fn record(words: &[&str], stdin: &[u8]) -> Value {
    let mut command = sandbox(&["run", "--json"]);
    let output = finish(command.args(words), stdin);
    let record = serde_json::from_slice(&output.stdout);
    record.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// Returns the record of a run of this code.
pub(crate) fn code(code: &str) -> Value {
    record(&["-c", code], b"")
}

/// Runs the image's python3 on the code, in a file; returns standard output, and standard error as if
/// the file had this name.
pub(crate) fn plain(code: &str, name: &str) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a file"), code).unwrap();
    let mut python = reference();
    let output = finish(python.arg("a file").current_dir(&directory), b"");
    let stderr = text(&output.stderr).replace(directory.path().to_str().unwrap(), "/work");
    (text(&output.stdout), stderr.replace("/work/a file", name))
}

/// Checks that the output, and the reported exception, are those of Python.
fn assert_told(program: &str, kind: &str, message: &str) {
    let (record, (stdout, stderr)) = (code(program), plain(program, "<code>"));
    assert_eq!(record["stdout"], stdout, "{program}");
    assert_eq!(record["stderr"], stderr, "{program}");
    let expected = json!({"type": kind, "message": message, "traceback": stderr});
    assert_eq!(record["exception"], expected, "{program}");
}

#[test]
fn an_exception_is_told_as_python_prints_it() {
    assert_told("1/0", "ZeroDivisionError", "division by zero");
    assert_told(
        "class E(Exception): pass\ndef f():\n try: [][0]\n except IndexError as e: raise E('ü\\n') from e\nf()",
        "__main__.E",
        "ü\n",
    );
    assert_told(
        "def f(): f()\nf()",
        "RecursionError",
        "maximum recursion depth exceeded",
    );
    assert_told(
        "class E(Exception):\n def __str__(self): 1/0\nraise E",
        "__main__.E",
        "<exception str() failed>",
    );
    assert_told(
        "import json\njson.loads('')",
        "json.decoder.JSONDecodeError",
        "Expecting value: line 1 column 1 (char 0)",
    );
    assert_told(
        "raise ExceptionGroup('a', [ValueError(1)])",
        "ExceptionGroup",
        "a (1 sub-exception)",
    );
    assert_told("if", "SyntaxError", "invalid syntax (<code>, line 1)");
}

#[test]
fn an_exception_is_told_wherever_the_program_came_from() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("utf8.py", "raise ValueError(7)"),
        ("cookie.py", "# coding: latin-1\nraise ValueError(7)"),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let record = record(&[path.to_str().unwrap()], b"");
        assert_eq!(record["exception"]["message"], "7", "{name}: {record}");
    }
    let record = record(&["-"], b"raise ValueError(7)");
    assert_eq!(record["exception"]["message"], "7", "{record}");
}

#[test]
fn an_exception_is_told_where_the_program_prints_it_itself() {
    let record = code("import sys\nsys.excepthook = lambda *a: print('mine')\n1/0");
    assert_eq!(record["stdout"], "mine\n");
    assert_eq!(record["stderr"], "");
    assert_eq!(record["exception"]["type"], "ZeroDivisionError");
    let record = code("import sys\nsys.stderr = None\n1/0");
    assert_eq!(record["exception"]["type"], "ZeroDivisionError");
}

#[test]
fn an_exception_that_is_long_is_told_in_part() {
    let record = code("raise ValueError('a' + 'b' * 1000000 + 'c')");
    let message = record["exception"]["message"].as_str().unwrap();
    assert!(message.starts_with("abb") && message.ends_with("bbc"));
    assert!(message.len() < 64 << 10, "{}", message.len());
}

#[test]
fn an_exit_is_no_exception() {
    for (program, status) in [
        ("raise SystemExit(3)", 3),
        ("import sys; sys.exit()", 0),
        ("import os; os._exit(4)", 4),
    ] {
        let record = code(program);
        assert_eq!(record["exit_code"], status, "{program}");
        assert_eq!(record["exception"], Value::Null, "{program}");
    }
}

#[test]
fn an_exception_in_another_process_is_not_told() {
    let record = code("import os\nif os.fork() == 0: 1/0\nos.wait()");
    assert!(
        record["stderr"]
            .as_str()
            .unwrap()
            .contains("ZeroDivisionError")
    );
    assert_eq!(record["exception"], Value::Null);
}

#[test]
fn the_last_expression_is_the_result_and_is_not_printed() {
    for (program, result) in [
        ("1 + 1", json!({"text/plain": "2"})),
        ("'a'", json!({"text/plain": "'a'"})),
        ("x = 2\nx", json!({"text/plain": "2"})),
        ("x = 2", Value::Null),
        ("None", Value::Null),
        ("for x in [1]:\n x", Value::Null),
        ("", Value::Null),
        (
            "from __future__ import annotations\n'ü'",
            json!({"text/plain": "'ü'"}),
        ),
    ] {
        let record = code(program);
        assert_eq!(record["result"], result, "{program}");
        assert_eq!(record["stdout"], "", "{program}");
        assert_eq!(record["exit_code"], 0, "{program}: {record}");
    }
}

#[test]
fn a_value_is_told_in_all_forms_that_it_offers() {
    let record = code(
        r#"
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>ü</b>', {'metadata': 1}
    def _repr_png_(self): return b'\x89PNG'
    def _repr_svg_(self): return '<svg/>'
    def _repr_json_(self): return {'a': [1, 2.5, None, 'ü']}
    def _repr_markdown_(self): raise ValueError
    def _repr_latex_(self): return None
    def _repr_jpeg_(self): return b'overridden'
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'text/plain': 'not this', 'image/jpeg': b'JPEG', 'application/x+json': [1], 5: 'no', 'text/x': 5}
Rich()
"#,
    );
    let expected = json!({
        "text/plain": "plain",
        "text/html": "<b>ü</b>",
        "image/png": "iVBORw==",
        "image/jpeg": "SlBFRw==",
        "image/svg+xml": "<svg/>",
        "application/json": {"a": [1, 2.5, null, "ü"]},
        "application/x+json": [1],
    });
    assert_eq!(record["result"], expected, "{record}");
    assert_eq!(record["limits_hit"], json!([]));
}

#[test]
fn what_answers_to_every_name_or_is_a_class_offers_nothing_but_text() {
    for (program, plain) in [
        (
            "class Any:\n def __getattr__(self, name): return lambda **o: 'x'\n def __repr__(self): return 'any'\nAny()",
            "any",
        ),
        (
            "class Some:\n def _repr_html_(self): return 'x'\nSome",
            "<class '__main__.Some'>",
        ),
        (
            "class Bad:\n def __repr__(self): 1/0\nBad()",
            "<Bad object, whose repr() raises ZeroDivisionError>",
        ),
    ] {
        let record = code(program);
        assert_eq!(record["result"], json!({"text/plain": plain}), "{record}");
        assert_eq!(record["exit_code"], 0);
    }
}

#[test]
fn what_is_displayed_is_told_in_its_order() {
    let record = code("display(1, 'a')\ndef f(): display(2.5)\nf()\nprint('out')");
    let expected = json!([{"text/plain": "1"}, {"text/plain": "'a'"}, {"text/plain": "2.5"}]);
    assert_eq!(record["displays"], expected);
    assert_eq!(record["stdout"], "out\n");
    assert_eq!(record["result"], Value::Null);
}

#[test]
fn what_a_display_is_ended_by_shows_no_frame_of_ours() {
    let program = "class A:\n def __repr__(self): raise KeyboardInterrupt\ndisplay(A())";
    let record = code(program);
    let expected = "Traceback (most recent call last):\n  File \"<code>\", line 3, in <module>\n    display(A())\n    ~~~~~~~^^^^^\nKeyboardInterrupt\n";
    assert_eq!(record["stderr"], expected);
    assert_eq!(record["exception"]["traceback"], expected);
}

#[test]
fn a_notebook_is_one_only_where_a_record_is_wanted_and_only_for_code() {
    let look = "import sys; print('display' in vars(__builtins__), [m for m in ('_json', 'binascii', '_ast', 'atexit') if m in sys.modules])";
    let output = finish(sandbox(&["run", "-c"]).arg(look), b"");
    assert_eq!(text(&output.stdout), "False []\n");
    let record_of_code = code(look);
    assert_eq!(record_of_code["stdout"], "True []\n");
    let record = record(&["-"], look.as_bytes());
    assert_eq!(record["stdout"], "False []\n");
}

#[test]
fn what_is_too_much_is_left_out_and_said_to_be() {
    let record = record(
        &[
            "--max-output",
            "1000",
            "-c",
            "display(1)\ndisplay('a' * 2000)\ndisplay(3)\n1/0",
        ],
        b"",
    );
    let displays = record["displays"].as_array().unwrap();
    let texts: Vec<_> = displays
        .iter()
        .map(|forms| forms["text/plain"].as_str().unwrap())
        .collect();
    assert_eq!([texts[0], texts[2]], ["1", "3"], "{record}");
    assert!(texts[1].starts_with("'aaa") && texts[1].ends_with("more bytes are left out …]"));
    assert_eq!(record["exception"]["type"], "ZeroDivisionError");
    assert!(
        record["limits_hit"]
            .as_array()
            .unwrap()
            .contains(&json!("report")),
        "{record}"
    );
}

#[test]
fn of_more_forms_than_there_is_room_for_the_text_stays() {
    let record = code(
        "class Many:\n def _repr_mimebundle_(self, **_): return {f'text/x{n}': '' for n in range(20)}\nMany()",
    );
    let forms = record["result"].as_object().unwrap();
    assert_eq!(forms.len(), 16);
    assert!(forms.contains_key("text/plain"));
    assert_eq!(record["limits_hit"], json!(["report"]));
}

#[test]
fn a_program_that_tells_nonsense_harms_its_own_record_alone() {
    let record = code(
        r#"
import ctypes, os
tell = lambda data: ctypes.CDLL(None).prctl(0x484f5304, data, len(data), 0, 0)
for _ in range(100): tell(b'\x02\x20\x00\x00\x00' + os.urandom(32))
tell(b'\x07\x00\x00\x00\x00')
print(ctypes.CDLL(None).prctl(0x484f5304, 8, 100, 0, 0))
print('end')
5
"#,
    );
    assert_eq!(record["status"], "exited", "{record}");
    assert_eq!(record["stdout"], "-1\nend\n");
    assert_eq!(record["result"], json!({"text/plain": "5"}));
    assert!(
        record["limits_hit"]
            .as_array()
            .unwrap()
            .contains(&json!("report"))
    );
}

#[test]
fn what_processes_do_is_told() {
    let record = code(
        r#"
import os, socket, subprocess
def attempt(act, *arguments):
    try: act(*arguments)
    except OSError: pass
for path in '/etc/passwd', '/tmp/x', 'y', '/dev/null', '../etc/z': attempt(open, path, 'w')
attempt(open, '/etc/passwd')
subprocess.run(['/bin/true'])
attempt(subprocess.run, ['/nope'])
attempt(socket.socket().connect, ('10.0.0.1', 80))
attempt(socket.socket(socket.AF_UNIX).connect, '/run/x')
"#,
    );
    let expected = json!([
        {"kind": "open_for_writing", "what": "/etc/passwd", "errno": libc::EROFS},
        {"kind": "open_for_writing", "what": "/work/../etc/z", "errno": libc::EROFS},
        {"kind": "execute", "what": "/bin/true", "errno": 0},
        {"kind": "execute", "what": "/nope", "errno": libc::ENOENT},
        {"kind": "connect", "what": "10.0.0.1:80", "errno": libc::ENETUNREACH},
        {"kind": "connect", "what": "unix:/run/x", "errno": libc::ENOENT},
    ]);
    assert_eq!(record["events"], expected);
}

#[test]
fn a_safe_path_stays_one_where_the_interpreter_tells() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.py");
    std::fs::write(&path, "import sys; print(sys.path[0])").unwrap();
    let words = ["-e", "PYTHONSAFEPATH=1", path.to_str().unwrap()];
    assert_eq!(record(&words, b"")["stdout"], "/usr/lib/python313.zip\n");
}

#[test]
fn a_machine_that_is_booted_for_it_tells_the_same() {
    let program =
        "import os; display(os.environ['A']); open('/etc/x', 'w') if os.getpid() == 0 else 1/0\n3";
    let mut records = [vec!["--fresh"], vec![]].map(|mut words| {
        words.extend(["-e", "A=ü", "-c", program]);
        record(&words, b"")
    });
    for record in &mut records {
        let told = [
            "stderr",
            "exit_code",
            "exception",
            "displays",
            "result",
            "events",
        ];
        *record = told.iter().map(|key| record[key].clone()).collect();
    }
    assert_eq!(records[0], records[1]);
    assert_eq!(records[0][2]["type"], "ZeroDivisionError");
}

/// Prints all that a shell can know of how it was started. No pipeline lists its descriptors, and no
/// child its signals: for a moment, the shell would have those of the pipe, and block some.
const STATE: &str = "echo $0 $# $1 $- $PWD $BASH; trap; ulimit -a; umask; env; set -o; shopt; ls -l /proc/$$/fd >/tmp/fd; sed 's/.* //' /tmp/fd; while read -r line; do case $line in Sig[BIC]*) echo \"$line\";; esac; done </proc/$$/status; tr '\\0' ' ' </proc/$$/cmdline";

#[test]
fn a_shell_starts_as_in_a_machine_of_its_own() {
    let run = |options: &[&str]| {
        let mut command = sandbox(&["run", "-l", "bash", "-e", "A=b", "-e", "LC_ALL=C"]);
        command.args(options).env_remove("SANDBOX_FRESH");
        finish(command.args(["-c", STATE, "word"]), b"")
    };
    let (warm, fresh) = (run(&[]), run(&["--fresh"]));
    let numbered = |output: &Output| {
        text(&output.stdout)
            .lines()
            .filter(|line| {
                !line.contains("pending signals")
                    && !line.starts_with("pipe:")
                    && !line.starts_with("/proc/")
            })
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbered(&warm), numbered(&fresh));
    assert!(
        text(&warm.stdout).starts_with("bash 1 word hBc /work /usr/bin/bash\n"),
        "{}",
        text(&warm.stdout)
    );
    // Numbers of processes depend on how many the kernel started meanwhile.
    let unnumbered = |output: &Output| text(&output.stderr).replace(|c: char| c.is_numeric(), "");
    assert_eq!(unnumbered(&warm), unnumbered(&fresh));
}

#[test]
fn scripts_of_a_shell_run_in_it() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content, stdout, status) in [
        ("a.sh", "echo $1; exit 3", "x\n", 3),
        (
            "b",
            "#!/usr/bin/env bash\necho ${BASH_VERSION:+bash} $0",
            "bash b\n",
            0,
        ),
        ("c", "#!/bin/sh -e\necho 1\nfalse\necho 2", "1\n", 1),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let output = finish(sandbox(&["run"]).arg(&path).arg("x"), b"");
        assert_eq!(
            text(&output.stdout),
            stdout,
            "{name}: {}",
            text(&output.stderr)
        );
        assert_eq!(exit_code(output.status), status, "{name}");
    }
    let output = finish(
        &mut sandbox(&["run", "-l", "bash", "-", "--", "x"]),
        b"echo $1\nexit 4",
    );
    assert_eq!(text(&output.stdout), "x\n");
    assert_eq!(exit_code(output.status), 4);
}

#[test]
fn a_script_for_an_interpreter_that_is_not_there_is_not_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    std::fs::write(&path, "#!/usr/bin/perl\nprint(1)\n").unwrap();
    let output = finish(sandbox(&["run"]).arg(&path), b"");
    assert_eq!(exit_code(output.status), 127);
    assert!(
        text(&output.stderr).contains("needs perl, which this image does not have"),
        "{}",
        text(&output.stderr)
    );
    let output = finish(sandbox(&["run", "--lang", "python"]).arg(&path), b"");
    assert_eq!(text(&output.stdout), "1\n", "{}", text(&output.stderr));
}

#[test]
fn a_shells_events_are_those_of_what_it_starts() {
    let record = record(&["-l", "bash", "-c", "/bin/true"], b"");
    assert_eq!(
        record["events"],
        json!([{"kind": "execute", "what": "/bin/true", "errno": 0}])
    );
    assert_eq!(record["exception"], Value::Null);
}
