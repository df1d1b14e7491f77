//! Policies: what they refuse, lower and allow.

use crate::agent::{Agent, call, text_of};
use crate::common::{Cache, exit_code, finish, sandbox, text};
use crate::web::{Web, tokens};
use sandbox::internals::record::{Limit, Record, Status};
use serde_json::{Value, json};
use std::fs;
use std::process::Output;

/// Does a `sandbox run` under a policy with this text in its part on runs.
fn run_with(policy: &str, arguments: &[&str], stdin: &[u8]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    fs::write(&path, format!("[run]\n{policy}\n")).unwrap();
    let mut command = Cache::growing().sandbox(&["run", "--policy"]);
    command
        .current_dir(directory.path())
        .env_remove("SANDBOX_TIMEOUT");
    finish(command.arg(&path).args(arguments), stdin)
}

#[test]
fn what_is_over_the_policy_is_refused_with_what_and_how_much_is_allowed() {
    for (policy, arguments, key, allowed) in [
        (
            "memory = '256M'",
            &["-m", "512M"][..],
            "run.memory",
            "256 MiB",
        ),
        ("timeout = '5s'", &["-t", "6"], "run.timeout", "5 s"),
        ("timeout = '5s'", &["-t", "0"], "run.timeout", "5 s"),
        (
            "output = '1K'",
            &["--max-output", "1M"],
            "run.output",
            "1024 bytes",
        ),
        ("pids = 256", &["--pids-limit", "300"], "run.pids", "256"),
        ("root = false", &["--root"], "run.root", "false"),
        (
            "confine = 'auto'",
            &["--confine", "off"],
            "run.confine",
            "require",
        ),
        (
            "environment = ['A*']",
            &["-e", "B=1"],
            "run.environment",
            "A*",
        ),
        (
            "languages = ['python']",
            &["-l", "bash"],
            "run.languages",
            "python",
        ),
        ("code = 3", &[], "run.code", "3 bytes"),
        (
            "files = { count = 0 }",
            &["--put", "policy.toml"],
            "run.files.count",
            "0",
        ),
        (
            "files = { size = 1 }",
            &["--put", "policy.toml"],
            "run.files.size",
            "1 bytes",
        ),
    ] {
        let arguments = [arguments, &["-c", "print('it ran')"]].concat();
        let output = run_with(policy, &arguments, b"");
        let said = text(&output.stderr);
        assert_eq!(exit_code(output.status), 125, "{policy}: {said}");
        assert!(output.stdout.is_empty(), "{policy}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(
            lines[0].contains(key) && lines[0].contains(allowed),
            "{said}"
        );
    }
}

#[test]
fn what_is_within_the_policy_runs_as_without_one() {
    let policy = "memory = '256M'\ntimeout = '60s'\noutput = '1M'\npids = 256\nroot = false\n\
        confine = 'auto'\nenvironment = ['A*']\nlanguages = ['python']\ncode = 100\nstdin = 2\n\
        files = { count = 1, size = 1000 }";
    let code = "import os; print(os.environ['AB'], input(), os.path.exists('policy.toml'))";
    let arguments = [
        "-m",
        "256M",
        "-t",
        "60",
        "-e",
        "AB=x",
        "--put",
        "policy.toml",
        "-c",
        code,
    ];
    let output = run_with(policy, &arguments, b"y\n");
    assert_eq!(
        text(&output.stdout),
        "x y True\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn who_asks_for_nothing_gets_what_is_allowed() {
    let policy = "timeout = '5s'\noutput = 4\nmemory = '128M'";
    let output = run_with(
        policy,
        &[
            "--json",
            "-c",
            "print('12345', flush=True)\nwhile True: pass",
        ],
        b"",
    );
    let record: Record = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (record.status, exit_code(output.status)),
        (Status::Timeout, 124)
    );
    assert_eq!(record.stdout.as_deref(), Some("1234"));
    assert_eq!(record.memory.limit, 128 << 20);
    assert_eq!(record.limits_hit, [Limit::Timeout, Limit::Stdout]);
}

