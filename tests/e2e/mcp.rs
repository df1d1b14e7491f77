//! `sandbox mcp` as a client on its standard input and output sees it.

use super::agent::*;
use super::common::*;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

pub const FOREVER: &str = "while True: pass";

pub fn failed(result: &Value, status: &str) {
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(result["structuredContent"]["status"], status, "{result}");
}

#[test]
fn the_tool_says_what_it_takes_and_what_it_gives() {
    let mut agent = Agent::start(&[]);
    let tools = agent.ask("tools/list", json!({}))["result"]["tools"].clone();
    assert_eq!(tools.as_array().unwrap().len(), 1);
    let tool = &tools[0];
    assert_eq!(tool["name"], "run_code");
    let input = &tool["inputSchema"];
    assert_eq!(input["additionalProperties"], false);
    assert_eq!(input["required"], json!(["code"]));
    assert_eq!(input["properties"]["timeout_s"]["maximum"], 3600.0);
    let file = &input["$defs"]["File"];
    assert_eq!(file["required"], json!(["path"]));
    let record = sandbox::internals::record::schema().to_value();
    assert_eq!(tool["outputSchema"], record);
    assert_eq!(tool["outputSchema"]["type"], "object");
    for (hint, value) in [
        ("readOnlyHint", false),
        ("destructiveHint", false),
        ("idempotentHint", false),
        ("openWorldHint", false),
    ] {
        assert_eq!(tool["annotations"][hint], value, "{hint}");
    }
}

#[test]
fn a_result_is_the_record_and_the_same_as_text() {
    let mut agent = Agent::start(&[]);
    let code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7";
    let result = agent.call(json!({"code": code}));
    assert_eq!(result["isError"], false, "{result}");
    let record: sandbox::internals::record::Record =
        serde_json::from_value(result["structuredContent"].clone()).unwrap();
    assert_eq!(record.stdout.as_deref(), Some("out\n"));
    assert_eq!(record.stderr.as_deref(), Some("err\n"));
    assert_eq!(record.exit_code, Some(0));
    assert_eq!(record.result.unwrap()["text/plain"], "42");
    assert_eq!(result["content"][0]["text"], "out\n");
    assert_eq!(text_of(&result), "out\n\n[stderr]\nerr\n\n[result] 42");
    let silent = agent.call(json!({"code": "pass"}));
    assert_eq!(text_of(&silent), "[no output]");
}

#[test]
fn what_went_wrong_is_told_for_programs_and_in_words() {
    let mut agent = Agent::start(&[]);
    for (arguments, status, words) in [
        (
            json!({"code": "import sys; sys.exit(3)"}),
            "exited",
            "code 3",
        ),
        (json!({"code": "1 / 0"}), "exited", "ZeroDivisionError"),
        (
            json!({"code": "import os; os.abort()"}),
            "signaled",
            "signal 6",
        ),
        (
            json!({"code": FOREVER, "timeout_s": 0.5}),
            "timeout",
            "timeout_s",
        ),
        (
            json!({"code": format!("print('held back')\n{FOREVER}"), "timeout_s": 1}),
            "timeout",
            "held back\n",
        ),
        (
            json!({"code": "x = bytearray(1 << 40)", "memory_mib": 128}),
            "exited",
            "MemoryError",
        ),
        (
            json!({"code": "exit 4", "language": "bash"}),
            "exited",
            "code 4",
        ),
    ] {
        let result = agent.call(arguments.clone());
        failed(&result, status);
        assert!(
            text_of(&result).contains(words),
            "{arguments}: {}",
            text_of(&result)
        );
    }
}

