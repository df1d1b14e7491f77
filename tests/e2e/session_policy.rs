//! Sessions under a policy: how many there may be, how large, and for how long.

use crate::agent::{Agent, text_of};
use crate::common::{exit_code, start, text};
use crate::mcp::failed;
use crate::sessions::Sessions;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Output};

/// Tries to start a session under a policy with this text in its part on sessions.
fn start_under(sessions: &Sessions, policy: &str, arguments: &[&str]) -> Output {
    let mut command = under(sessions, policy, arguments);
    start(&mut command).wait_with_output().unwrap()
}

fn under(sessions: &Sessions, policy: &str, arguments: &[&str]) -> Command {
    with(sessions, policy, &[&["start"], arguments].concat())
}

/// Returns the command for a verb of sessions under a policy with this text in its part on sessions.
fn with(sessions: &Sessions, policy: &str, arguments: &[&str]) -> Command {
    let path = sessions.0.path().join("policy.toml");
    let text = format!("[run.sessions]\n{policy}\n");
    // One that is read meanwhile is left as it is.
    if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
        fs::write(&path, text).unwrap();
    }
    let mut command = sessions.command(arguments);
    command.arg("--policy").arg(&path);
    command
}

fn is_refused(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(exit_code(output.status), 125, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn there_are_no_more_sessions_than_the_policy_allows() {
    let sessions = Sessions::new();
    let refused = start_under(&sessions, "count = 0", &["a"]);
    is_refused(&refused, &["run.sessions.count", "none"]);
    let mut starts: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| start(&mut under(&sessions, "count = 2", &[name])))
        .into();
    let codes = starts.iter_mut().map(|child| child.wait().unwrap());
    let mut codes: Vec<_> = codes.map(exit_code).collect();
    codes.sort();
    assert_eq!(codes, [0, 0, 125, 125]);
    let listed = text(&sessions.ask(&["list", "--json"]).stdout);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    sessions.ask(&["stop", "--all"]);
    let again = start_under(&sessions, "count = 2", &["a"]);
    assert_eq!(exit_code(again.status), 0, "{}", text(&again.stderr));
}

#[test]
fn their_memory_together_and_their_times_are_bounded() {
    let sessions = Sessions::new();
    let policy = "memory = '400M'\nidle = '1m'\nage = '1h'";
    let first = start_under(&sessions, policy, &["a"]);
    assert_eq!(exit_code(first.status), 0, "{}", text(&first.stderr));
    let listed = sessions.ask(&["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let left = listed["left_s"].as_f64().unwrap();
    assert!((1.0..=60.0).contains(&left), "{left}");
    let second = start_under(&sessions, policy, &["b"]);
    is_refused(&second, &["run.sessions.memory", "400 MiB", "512 MiB"]);
    for (option, key) in [("--idle", "idle"), ("--age", "age")] {
        let refused = start_under(&sessions, policy, &["b", option, "2h"]);
        is_refused(&refused, &[&format!("run.sessions.{key}"), "7200 s"]);
    }
}

#[test]
fn sessions_that_go_on_from_another_count_and_so_does_their_memory() {
    let sessions = Sessions::with(&[]);
    let fork = |policy: &str, count: &str| {
        let mut command = with(&sessions, policy, &["fork", "a", "-n", count]);
        command.output().unwrap()
    };
    let refused = fork("count = 3", "3");
    is_refused(&refused, &["run.sessions.count", "at most 3"]);
    let refused = fork("memory = '600M'", "2");
    is_refused(&refused, &["run.sessions.memory", "600 MiB", "768 MiB"]);
    let refused = fork("fork = false", "1");
    is_refused(&refused, &["run.sessions.fork", "none"]);
    let forked = fork("count = 3\nmemory = '768M'", "2");
    assert_eq!(text(&forked.stdout), "a-1\na-2\n");
    is_refused(&fork("count = 3", "1"), &["run.sessions.count"]);
}

#[test]
fn what_goes_on_from_a_session_must_be_what_the_policy_lets_one_have() {
    let sessions = Sessions::with(&["--timeout", "90"]);
    let policy = "[run]\ntimeout = '60s'\nconfine = 'auto'\n[run.sessions]\ncount = 9\n";
    let path = sessions.0.path().join("other.toml");
    fs::write(&path, policy).unwrap();
    let fork = |options: &[&str]| {
        let mut command = sessions.command(&["fork", "a", "--policy"]);
        command.arg(&path).args(options).output().unwrap()
    };
    is_refused(&fork(&[]), &["run.timeout", "90 s"]);
    fs::write(&path, policy.replace("60s", "90s")).unwrap();
    is_refused(&fork(&["--confine", "off"]), &["run.confine"]);
    assert_eq!(text(&fork(&[]).stdout), "a-1\n");
}

#[test]
fn a_session_keeps_to_what_its_policy_says_of_forks_and_checkpoints() {
    let sessions = Sessions::new();
    for (name, policy) in [("a", "fork = false"), ("b", "checkpoint = false")] {
        let started = start_under(&sessions, policy, &[name]);
        assert_eq!(exit_code(started.status), 0, "{}", text(&started.stderr));
    }
    is_refused(&sessions.ask(&["fork", "a"]), &["run.sessions.fork"]);
    assert_eq!(text(&sessions.ask(&["fork", "b"]).stdout), "b-1\n");
    // What goes on is kept to the same.
    for name in ["b", "b-1"] {
        let refused = sessions.ask(&["checkpoint", name, "kept"]);
        is_refused(&refused, &["run.sessions.checkpoint"]);
    }
}

#[test]
fn a_server_has_no_sessions_where_its_policy_allows_none() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run.sessions]\ncount = 0\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let tool = agent.ask("tools/list", json!({}))["result"]["tools"][0].clone();
    assert!(tool["inputSchema"]["properties"]["session"].is_null());
    let result = agent.call(json!({"code": "1", "session": "a"}));
    failed(&result, "error");
    let words = text_of(&result);
    assert!(words.contains("run.sessions.count"), "{words}");
}

#[test]
fn of_a_clients_sessions_the_oldest_ends_where_the_policy_has_no_room() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run.sessions]\ncount = 1\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    for session in ["a", "b"] {
        agent.call(json!({"code": "x = 1", "session": session}));
    }
    let kept = agent.call(json!({"code": "x", "session": "b"}));
    assert_eq!(kept["structuredContent"]["result"]["text/plain"], "1");
    let gone = agent.call(json!({"code": "x", "session": "a"}));
    let exception = &gone["structuredContent"]["exception"]["type"];
    assert_eq!(exception, "NameError", "{gone}");
}
