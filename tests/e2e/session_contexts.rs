//! Contexts of a session: interpreters beside its own, each with variables of its own.

use crate::common::{exit_code, start, text};
use crate::failures::assert_refused;
use crate::session_protocol::Peer;
use crate::sessions::Sessions;
use serde_json::{Value, json};
use std::io::Read;
use std::process::Output;

impl Sessions {
    fn in_context(&self, options: &[&str], code: &str) -> Output {
        self.ask(&[&["run", "a", "-c", code], options].concat())
    }

    /// Runs a cell in a context; returns its standard output.
    fn told(&self, options: &[&str], code: &str) -> String {
        let output = self.in_context(options, code);
        assert_eq!(exit_code(output.status), 0, "{code}: {output:?}");
        text(&output.stdout)
    }
}

const B: [&str; 2] = ["--context", "b"];
const BASH: [&str; 2] = ["--language", "bash"];

#[test]
fn each_context_has_variables_of_its_own_and_the_same_files() {
    let sessions = Sessions::with(&[]);
    sessions.gives("x = 1; open('file', 'w').write('kept')");
    assert_eq!(sessions.told(&B, "x = 2; open('file').read()"), "'kept'\n");
    assert_eq!(
        sessions.told(&["--context", "c"], "'x' in globals()"),
        "False\n"
    );
    assert_eq!(sessions.told(&B, "x"), "2\n");
    assert_eq!(sessions.gives("x"), "1\n");
    let described = sessions.description();
    let names: Vec<_> = described["contexts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn a_cell_in_a_context_is_told_as_one_of_the_session() {
    let sessions = Sessions::with(&[]);
    let record = sessions.record(&B, "print('out'); display({'a': 1}); 6 * 7");
    for (field, value) in [
        ("exit_code", json!(0)),
        ("stdout", json!("out\n")),
        ("result", json!({"text/plain": "42"})),
        ("displays", json!([{"text/plain": "{'a': 1}"}])),
        ("state", json!("kept")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    sessions.told(&B, "def f():\n    return 1 / 0");
    let record = sessions.record(&B, "f()");
    let traceback = record["exception"]["traceback"].as_str().unwrap();
    assert!(traceback.contains("    return 1 / 0\n"), "{traceback}");
    assert!(
        traceback.starts_with("Traceback (most recent call last):\n  File \"<cell 3>\""),
        "{traceback}"
    );
    assert_eq!(record["exception"]["type"], "ZeroDivisionError");
    assert_eq!(sessions.record(&B, "exit(7)")["exit_code"], 7);
    assert_eq!(
        sessions.record(&B, "x = (")["exception"]["type"],
        "SyntaxError"
    );
    assert_eq!(
        sessions.record(&B, "import asyncio\nawait asyncio.sleep(0)\n1")["result"]["text/plain"],
        "1"
    );
    let printed = sessions.record(&B, "print('x' * 300000)");
    assert_eq!(printed["stdout"].as_str().unwrap().len(), 300_001);
}

#[test]
fn bash_keeps_variables_functions_and_its_directory() {
    let sessions = Sessions::with(&[]);
    sessions.told(&BASH, "x=5; f() { echo \"f $1 $x\"; }; mkdir d; cd d");
    assert_eq!(sessions.told(&BASH, "f a; pwd"), "f a 5\n/work/d\n");
    let output = sessions.in_context(&BASH, "return 3");
    assert_eq!(exit_code(output.status), 3);
    let mut given = sessions.command(&[
        "run",
        "a",
        "--stdin",
        "-",
        "--language",
        "bash",
        "-c",
        "read l; echo [$l]",
    ]);
    assert_eq!(
        text(&crate::common::finish(&mut given, b"line\n").stdout),
        "[line]\n"
    );
    assert_eq!(
        sessions.told(&BASH, "read l; echo [$l]; x=6 f b"),
        "[]\nf b 6\n"
    );
    let record = sessions.record(&BASH, "exit 4");
    assert_eq!(
        (&record["exit_code"], &record["state"]),
        (&json!(4), &json!("reset"))
    );
    assert_eq!(sessions.told(&BASH, "echo [$x] $PWD"), "[] /work\n");
}

#[test]
fn cells_of_contexts_run_beside_each_other() {
    let sessions = Sessions::with(&[]);
    let code = "import os, time\nprint('up', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)";
    let mut own = start(&mut sessions.command(&["run", "a", "-c", code]));
    let mut other = start(&mut sessions.command(&["run", "a", "--context", "b", "-c", code]));
    for child in [&mut own, &mut other] {
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    }
    sessions.told(&BASH, "touch go");
    assert_eq!(exit_code(own.wait().unwrap()), 0);
    assert_eq!(exit_code(other.wait().unwrap()), 0);
}

#[test]
fn a_cell_of_a_context_is_interrupted_then_killed_alone() {
    let sessions = Sessions::with(&["--grace", "300s"]);
    sessions.gives("x = 1");
    for (options, code, check) in [
        (&B[..], "import time\ny = 1\ntime.sleep(900)", "y"),
        (&BASH, "y=1; sleep 900; echo not", "echo $y"),
    ] {
        let record = sessions.record(&[&["--timeout", "1"], options].concat(), code);
        assert_eq!(
            (&record["status"], &record["state"]),
            (&json!("timeout"), &json!("kept")),
            "{record}"
        );
        assert_eq!(record["stdout"], "");
        assert_eq!(sessions.told(options, check), "1\n");
    }
    let sessions = Sessions::with(&["--grace", "200ms"]);
    sessions.gives("x = 1");
    sessions.told(&B, "x = 2");
    let stubborn =
        "import time\nwhile True:\n    try: time.sleep(900)\n    except KeyboardInterrupt: pass";
    let record = sessions.record(&[&["--timeout", "0.5"], &B[..]].concat(), stubborn);
    assert_eq!(
        (&record["status"], &record["state"]),
        (&json!("timeout"), &json!("reset")),
        "{record}"
    );
    assert_eq!(sessions.told(&B, "'x' in globals()"), "False\n");
    assert_eq!(sessions.gives("x"), "1\n");
}

#[test]
fn a_late_interrupt_never_hits_the_next_cell_of_a_context() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    let mut other = Peer::connect(&sessions);
    let run = |code: &str| json!({"verb": "run", "code": code, "context": "b"});
    for cell in 1..=100_u64 {
        let begun = cell * 2 - 1;
        peer.send(&run("pass"));
        peer.send(&run("n = 0\nwhile n < 2000: n += 1"));
        assert_eq!(peer.hear_of("began")["cell"], begun);
        other.send(&json!({"verb": "interrupt", "cell": begun}));
        assert_eq!(peer.hear_of("ended")["cell"], begun);
        let second = peer.hear_of("ended");
        assert_eq!(second["record"]["exit_code"], 0, "{cell}: {second}");
        other.hear_of("interrupted");
    }
    peer.send(&run("while True: pass"));
    let number = peer.hear_of("began")["cell"].clone();
    peer.send(&json!({"verb": "interrupt", "cell": number}));
    let record = peer.hear_of("ended")["record"].take();
    assert_eq!(record["exception"]["type"], "KeyboardInterrupt", "{record}");
}

#[test]
fn each_context_is_restarted_alone_and_says_so() {
    let sessions = Sessions::with(&[]);
    sessions.gives("x = 1");
    sessions.told(&B, "x = 2");
    assert_eq!(
        exit_code(sessions.ask(&["restart", "a", "--context", "b"]).status),
        0
    );
    let record = sessions.record(&B, "'x' in globals()");
    let told = |record: &Value| {
        (
            record["state"].clone(),
            record["state_reason"].clone(),
            record["result"]["text/plain"].clone(),
        )
    };
    let reset = (json!("reset"), json!("it was restarted"), json!("False"));
    assert_eq!(told(&record), reset);
    assert_eq!(sessions.gives("x"), "1\n");
    assert_eq!(exit_code(sessions.ask(&["restart", "a"]).status), 0);
    assert_eq!(told(&sessions.record(&[], "'x' in globals()")), reset);
    let unknown = sessions.ask(&["restart", "a", "--context", "c"]);
    assert!(
        text(&unknown.stderr).contains("no context c"),
        "{unknown:?}"
    );
}

#[test]
fn contexts_that_cannot_be_are_refused_with_what_to_do() {
    let sessions = Sessions::with(&[]);
    sessions.told(&BASH, "true");
    let other = sessions.in_context(&["--context", "bash", "--language", "python"], "1");
    assert!(
        text(&other.stderr).contains("another language"),
        "{other:?}"
    );
    for name in ["c", "d", "e", "f", "g", "h", "i"] {
        sessions.told(&["--context", name], "1");
    }
    let many = sessions.in_context(&["--context", "j"], "1");
    assert!(text(&many.stderr).contains("8 contexts"), "{many:?}");
    let unknown = sessions.in_context(&["--language", "cobol"], "1");
    assert_refused(
        &unknown,
        125,
        "has no context for cobol",
        "choose one with --language: python, bash",
    );
}

/// A language that a description adds: its interpreter says in capitals what it was ever told.
const SHOUT: &str = r#"
[[language]]
name = "shout"
title = "Shout"
file = ["true", "{file}"]
code = ["true", "{code}"]
stdin = ["true"]

[language.context]
start = ["bash", "-c", '''
while :; do
    printf '\005\010\0\0\0\004\0\0\0\0\0\0\0' >&3
    for field in number code input; do IFS= read -r -d '' $field || exit; done
    printf '\005\0\0\0\0' >&3
    said+=("${code^^}")
    echo "$number: ${said[*]}!"
done
''']
cells = "nul"
"#;

#[test]
fn a_language_that_a_description_adds_has_contexts() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.toml");
    let built_in = include_str!("../../guest/images/python/image.toml");
    std::fs::write(&image, format!("{built_in}{SHOUT}")).unwrap();
    let sessions = Sessions::with(&["--image", image.to_str().unwrap()]);
    let shout = ["--language", "shout"];
    assert_eq!(sessions.told(&shout, "hello"), "1: HELLO!\n");
    assert_eq!(sessions.told(&shout, "you"), "2: HELLO YOU!\n");
    assert_eq!(sessions.told(&BASH, "echo quiet"), "quiet\n");
    let contexts = sessions.description()["contexts"].take();
    assert_eq!(contexts[1]["language"], "shout", "{contexts}");
}