#[test]
fn arguments_that_are_wrong_are_refused_with_what_is_right() {
    let mut agent = Agent::start(&[]);
    for (arguments, words) in [
        (json!({}), "code"),
        (json!({"code": 1}), "string"),
        (json!({"code": "pass", "codes": ""}), "codes"),
        (json!({"code": "pass", "language": "cobol"}), "bash"),
        (json!({"code": "pass", "timeout_s": 0}), "3600"),
        (json!({"code": "pass", "timeout_s": 1e300}), "3600"),
        (json!({"code": "pass", "memory_mib": 1}), "64"),
        (json!({"code": "pass", "memory_mib": -1}), "memory_mib"),
        (json!({"code": "pass", "args": ["a\u{0}b"]}), "NUL"),
        (json!({"code": "pass", "env": {"A=B": ""}}), "A=B"),
        (json!({"code": "pass", "env": {"": ""}}), "env"),
        (json!({"code": "pass", "files": [{}]}), "path"),
        (json!({"code": "pass", "files": [{"path": "../x"}]}), ".."),
        (json!({"code": "pass", "files": [{"path": "a:b"}]}), ":"),
        (
            json!({"code": "pass", "files": [{"path": "/work/"}]}),
            "path",
        ),
        (
            json!({"code": "pass", "files": [{"path": "a", "content": "!", "encoding": "base64"}]}),
            "base64",
        ),
        (
            json!({"code": "pass", "files": [{"path": "a", "fetch": false}]}),
            "fetch",
        ),
        (json!({"code": "x".repeat((1 << 20) + 1)}), "1048576"),
        (
            json!({"code": "pass", "stdin": "x".repeat((16 << 20) + 1)}),
            "16777216",
        ),
    ] {
        let result = agent.call(arguments);
        failed(&result, "error");
        let text = text_of(&result);
        assert!(text.contains(words), "{words}: {text}");
        assert!(
            !result["structuredContent"]["error"]["remedy"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
    let unknown = agent.ask("tools/call", json!({"name": "rm", "arguments": {}}));
    assert_eq!(unknown["error"]["code"], -32602);
}

#[test]
fn input_arguments_and_variables_reach_the_program_whole() {
    let mut agent = Agent::start(&[]);
    let code = "import os, sys, json\nprint(json.dumps([sys.argv[1:], os.environ['A'], sys.stdin.read()]))";
    let lines = "one\ntwo \u{e9} #\n";
    let result = agent.call(json!({
        "code": code, "args": ["--json", "-c", "", lines], "env": {"A": lines}, "stdin": lines
    }));
    let told: Value =
        serde_json::from_str(result["structuredContent"]["stdout"].as_str().unwrap()).unwrap();
    assert_eq!(told, json!([["--json", "-c", "", lines], lines, lines]));
}

#[test]
fn what_would_hide_text_or_move_a_cursor_is_shown_not_done() {
    let mut agent = Agent::start(&[]);
    let result = agent.call(json!({"code": "print('a\\x1b[2Jb\\u202ec\\td')"}));
    assert_eq!(text_of(&result), "a\\u{1b}[2Jb\\u{202e}c\td\n");
    assert_eq!(
        result["structuredContent"]["stdout"],
        "a\u{1b}[2Jb\u{202e}c\td\n"
    );
}

#[test]
fn nothing_that_a_caller_gives_is_on_a_command_line_or_left_behind() {
    let mut agent = Agent::start(&[]);
    let canary = "canary-5f1d";
    let code = format!("import time\n# {canary}\nwhile True: pass");
    let id = agent.start_call(json!({
        "code": code, "stdin": canary, "env": {"A": canary}, "files": [{"path": "a.txt", "content": canary}]
    }));
    let guest = agent.server.guest();
    for pid in [guest, agent.server.child.id()] {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!text(&words).contains(canary), "{}", text(&words));
    }
    let mut search = Command::new("grep");
    let search = search.args(["-r", canary]).arg(agent.server.scratch.path());
    assert_eq!(exit_code(search.status().unwrap()), 1);
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    gone(guest);
    // Nothing but its directory, which is empty.
    let [directory] = &agent.server.left()[..] else {
        panic!()
    };
    until(|| (fs::read_dir(directory).unwrap().count() == 0).then_some(()));
    agent.hang_up();
    assert_eq!(exit_code(agent.server.child.wait().unwrap()), 0);
    assert_eq!(agent.server.left().len(), 0);
}

#[test]
fn who_wants_to_know_hears_that_a_run_goes_on() {
    let mut agent = Agent::start(&[]);
    let mut params = call(json!({"code": "import time; time.sleep(3)"}));
    params["_meta"] = json!({"progressToken": "t"});
    let id = agent.request("tools/call", params);
    let mut last = -1.0;
    for _ in 0..2 {
        let progress = agent.next(|message| message["method"] == "notifications/progress");
        assert_eq!(progress["params"]["progressToken"], "t");
        let now = progress["params"]["progress"].as_f64().unwrap();
        assert!(now > last);
        last = now;
    }
    assert_eq!(agent.answer(id)["result"]["isError"], false);
}

#[test]
fn clients_of_both_protocols_are_served() {
    let mut old = Agent::connect(Server::start(&[]));
    assert_eq!(old.initialize()["protocolVersion"], OLD);
    let mut new = Agent::connect(Server::start(&[]));
    let discovered = new.ask("server/discover", json!({"_meta": meta()}));
    let versions = discovered["result"]["supportedVersions"]
        .as_array()
        .unwrap();
    assert!(
        versions.contains(&json!(OLD)) && versions.contains(&json!(NEW)),
        "{discovered}"
    );
    let mut params = call(json!({"code": "print(1)"}));
    params["_meta"] = meta();
    let answer = new.ask("tools/call", params);
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(text_of(&answer["result"]), "1\n");
}

#[test]
fn a_client_that_begins_wrongly_may_begin_again() {
    let mut agent = Agent::connect(Server::start(&[]));
    agent.tell("notifications/cancelled", json!({"requestId": 1}));
    agent.send(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":{}}");
    assert!(agent.ask("tools/list", json!({}))["error"].is_object());
    agent.tell("notifications/initialized", json!({}));
    assert_eq!(agent.initialize()["serverInfo"]["name"], "sandbox");
}

#[test]
fn two_calls_with_one_id_are_not_confused() {
    let mut agent = Agent::start(&[]);
    let id = agent.start_call(json!({"code": FOREVER}));
    let guest = agent.server.guest();
    let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call(json!({"code": "print(1)"}))});
    agent.send(message.to_string().as_bytes());
    assert!(
        agent.answer(id)["error"]["message"]
            .as_str()
            .unwrap()
            .contains("id")
    );
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    gone(guest);
}

#[test]
fn what_to_do_is_told_in_the_words_of_the_tool() {
    let mut agent = Agent::start(&[]);
    for (arguments, word) in [
        (json!({"code": FOREVER, "timeout_s": 0.2}), "timeout_s"),
        (
            json!({"code": "x = []\nwhile True: x.append(b'x' * (1 << 20))", "memory_mib": 128}),
            "memory_mib",
        ),
    ] {
        let result = agent.call(arguments);
        let remedy = result["structuredContent"]["error"]["remedy"].to_string();
        assert!(remedy.contains(word) && !remedy.contains("--"), "{result}");
        assert!(text_of(&result).contains(word), "{result}");
    }
}