#[test]
fn more_input_than_is_allowed_ends_the_run() {
    let arguments = [
        "--json",
        "-c",
        "import sys; sys.stdin.read(); print('it read all')",
    ];
    let output = run_with("stdin = 100000", &arguments, &vec![b'x'; 100_001]);
    let record: Record = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (record.status, exit_code(output.status)),
        (Status::Error, 125)
    );
    assert_eq!(record.limits_hit, [Limit::Stdin]);
    assert!(record.error.unwrap().message.contains("100000 bytes"));
    assert_eq!(record.stdout.as_deref(), Some(""));
    let output = run_with("stdin = 100000", &arguments[1..], &vec![b'x'; 100_000]);
    assert_eq!(
        text(&output.stdout),
        "it read all\n",
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn what_a_script_says_itself_counts_for_its_language() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    fs::write(&script, "#!/bin/bash\necho it ran\n").unwrap();
    let script = script.to_str().unwrap();
    let output = run_with("languages = ['python']", &[script], b"");
    assert_eq!(exit_code(output.status), 125, "{}", text(&output.stderr));
    let output = run_with("languages = ['bash']", &[script], b"");
    assert_eq!(text(&output.stdout), "it ran\n");
}

#[test]
fn code_from_standard_input_has_the_limit_of_code() {
    let (fits, policy) = (b"print(input) ", "code = 13\nstdin = 0");
    let output = run_with(policy, &["-"], fits);
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let output = run_with(policy, &["-"], &[fits.as_slice(), b"#"].concat());
    assert_eq!(exit_code(output.status), 125);
    assert!(text(&output.stderr).contains("run.code"));
}

#[test]
fn no_more_is_fetched_than_is_allowed() {
    let code = "for name in 'abc': open(name, 'w').write('x' * 100)";
    let get = [
        "--get", "a", "--get", "b", "--get", "c", "--json", "-c", code,
    ];
    for (policy, files) in [("files = { count = 2 }", 2), ("files = { size = 250 }", 2)] {
        let output = run_with(policy, &get, b"");
        assert_eq!(exit_code(output.status), 125);
        let record: Record = serde_json::from_slice(&output.stdout).unwrap();
        assert!(record.limits_hit.contains(&Limit::Files), "{record:?}");
        assert!(record.files.len() <= files, "{record:?}");
    }
}

#[test]
fn a_policy_that_is_wrong_or_missing_lets_nothing_run() {
    let output = run_with("memroy = '1G'", &["-c", "print(1)"], b"");
    let said = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{said}");
    assert!(said.contains("line 2") && said.contains("memroy"), "{said}");
    let arguments = [
        "run",
        "--policy",
        "/nonexistent",
        "--json",
        "-c",
        "print(1)",
    ];
    let output = finish(&mut Cache::growing().sandbox(&arguments), b"");
    assert_eq!(exit_code(output.status), 125);
    let record: Record = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((record.status, record.stdout), (Status::Error, None));
}

#[test]
fn the_policy_of_the_environment_holds_whatever_options_say() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (strict, empty) = (
        write("strict", "[run]\nmemory = '128M'"),
        write("empty", ""),
    );
    let empty = empty.to_str().unwrap();
    let run = ["run", "--policy", empty, "-c", "print(1)"];
    for arguments in [&run[..], &["mcp", "--policy", empty]] {
        let mut command = sandbox(arguments);
        let output = finish(command.env("SANDBOX_POLICY", &strict), b"");
        assert_eq!(exit_code(output.status), 125);
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).contains("SANDBOX_POLICY"));
    }
}

