//! Options from the environment: each is obeyed, and the command line takes precedence.

use crate::common::{Cache, PYTHON, binary, finish, sandbox, text};
use sandbox::internals::record::Record;

/// Returns the record of a run of this code, with this variable and these options.
#[track_caller]
fn recorded(variable: (&str, &str), options: &[&str], code: &str) -> Record {
    let mut command = Cache::growing().sandbox(&["run", "--json"]);
    command.env(variable.0, variable.1).args(options);
    let output = finish(command.args(["-c", code]), b"");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

#[test]
fn memory() {
    let variable = ("SANDBOX_MEMORY", "128M");
    let limit = |options: &[&str]| recorded(variable, options, "pass").memory.limit;
    assert_eq!(limit(&[]), 128 << 20);
    assert_eq!(limit(&["--memory", "256M"]), 256 << 20);
}

#[test]
fn max_output() {
    let variable = ("SANDBOX_MAX_OUTPUT", "4");
    let written = |options: &[&str]| {
        recorded(variable, options, "print('123456')")
            .stdout
            .unwrap()
    };
    assert_eq!(written(&[]), "1234");
    assert_eq!(written(&["--max-output", "2"]), "12");
    assert_eq!(written(&["--max-output", "6"]), "123456");
}

#[test]
fn timeout() {
    let stopped_at = |limit, options: &[&str]| {
        let code = "import time; time.sleep(600)";
        let record = recorded(("SANDBOX_TIMEOUT", limit), options, code);
        record.error.unwrap().message
    };
    assert!(stopped_at("0.5", &[]).ends_with("time limit of 0.5 s"));
    let message = stopped_at("0.001", &["--timeout", "0.7"]);
    assert!(message.ends_with("time limit of 0.7 s"), "{message}");
}

#[test]
fn pids_limit() {
    let forks = "
import os, time
children = 0
try:
    while children < 12:
        if os.fork() == 0: time.sleep(600)
        children += 1
except BlockingIOError: pass
print(children, flush=True)
os._exit(0)
";
    let children = |options: &[&str]| {
        let record = recorded(("SANDBOX_PIDS_LIMIT", "8"), options, forks);
        record.stdout.unwrap().trim().parse::<u32>().unwrap()
    };
    assert!(children(&[]) < 8);
    assert_eq!(children(&["--pids-limit", "256"]), 12);
    // The guest's kernel counts no more than 4 Mi of them.
    for (limit, is_refused) in [("4194304", false), ("4194305", true), ("0", true)] {
        let refused = finish(&mut sandbox(&["run", "--pids-limit", limit]), b"");
        let said = text(&refused.stderr);
        assert_eq!(
            said.contains("--pids-limit cannot be"),
            is_refused,
            "{said}"
        );
    }
}

#[test]
fn confine() {
    let layers = |level, options: &[&str]| {
        let record = recorded(("SANDBOX_CONFINE", level), options, "pass");
        record.confinement.len()
    };
    assert_eq!(layers("off", &[]), 0);
    assert!(layers("off", &["--confine", "auto"]) > 0);
    assert_eq!(layers("require", &["--confine", "off"]), 0);
}

/// Tests the colours of help on a terminal.
#[test]
fn no_color() {
    let is_colored = |variable: &str| {
        let terminal = "import pty, sys; pty.spawn(sys.argv[1:])";
        let mut command = Cache::growing().command(PYTHON);
        command.args(["-c", terminal, &binary(), "--help"]);
        command.env_remove("NO_COLOR").env("TERM", "xterm");
        let output = finish(command.env(variable, "1"), b"");
        let said = text(&output.stdout);
        assert!(said.contains("Usage:"), "{said}");
        said.contains('\x1b')
    };
    assert!(is_colored("UNRELATED"));
    assert!(!is_colored("NO_COLOR"));
}
