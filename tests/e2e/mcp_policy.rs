//! Policies for callers, and what the log of runs says about them.

use super::agent::*;
use super::common::*;
use super::mcp::{FOREVER, failed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_policy_is_a_ceiling_and_what_is_over_it_is_told_with_what_is_allowed() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    let text = "[run]\nmemory = '128M'\ntimeout = 5\nlanguages = ['python']\nenvironment = ['A']\ncode = 100\nfiles = {count = 1}\n";
    fs::write(policy.path(), text).unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let tool = agent.ask("tools/list", json!({}))["result"]["tools"][0].clone();
    assert_eq!(
        tool["inputSchema"]["properties"]["memory_mib"]["maximum"],
        128
    );
    assert_eq!(
        tool["inputSchema"]["properties"]["timeout_s"]["default"],
        5.0
    );
    for (more, words) in [
        (json!({"memory_mib": 256}), "at most 128 MiB"),
        (json!({"timeout_s": 6}), "at most 5 s"),
        (json!({"language": "bash"}), "python"),
        (json!({"env": {"B": "1"}}), "environment"),
        (json!({"code": "#".repeat(101)}), "100 bytes"),
        (json!({"args": ["a".repeat(100)]}), "arguments 101"),
        (
            json!({"files": [{"path": "a"}, {"path": "b"}]}),
            "at most 1",
        ),
    ] {
        let mut arguments = json!({"code": "pass"});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let result = agent.call(arguments);
        failed(&result, "error");
        assert!(text_of(&result).contains(words), "{}", text_of(&result));
    }
    let result = agent.call(json!({"code": "pass"}));
    assert_eq!(result["structuredContent"]["memory"]["limit"], 128 << 20);
}

#[test]
fn where_nothing_may_wait_a_caller_is_told_when_to_call_again() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    let text = "[server]\nconcurrency = 1\n[server.client]\nqueue = 0\n";
    fs::write(policy.path(), text).unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let id = agent.start_call(json!({"code": FOREVER}));
    let guest = agent.server.guest();
    let refused = agent.call(json!({"code": "pass"}));
    failed(&refused, "error");
    let seconds = refused["_meta"]["sandbox/retryAfterSeconds"]
        .as_u64()
        .unwrap();
    assert!(
        text_of(&refused).contains(&format!("call again in {seconds} s")),
        "{refused}"
    );
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    gone(guest);
}

#[test]
fn runs_and_refusals_are_in_the_log_and_the_record_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.jsonl");
    let mut agent = Agent::start(&["--audit", log.to_str().unwrap()]);
    let result = agent.call(json!({"code": "print('canary')"}));
    let anchor = &result["structuredContent"]["audit"];
    let id = agent.start_call(json!({"code": FOREVER}));
    agent.server.guest();
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    let entries = until(|| {
        let entries: Vec<Value> = fs::read_to_string(&log)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (entries.len() == 4).then_some(entries)
    });
    assert!(!fs::read_to_string(&log).unwrap().contains("canary"));
    let events: Vec<_> = entries
        .iter()
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["start", "end", "start", "end"]);
    assert_eq!(
        (&entries[1]["sequence"], &entries[1]["hash"]),
        (&anchor["sequence"], &anchor["hash"])
    );
    assert_eq!(entries[3]["status"], "cancelled");
    assert_eq!(entries[0]["client"], "stdio");
    let refused = agent.call(json!({"code": 7}));
    let anchor = &refused["structuredContent"]["audit"];
    assert_eq!(anchor["sequence"], 5);
    let entries = fs::read_to_string(&log).unwrap();
    assert!(
        entries.contains(anchor["hash"].as_str().unwrap()),
        "{entries}"
    );
    // A server that is told to stop writes down how its runs ended.
    agent.start_call(json!({"code": FOREVER}));
    agent.server.guest();
    kill(
        Pid::from_raw(agent.server.child.id() as i32),
        Signal::SIGTERM,
    )
    .unwrap();
    agent.server.child.wait().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().last().unwrap().contains("\"end\""), "{text}");
}

#[test]
fn invalid_calls_are_logged_by_their_fault_and_not_by_their_content() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.jsonl");
    let mut agent = Agent::start(&["--audit", log.to_str().unwrap()]);
    let mut wrong = Vec::new();
    for arguments in [
        json!({"code": "x".repeat((1 << 20) + 1)}),
        json!({"code": "pass", "timeout_s": 3601}),
        json!({"code": "pass", "env": {"NAME": ["canary"]}}),
    ] {
        let result = agent.call(arguments);
        failed(&result, "error");
        wrong.push(result["_meta"]["sandbox/refusal"]["what"].clone());
    }
    assert_eq!(wrong, ["code", "timeout_s", "env.NAME"]);
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("canary"));
    let entries = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<_> = entries.map(|entry| entry["what"].clone()).collect();
    assert_eq!(told, wrong);
}

#[test]
fn a_log_can_be_verified_whatever_a_caller_names() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut agent = Agent::start(&["--audit", log.to_str().unwrap()]);
    let name = "A".repeat(9 << 20);
    failed(
        &agent.call(json!({"code": "1", "env": {name: "x"}})),
        "error",
    );
    let name = "\u{1}".repeat(200);
    agent.call(json!({"code": "1", "env": {name: "x"}}));
    let mut verify = sandbox(&["audit", "verify", log.to_str().unwrap()]);
    assert!(finish(&mut verify, b"").status.success());
}
