//! Messages of `sandbox mcp` on standard input and output, as lines.

use super::agent::*;
use super::common::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::Child;

/// Returns the line of a call that needs no session.
fn line_of_call(id: u64, arguments: Value) -> String {
    let mut params = call(arguments);
    params["_meta"] = meta();
    let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    format!("{message}\n")
}

/// Sends these lines and nothing more; returns all that comes back, and the exit code.
fn all_answers(server: &mut Server, lines: &str) -> (String, i32) {
    let Child { stdin, stdout, .. } = &mut server.child;
    stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let mut told = String::new();
    let mut stdout = stdout.take().unwrap();
    stdout.read_to_string(&mut told).unwrap();
    (told, exit_code(server.child.wait().unwrap()))
}

#[test]
fn what_came_before_the_end_of_input_is_answered() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), "[server]\nconcurrency = 1\n").unwrap();
    let mut server = Server::start(&["--policy", policy.path().to_str().unwrap()]);
    let slow = "import time; time.sleep(1); print(1)";
    let lines = [
        line_of_call(1, json!({"code": slow})),
        // It waits for its turn.
        line_of_call(2, json!({"code": "print(2)"})),
        "nonsense\n".to_string(),
    ]
    .concat();
    let (told, code) = all_answers(&mut server, &lines);
    let answers: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |id: Value| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!(text_of(&of(json!(1))["result"]), "1\n");
    assert_eq!(text_of(&of(json!(2))["result"]), "2\n");
    assert_eq!(of(Value::Null)["error"]["code"], -32700);
    assert_eq!((answers.len(), code), (3, 0));
    assert_eq!(server.left().len(), 0);
}

#[test]
fn input_that_ends_before_anything_is_asked_ends_the_server() {
    for lines in [
        "",
        "nonsense\n",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n",
    ] {
        let (_, code) = all_answers(&mut Server::start(&[]), lines);
        assert_eq!(code, 0, "{lines}");
    }
}

#[test]
fn an_answer_is_one_line_for_every_reader() {
    let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let printed = "a\u{2028}b\u{2029}c\u{85}d\r\n";
    let code = format!("print({printed:?}.replace('\\r\\n', '\\r'))\n{printed:?}");
    let code = code
        .replace("\\u{2028}", "\\u2028")
        .replace("\\u{2029}", "\\u2029");
    let code = code.replace("\\u{85}", "\\u0085");
    let (told, _) = all_answers(
        &mut Server::start(&[]),
        &line_of_call(1, json!({"code": code})),
    );
    let line = told.strip_suffix('\n').unwrap();
    assert!(!line.contains(breaks), "{line}");
    let answer: Value = serde_json::from_str(line).unwrap();
    let record = &answer["result"]["structuredContent"];
    assert_eq!(record["stdout"], "a\u{2028}b\u{2029}c\u{85}d\r\n", "{line}");
    let output = finish(sandbox(&["run", "--json", "-c"]).arg(&code), b"");
    let line = text(&output.stdout);
    assert!(!line.trim_end_matches('\n').contains(breaks), "{line}");
    let own: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(own["stdout"], record["stdout"]);
}

#[test]
fn a_message_that_is_wrong_is_answered_to_whoever_sent_it() {
    let mut agent = Agent::start(&[]);
    for (id, rest, code) in [
        (
            101,
            r#""params":{"name":"run_code","arguments":{"code":"\ud800"}}}"#,
            -32700,
        ),
        (
            102,
            r#""params":{"name":"run_code","arguments":{"timeout_s":1e999}}}"#,
            -32700,
        ),
        (103, r#""params":{},"params":{}}"#, -32600),
        (104, r#""params":{"name":"run_code","#, -32700),
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call",{rest}"#);
        agent.send(line.as_bytes());
        assert_eq!(agent.answer(id)["error"]["code"], code, "{line}");
    }
}

#[test]
fn a_version_with_batches_is_not_offered_but_the_one_before_is() {
    for (asked, offered) in [
        ("2025-03-26", "2024-11-05"),
        ("2024-11-05", "2024-11-05"),
        ("2025-06-18", "2025-06-18"),
        ("2031-01-01", OLD),
    ] {
        let mut agent = Agent::connect(Server::start(&[]));
        let answer = agent.ask("initialize", initialize(asked));
        assert_eq!(answer["result"]["protocolVersion"], offered, "{asked}");
        agent.send(br#"[{"jsonrpc":"2.0","id":7,"method":"ping"}]"#);
        let error = agent.next(|message| message["error"].is_object())["error"].clone();
        assert_eq!(error["code"], -32600);
        assert!(
            error["message"].as_str().unwrap().contains("batch"),
            "{error}"
        );
    }
}