#[test]
fn memory_that_no_machine_has_exactly_is_the_next_smaller_one() {
    let total = "print(open('/proc/meminfo').readline())";
    let output = run_with("memory = 135000000", &["-c", total], b"");
    assert_eq!(exit_code(output.status), 0, "{}", text(&output.stderr));
    let output = run_with("memory = 135000000", &["-m", "130M", "-c", "pass"], b"");
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("128 MiB"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn code_on_standard_input_that_is_too_long_is_refused_and_not_cut() {
    let code = vec![b'#'; (56 << 20) + 1];
    let output = run_with("", &["--audit", "log", "-"], &code);
    assert_eq!(exit_code(output.status), 125);
    assert!(
        text(&output.stderr).contains("larger than 56 MiB"),
        "{}",
        text(&output.stderr)
    );
}

/// Starts a client of a server with this policy.
fn agent_with(policy: &str) -> Agent {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), policy).unwrap();
    Agent::start(&["--policy", file.path().to_str().unwrap()])
}

/// Checks that a call was refused with this, and may be made again within so many seconds.
#[track_caller]
fn assert_refused(result: &Value, what: &str, most: u64) {
    let said = text_of(result);
    assert_eq!(result["isError"], true, "{said}");
    assert!(said.contains(what), "{said}");
    let seconds = result["_meta"]["sandbox/retryAfterSeconds"].as_u64();
    assert!(
        seconds.is_some_and(|seconds| (1..=most).contains(&seconds)),
        "{result}"
    );
    assert!(
        said.contains(&format!("call again in {} s", seconds.unwrap())),
        "{said}"
    );
}

#[test]
fn a_client_that_had_its_runs_of_a_minute_is_told_when_to_call_again() {
    let mut agent = agent_with("[server.client]\nruns_per_minute = 2\n");
    // At once: a minute is not to pass between them.
    let calls: Vec<_> = (0..5)
        .map(|_| agent.start_call(json!({"code": "print('ran')"})))
        .collect();
    let answers = calls
        .into_iter()
        .map(|id| agent.answer(id)["result"].clone());
    let (ran, refused): (Vec<_>, Vec<_>) = answers.partition(|result| text_of(result) == "ran\n");
    assert_eq!((ran.len(), refused.len()), (2, 3));
    for result in refused {
        assert_refused(&result, "2 runs of a minute", 60);
    }
}

#[test]
fn processor_time_of_an_hour_is_each_clients_own() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[server.client]\ncpu_seconds_per_hour = 1\n").unwrap();
    let (file, tokens) = tokens(&["busy", "other"]);
    let web = Web::start(&[
        "--tokens",
        file.path().to_str().unwrap(),
        "--policy",
        policy.path().to_str().unwrap(),
    ]);
    let run = |token: &str, code: &str| {
        let answer = web.ask(token, "tools/call", call(json!({"code": code})));
        answer.message()["result"].clone()
    };
    let busy = "import time\nwhile time.process_time() < 0.5: pass";
    // How much of the guest's time is the host's depends on the host.
    let runs = (0..50).map(|_| run(&tokens[0], busy));
    let mut refused = runs.skip_while(|result| result["isError"] != true);
    assert_refused(
        &refused.next().unwrap(),
        "1 s of processor time of an hour",
        3660,
    );
    assert_eq!(text_of(&run(&tokens[1], "print('ran')")), "ran\n");
}

#[test]
fn output_and_input_of_a_call_are_held_to_the_policy() {
    let mut agent = agent_with("[run]\noutput = 4\nstdin = 10\n");
    let result = agent.call(json!({"code": "print('123456')"}));
    let record = &result["structuredContent"];
    assert_eq!(
        (&record["stdout"], &record["limits_hit"]),
        (&json!("1234"), &json!(["stdout"]))
    );
    assert!(text_of(&result).contains("first 4 of 7 bytes"), "{result}");

    let read = "import sys; print(len(sys.stdin.read()))";
    let refused = agent.call(json!({"code": read, "stdin": "x".repeat(11)}));
    let said = text_of(&refused);
    assert_eq!(refused["isError"], true, "{said}");
    for told in ["run.stdin", "at most 10 bytes", "11 bytes"] {
        assert!(said.contains(told), "{said}");
    }
    let result = agent.call(json!({"code": read, "stdin": "x".repeat(10)}));
    assert_eq!(text_of(&result), "10\n");
}
