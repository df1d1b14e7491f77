//! Programs for agents: `sandbox mcp` as a client on its standard input and output meets it.

use super::agent::*;
use super::common::*;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FOREVER: &str = "while True: pass";

fn failed(result: &Value, status: &str) {
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
    let record = sandbox::record::schema().to_value();
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
    let record: sandbox::record::Record =
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
            json!({"code": "x = bytearray(1 << 30)\nfor i in range(0, 1 << 30, 4096): x[i] = 1", "memory_mib": 128}),
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
fn files_go_in_and_come_out() {
    let mut agent = Agent::start(&[]);
    let code = "
data = open('in.bin', 'rb').read() + open('/tmp/deep/in.txt', 'rb').read()
open('out.txt', 'w').write(repr(data))
open('/tmp/big.bin', 'wb').write(bytes(range(256)) * 1024)
";
    let result = agent.call(json!({"code": code, "files": [
        {"path": "in.bin", "content": "AP8=", "encoding": "base64"},
        {"path": "/tmp/deep/in.txt", "content": "text\n"},
        {"path": "out.txt"}, {"path": "/tmp/big.bin"},
    ]}));
    assert_eq!(result["isError"], false, "{result}");
    let blocks = result["content"].as_array().unwrap();
    let text = blocks
        .iter()
        .find(|block| block["type"] == "resource")
        .unwrap();
    assert_eq!(text["resource"]["text"], r"b'\x00\xfftext\n'");
    let link = blocks
        .iter()
        .find(|block| block["type"] == "resource_link")
        .unwrap();
    assert_eq!(
        (&link["name"], &link["size"]),
        (&json!("/tmp/big.bin"), &json!(256 << 10))
    );
    let files = result["structuredContent"]["files"].as_array().unwrap();
    assert_eq!(files[1]["host"], link["uri"]);
    assert!(
        !result.to_string().contains("sandbox-mcp-"),
        "no path of the host"
    );

    let listed = agent.ask("resources/list", json!({}))["result"]["resources"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let read = agent.ask("resources/read", json!({"uri": link["uri"]}));
    let blob = read["result"]["contents"][0]["blob"].as_str().unwrap();
    assert!(blob.starts_with("AAECAwQF"), "{}", &blob[..20]);
    let none = agent.ask("resources/read", json!({"uri": "sandbox://file/none"}));
    assert!(none["error"]["code"].is_number());
    let missing = agent.call(json!({"code": "pass", "files": [{"path": "none.txt"}]}));
    assert_eq!(missing["isError"], true);
    assert!(text_of(&missing).contains("none.txt"));
}

#[test]
fn only_so_many_files_are_kept_and_the_oldest_go_first() {
    let mut agent = Agent::start(&[]);
    let mut uris = Vec::new();
    for _ in 0..6 {
        let code = "open('big', 'wb').write(bytes(15 << 20))";
        let result = agent.call(json!({"code": code, "files": [{"path": "big"}]}));
        uris.push(result["structuredContent"]["files"][0]["host"].clone());
    }
    let listed = agent.ask("resources/list", json!({}))["result"]["resources"].clone();
    let kept: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["uri"].clone())
        .collect();
    assert_eq!(kept, uris[2..]);
}

#[test]
fn images_are_images() {
    let mut agent = Agent::start(&[]);
    let code = "
class Picture:
    def _repr_png_(self): return b'\\x89PNG'
display(Picture())
Picture()
";
    let result = agent.call(json!({"code": code}));
    let blocks = result["content"].as_array().unwrap();
    let images: Vec<_> = blocks
        .iter()
        .filter(|block| block["type"] == "image")
        .collect();
    assert_eq!(images.len(), 2, "{result}");
    assert_eq!(
        (&images[0]["data"], &images[0]["mimeType"]),
        (&json!("iVBORw=="), &json!("image/png"))
    );
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
fn what_is_hidden_in_files_and_markup_comes_in_base64() {
    let mut agent = Agent::start(&[]);
    let code = "
class Page:
    def _repr_html_(self): return 'a\\x1b[2J\\u202eb'
for name, text in {'plain.csv': 'a,b\\r\\n', 'moves.txt': 'a\\x1b[2J', 'tags.txt': 'a\\U000e0041'}.items():
    open(name, 'w', newline='').write(text)
Page()";
    let files = ["plain.csv", "moves.txt", "tags.txt"].map(|path| json!({"path": path}));
    let result = agent.call(json!({"code": code, "files": files}));
    let blocks = result["content"].as_array().unwrap();
    let embedded = blocks.iter().map(|block| &block["resource"]);
    let embedded: Vec<_> = embedded.filter(|resource| resource.is_object()).collect();
    assert_eq!(embedded.len(), 2, "{blocks:?}");
    assert_eq!(embedded[0]["blob"], "YRtbMkrigK5i");
    assert_eq!(embedded[1]["text"], "a,b\r\n");
    let links: Vec<_> = blocks
        .iter()
        .filter(|block| block["type"] == "resource_link")
        .collect();
    assert_eq!(links.len(), 2, "{blocks:?}");
    let read = agent.ask("resources/read", json!({"uri": links[0]["uri"]}));
    assert_eq!(read["result"]["contents"][0]["blob"], "YRtbMko=");
}

#[test]
fn a_machine_that_somebody_else_ends_is_told_as_that_and_its_time_counts() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut agent = Agent::start(&["--audit", log.to_str().unwrap()]);
    let disturb: [&dyn Fn(u32); 2] = [
        &|guest| kill(Pid::from_raw(guest as i32), Signal::SIGKILL).unwrap(),
        // As what has taken it over could.
        &|guest| fs::write(format!("/proc/{guest}/fd/1"), "x").unwrap(),
    ];
    let busy = "import time\nwhile time.process_time() < 10: pass";
    for (disturb, code, words, exit) in [
        (disturb[0], FOREVER, "was ended by SIGKILL", 137),
        (disturb[1], busy, "did not tell how it went", 0),
    ] {
        let id = agent.start_call(json!({"code": code}));
        disturb(agent.server.guest());
        let result = agent.answer(id)["result"].clone();
        failed(&result, "error");
        assert!(text_of(&result).contains(words), "{}", text_of(&result));
        let entries = fs::read_to_string(&log).unwrap();
        let end: Value = serde_json::from_str(entries.lines().last().unwrap()).unwrap();
        assert_eq!(end["status"], "error");
        assert_eq!(end["process"]["exit"], exit);
        let used = end["process"]["cpu_ms"].as_f64().unwrap();
        assert!(used > 0.0, "{end}");
    }
}

#[test]
fn a_signal_that_is_ignored_where_a_server_starts_does_not_end_it() {
    let mut command = Cache::growing().sandbox(&["mcp"]);
    let ignore = || {
        // SAFETY: signal(2) is async-signal-safe, and this one runs no code.
        unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
        Ok(())
    };
    // SAFETY: the same.
    unsafe { command.pre_exec(ignore) };
    let scratch = tempfile::tempdir().unwrap();
    let child = start(command.env("TMPDIR", scratch.path()));
    let mut agent = Agent::connect(Server { child, scratch });
    agent.initialize();
    kill(
        Pid::from_raw(agent.server.child.id() as i32),
        Signal::SIGHUP,
    )
    .unwrap();
    let result = agent.call(json!({"code": "print('still here')"}));
    assert_eq!(text_of(&result), "still here\n");
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
fn a_cancelled_call_ends_its_machine_at_once_and_is_not_answered() {
    let mut agent = Agent::start(&[]);
    let at_once = Duration::from_millis(100);
    // On a machine that does other things meanwhile, not each time.
    let quick = (0..20).any(|_| {
        let id = agent.start_call(json!({"code": FOREVER}));
        let guest = agent.server.guest();
        agent.tell(
            "notifications/cancelled",
            json!({"requestId": id, "reason": "enough"}),
        );
        gone(guest) <= at_once
    });
    assert!(quick);
    assert_eq!(agent.ask("ping", json!({}))["result"], json!({}));
    assert_eq!(agent.within(Duration::from_millis(100)), None);
}

#[test]
fn a_client_that_hangs_up_ends_its_machines_and_the_server() {
    let mut agent = Agent::start(&[]);
    agent.start_call(json!({"code": FOREVER}));
    let guest = agent.server.guest();
    agent.hang_up();
    println!("gone after {:?}", gone(guest));
    assert_eq!(exit_code(agent.server.child.wait().unwrap()), 0);
    assert_eq!(agent.server.left().len(), 0);
}

#[test]
fn calls_of_a_client_that_has_hung_up_are_told_as_cancelled() {
    let mut told = 0;
    for _ in 0..5 {
        let mut agent = Agent::start(&[]);
        let id = agent.start_call(json!({"code": FOREVER}));
        let guest = agent.server.guest();
        agent.hang_up();
        gone(guest);
        // It may still read.
        if let Some(answer) = agent.within(PATIENCE) {
            assert_eq!(answer["id"], id);
            assert_eq!(
                answer["result"]["structuredContent"]["status"], "cancelled",
                "{answer}"
            );
            told += 1;
        }
    }
    assert!(told > 0);
}

#[test]
fn machines_die_with_a_server_that_is_killed_and_the_next_one_tidies_up() {
    for (signal, code, left) in [
        (Signal::SIGTERM, 143, 0),
        (Signal::SIGINT, 130, 0),
        (Signal::SIGKILL, 137, 1),
    ] {
        let mut agent = Agent::start(&[]);
        agent.start_call(json!({"code": FOREVER}));
        let guest = agent.server.guest();
        kill(Pid::from_raw(agent.server.child.id() as i32), signal).unwrap();
        println!("{signal}: gone after {:?}", gone(guest));
        assert_eq!(exit_code(agent.server.child.wait().unwrap()), code);
        assert_eq!(agent.server.left().len(), left, "{signal}");
        if left == 0 {
            continue;
        }
        // As if it had been a while ago.
        let directory = &agent.server.left()[0];
        let touched = std::process::Command::new("touch")
            .args(["-d", "1 hour ago"])
            .arg(directory)
            .status();
        assert!(touched.unwrap().success());
        let scratch = std::mem::replace(&mut agent.server.scratch, tempfile::tempdir().unwrap());
        let next = Agent::connect(Server::start_in(scratch, &[]));
        until(|| (!directory.exists()).then_some(()));
        drop(next);
    }
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
fn calls_that_are_no_programs_are_in_the_log_by_what_is_wrong_and_not_by_what_they_hold() {
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

#[test]
fn files_over_what_a_client_may_keep_take_no_place_of_others_of_their_run() {
    let mut agent = Agent::start(&[]);
    let code =
        "import os\nos.mkdir('out')\nfor n in range(1000): open(f'out/{n}', 'w').write(str(n))";
    let result = agent.call(json!({"code": code, "files": [{"path": "out"}]}));
    assert!(
        text_of(&result).contains("744 files are not kept"),
        "{}",
        text_of(&result)
    );
    let kept: Vec<_> = result["structuredContent"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|file| file["host"].as_str().filter(|uri| !uri.is_empty()))
        .collect();
    assert_eq!(kept.len(), 256);
    for uri in kept {
        let read = agent.ask("resources/read", json!({"uri": uri}));
        assert!(read["result"]["contents"].is_array(), "{read}");
    }
}

#[test]
fn a_client_that_waits_for_its_turn_can_give_it_up() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[server]\nconcurrency = 1\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let first = agent.start_call(json!({"code": FOREVER}));
    let guest = agent.server.guest();
    let second = agent.start_call(json!({"code": FOREVER}));
    let third = agent.start_call(json!({"code": "print(3)"}));
    agent.tell("notifications/cancelled", json!({"requestId": second}));
    sleep(Duration::from_millis(100));
    assert_eq!(agent.server.runs(), [guest]);
    let began = Instant::now();
    agent.tell("notifications/cancelled", json!({"requestId": first}));
    assert_eq!(text_of(&agent.answer(third)["result"]), "3\n");
    println!("the next one took {:?}", began.elapsed());
}

#[test]
fn files_that_are_fetched_are_held_to_the_policy() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run]\nfiles = {size = '1M'}\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let mut fetch = |size: u64| {
        let code = format!("open('-a', 'w').write('x' * {size})");
        agent.call(json!({"code": code, "files": [{"path": "-a"}]}))
    };
    let within = fetch(1000);
    assert_eq!(within["structuredContent"]["files"][0]["size"], 1000);
    let over = fetch((1 << 20) + 1);
    failed(&over, "error");
    let record = &over["structuredContent"];
    assert_eq!(record["limits_hit"], json!(["files"]), "{record}");
    assert_eq!(record["files_count"], 0);
}

#[test]
fn files_count_by_what_they_hold_and_not_by_how_they_are_encoded() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run]\nfiles = {size = 3000}\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let mut put = |content: String| {
        let file = json!({"path": "a", "content": content, "encoding": "base64"});
        agent.call(json!({"code": "print(len(open('a').read()))", "files": [file]}))
    };
    assert_eq!(text_of(&put("AAAA".repeat(1000))), "3000\n");
    let over = put("AAAA".repeat(1000) + "AA==");
    failed(&over, "error");
    assert_eq!(
        over["_meta"]["sandbox/refusal"],
        json!({"what": "files.size", "asked": "3001 bytes", "allowed": "at most 3000 bytes", "retry_after_s": null})
    );
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
