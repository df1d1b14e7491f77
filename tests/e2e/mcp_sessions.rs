//! Sessions of `sandbox mcp`: what is kept from call to call, for whom, and until when.

use crate::agent::*;
use crate::common::exit_code;
use crate::mcp::{FOREVER, failed};
use crate::web::{Web, tokens};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Returns the processes of sessions whose sockets are in this directory's child.
fn sessions_of(server: u32) -> Vec<i32> {
    let tasks = fs::read_dir("/proc").unwrap();
    let pids = tasks.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_session = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_live = !stat.contains(") Z ") && !stat.is_empty();
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        line.windows(13).any(|piece| piece == b"serve-session") && is_live && parent == Some(server)
    };
    pids.filter(is_session).collect()
}

/// Returns the processes that fetch files for this server.
fn fetchers(server: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{server}/task")).unwrap();
    let children = tasks
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")));
    let children: Vec<_> = children.map(Result::unwrap_or_default).collect();
    let pids = children
        .iter()
        .flat_map(|children| children.split_whitespace());
    let is_fetcher = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(11).any(|piece| piece == b"fetch-files")
    };
    pids.filter(is_fetcher)
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn call_in(agent: &mut Agent, session: &str, code: &str) -> Value {
    agent.call(json!({"code": code, "session": session}))
}

fn is_busy(agent: &mut Agent, session: &str) -> bool {
    let uri = json!({"uri": format!("sandbox://session/{session}")});
    let told = agent.ask("resources/read", uri);
    told.to_string().contains(r#"\"is_busy\":true"#)
}

#[test]
fn variables_are_kept_for_the_next_call_that_names_the_session() {
    let mut agent = Agent::start(&[]);
    let first = call_in(
        &mut agent,
        "a",
        "print('out'); x = 41; open('f', 'w').write('')",
    );
    assert_eq!(first["isError"], false, "{first}");
    let text = text_of(&first);
    assert!(text.starts_with("out\n"), "{text}");
    let started =
        "[session a] variables and files are kept (the session was started with this call)";
    assert!(text.ends_with(started), "{text}");
    let second = call_in(&mut agent, "a", "import os; x + 1, os.listdir()");
    let record = &second["structuredContent"];
    assert_eq!(record["result"]["text/plain"], "(42, ['f'])");
    assert_eq!(
        (&record["session"], &record["state"]),
        (&json!("a"), &json!("kept"))
    );
    assert!(text_of(&second).ends_with("[session a] variables and files are kept"));
    let schema = sandbox::internals::record::schema().to_value();
    jsonschema::validate(&schema, record).unwrap();
    for result in [
        agent.call(json!({"code": "x"})),
        call_in(&mut agent, "b", "x"),
    ] {
        failed(&result, "exited");
        assert_eq!(
            result["structuredContent"]["exception"]["type"],
            "NameError"
        );
    }
}

#[test]
fn what_a_session_lost_is_told_in_words_and_for_programs() {
    let mut agent = Agent::start(&[]);
    call_in(&mut agent, "a", "x = 1");
    let result = call_in(&mut agent, "a", "import os; os._exit(3)");
    failed(&result, "exited");
    assert_eq!(result["structuredContent"]["state"], "reset");
    let words = "[session a] variables are gone, files are kept (the interpreter exited with 3)";
    assert!(text_of(&result).ends_with(words), "{}", text_of(&result));
    let late = json!({"code": FOREVER, "session": "a", "timeout_s": 0.5});
    let late = agent.call(late);
    failed(&late, "timeout");
    assert_eq!(late["structuredContent"]["state"], "kept");
    let code = "x = []\nwhile True: x.append(bytearray(1 << 20))";
    let large = agent.call(json!({"code": code, "session": "b", "memory_mib": 128}));
    failed(&large, "oom");
    assert!(
        text_of(&large).contains("another session, with a greater memory_mib"),
        "{large}"
    );
}

#[test]
fn input_comes_with_a_call_of_a_session_and_arguments_do_not() {
    let mut agent = Agent::start(&[]);
    let result = agent.call(json!({"code": "print(input())", "session": "a", "stdin": "line\n"}));
    assert_eq!(result["structuredContent"]["stdout"], "line\n", "{result}");
    for (name, value) in [
        ("session", json!("../x")),
        ("session", json!("")),
        ("args", json!(["a"])),
        ("env", json!({"A": "b"})),
    ] {
        let mut arguments = json!({"code": "1", "session": "a"});
        arguments[name] = value;
        let result = agent.call(arguments);
        failed(&result, "error");
        assert!(
            text_of(&result).contains("session"),
            "{name}: {}",
            text_of(&result)
        );
    }
}

#[test]
fn sessions_are_resources_of_their_client() {
    let (file, tokens) = tokens(&["one", "two"]);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let ask = |token: &str, method: &str, params: Value| {
        web.ask(token, method, params).message()["result"].clone()
    };
    for (token, session) in [(0, "a"), (0, "b"), (1, "c")] {
        let arguments = json!({"code": "1", "session": session});
        ask(&tokens[token], "tools/call", call(arguments));
    }
    let listed = ask(&tokens[0], "resources/list", json!({}))["resources"].clone();
    let uris: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["uri"])
        .collect();
    assert_eq!(uris, ["sandbox://session/a", "sandbox://session/b"]);
    let read = |token: &str, uri: &str| ask(token, "resources/read", json!({"uri": uri}));
    let told = read(&tokens[0], "sandbox://session/a")["contents"][0]["text"].clone();
    let told: Value = serde_json::from_str(told.as_str().unwrap()).unwrap();
    assert_eq!((&told["session"], &told["cells"]), (&json!("a"), &json!(1)));
    assert_eq!(told["memory"], 256 << 20);
    for uri in [
        "sandbox://session/c",
        "sandbox://session/",
        "sandbox://session/3",
    ] {
        assert_eq!(read(&tokens[0], uri), Value::Null, "{uri}");
    }
}

#[test]
fn files_go_into_a_session_and_come_out_of_it() {
    let mut agent = Agent::start(&[]);
    let files = json!([
        {"path": "in.csv", "content": "a,b\n1,2\n"},
        {"path": "deep/raw", "content": "AP8=", "encoding": "base64", "fetch": true},
        {"path": "/tmp/out.txt"},
        {"path": "made"},
    ]);
    let code = "import os; os.mkdir('made'); open('made/x', 'w').write('x'); open('/tmp/out.txt', 'w').write('done'); open('in.csv').read()";
    let result = agent.call(json!({"code": code, "session": "a", "files": files}));
    let record = &result["structuredContent"];
    assert_eq!(record["result"]["text/plain"], "'a,b\\n1,2\\n'", "{result}");
    let paths: Vec<_> = (0..3).map(|at| &record["files"][at]["path"]).collect();
    assert_eq!(paths, ["/work/deep/raw", "/tmp/out.txt", "/work/made/x"]);
    assert_eq!(
        (&record["files_count"], &record["files_missing_count"]),
        (&json!(3), &json!(0))
    );
    let uri = &record["files"][0]["host"];
    let read = agent.ask("resources/read", json!({"uri": uri}));
    assert_eq!(read["result"]["contents"][0]["blob"], "AP8=", "{read}");
    assert!(result.to_string().contains("done"), "{result}");

    let files = json!([{"path": "in.csv", "content": "replaced"}, {"path": "nosuch"}]);
    let result =
        agent.call(json!({"code": "open('in.csv').read()", "session": "a", "files": files}));
    failed(&result, "error");
    let record = &result["structuredContent"];
    assert_eq!(record["result"]["text/plain"], "'replaced'");
    let missing = json!(["/work/nosuch: No such file or directory"]);
    assert_eq!(record["files_missing"], missing);

    // What cannot be put is told, and loses nothing.
    let files = json!([{"path": "made", "content": "a directory is there"}]);
    let result = agent.call(json!({"code": "1", "session": "a", "files": files}));
    failed(&result, "error");
    assert!(text_of(&result).contains("made"), "{}", text_of(&result));
    assert_eq!(result["structuredContent"]["state"], "kept");
    let result = call_in(&mut agent, "a", "os.listdir('made')");
    assert_eq!(result["structuredContent"]["result"]["text/plain"], "['x']");
}

#[test]
fn files_that_do_not_come_out_of_a_session_whole_are_told() {
    let mut agent = Agent::start(&[]);
    let code = "
import os
os.makedirs('d/e'); os.mkfifo('d/pipe'); os.symlink('/etc', 'd/link')
open('d/closed', 'w').close(); os.chmod('d/closed', 0)
open('d/e/fine', 'w').write('fine'); open('odd\\\\', 'w').write('odd')
";
    let files = json!([{"path": "d"}, {"path": "odd\\"}]);
    let result = agent.call(json!({"code": code, "session": "a", "files": files}));
    failed(&result, "error");
    let record = &result["structuredContent"];
    let paths: Vec<_> = record["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["path"])
        .collect();
    assert_eq!(paths, ["/work/d/e/fine", "/work/odd\\"], "{record}");
    let missing = record["files_missing"].to_string();
    for name in ["closed", "pipe", "link"] {
        assert!(missing.contains(name), "{missing}");
    }
    assert_eq!(record["state"], "kept");
}

#[test]
fn the_fetch_of_files_has_the_time_of_its_call_and_ends_with_that() {
    let mut agent = Agent::start(&[]);
    let start = json!({"code": "f = open('sparse', 'w'); f.truncate(1 << 40)", "session": "a", "timeout_s": 3600});
    assert_eq!(agent.call(start)["isError"], false);
    let fetch =
        json!({"code": "1", "session": "a", "timeout_s": 3600, "files": [{"path": "sparse"}]});
    let result = agent.call(fetch.clone());
    failed(&result, "error");
    // What takes apart what the guest sends refuses it, and nobody waits for the rest.
    assert!(text_of(&result).contains("more than 256 MiB"), "{result}");
    // The limit is this call's, not that of the call which started the session.
    let quick = json!({"code": "open('l', 'w').write('x')", "session": "b", "timeout_s": 0.4});
    assert_eq!(agent.call(quick)["isError"], false);
    let files = json!([{"path": "long", "content": "x".repeat(12 << 20), "fetch": true}]);
    let long = agent.call(json!({"code": "1", "session": "b", "timeout_s": 300, "files": files}));
    assert_eq!(long["isError"], false, "{}", text_of(&long));
}

#[test]
fn a_cancelled_call_leaves_no_process_that_fetches() {
    let mut agent = Agent::start(&[]);
    let server = agent.server.child.id();
    call_in(&mut agent, "a", "import os");
    let files: Vec<_> = (0..64)
        .map(|at| json!({"path": format!("many/{at}")}))
        .collect();
    let many = "import os; os.mkdir('many'); [open(f'many/{at}', 'w').truncate(3 << 20) for at in range(64)]";
    let id = agent.start_call(json!({"code": many, "session": "a", "files": files}));
    crate::agent::until(|| fetchers(server).first().copied());
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    crate::agent::until(|| fetchers(server).is_empty().then_some(()));
    let result = call_in(&mut agent, "a", "len(os.listdir('many'))");
    assert_eq!(
        result["structuredContent"]["result"]["text/plain"], "64",
        "{result}"
    );
}

#[test]
fn nothing_runs_between_a_call_and_its_files() {
    let mut agent = Agent::start(&[]);
    let watch = "
import time
seen = set()
while 'end' not in seen:
    time.sleep(0.01)
    try: seen.add(open('f').read())
    except OSError: seen.add('none')
    if len(seen) > 1: break
    if time.monotonic() > begun + 2: break
seen
";
    call_in(&mut agent, "a", "import time; begun = time.monotonic()");
    let watcher = agent.start_call(json!({"code": watch, "session": "a"}));
    while !is_busy(&mut agent, "a") {}
    let put = json!([{"path": "f", "content": "put"}]);
    let putter =
        agent.start_call(json!({"code": "open('f').read()", "session": "a", "files": put}));
    let watched = agent.answer(watcher);
    let result =
        |answer: &Value| answer["result"]["structuredContent"]["result"]["text/plain"].clone();
    assert_eq!(result(&watched), "{'none'}", "{watched}");
    assert_eq!(result(&agent.answer(putter)), "'put'");
}

#[test]
fn a_cancelled_call_that_waits_for_its_session_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let [log, policy] = ["audit.jsonl", "policy.toml"].map(|name| directory.path().join(name));
    fs::write(&policy, "[server]\nconcurrency = 3\n").unwrap();
    let options = [("--audit", &log), ("--policy", &policy)];
    let options = options.map(|(name, path)| [name, path.to_str().unwrap()]);
    let mut agent = Agent::start(options.as_flattened());
    let endless = json!({"code": "while True: pass", "session": "a", "timeout_s": 3600});
    agent.start_call(endless);
    while !is_busy(&mut agent, "a") {}
    let files = json!([{"path": "f", "content": "put"}]);
    let with_files = json!({"code": "1", "session": "a", "files": files});
    let behind_it = json!({"code": "1", "session": "a"});
    let waiting = [with_files, behind_it].map(|call| agent.start_call(call));
    let has = |word: &str, count: usize| {
        let log = fs::read_to_string(&log).unwrap();
        (log.matches(word).count() == count).then_some(())
    };
    crate::agent::until(|| has(r#""event":"start""#, 3));
    for id in waiting {
        agent.tell("notifications/cancelled", json!({"requestId": id}));
    }
    crate::agent::until(|| has(r#""status":"cancelled""#, 2));
    assert!(is_busy(&mut agent, "a"));
}

#[test]
fn a_policy_bounds_the_files_of_each_call_of_a_session() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    fs::write(policy.path(), "[run]\nfiles = {count = 2, size = '1M'}\n").unwrap();
    let mut agent = Agent::start(&["--policy", policy.path().to_str().unwrap()]);
    let make = "import os; os.mkdir('d'); [open(f'd/{at}', 'w') for at in range(3)]; open('large', 'w').write('x' * 2_000_000)";
    assert_eq!(call_in(&mut agent, "a", make)["isError"], false);
    let mut with = |files: Value| agent.call(json!({"code": "1", "session": "a", "files": files}));
    assert_eq!(
        with(json!([{"path": "d/0"}, {"path": "d/1"}]))["isError"],
        false
    );
    for files in [
        json!([{"path": "d"}]),
        json!([{"path": "large"}]),
        json!([{"path": "a"}, {"path": "b"}, {"path": "c"}]),
    ] {
        failed(&with(files), "error");
    }
}

#[test]
fn bash_keeps_its_own_state_in_the_same_machine() {
    let mut agent = Agent::start(&[]);
    let mut in_bash =
        |code: &str| agent.call(json!({"code": code, "session": "a", "language": "bash"}));
    in_bash("value=7; cd /tmp; echo of-bash >shared");
    let kept = in_bash("echo $value $PWD");
    assert_eq!(kept["structuredContent"]["stdout"], "7 /tmp\n", "{kept}");
    let shared = call_in(&mut agent, "a", "open('/tmp/shared').read()");
    let result = &shared["structuredContent"]["result"]["text/plain"];
    assert_eq!(result, "'of-bash\\n'", "{shared}");
}

#[test]
fn a_cancelled_call_has_its_cell_interrupted_and_its_session_stays() {
    let mut agent = Agent::start(&[]);
    call_in(&mut agent, "a", "x = 0");
    let call = json!({"code": "while True: x += 1", "session": "a"});
    let id = agent.start_call(call);
    sleep(Duration::from_millis(300));
    agent.tell("notifications/cancelled", json!({"requestId": id}));
    let result = call_in(&mut agent, "a", "type(x).__name__");
    assert_eq!(result["structuredContent"]["result"]["text/plain"], "'int'");
    assert_eq!(result["structuredContent"]["state"], "kept");
}

#[test]
fn a_session_that_ends_during_a_call_is_told_by_its_name_for_the_client() {
    let mut agent = Agent::start(&[]);
    call_in(&mut agent, "notebook", "1");
    let id = agent.start_call(json!({"code": FOREVER, "session": "notebook"}));
    while !is_busy(&mut agent, "notebook") {}
    let sessions = sessions_of(agent.server.child.id());
    for session in &sessions {
        kill(Pid::from_raw(*session), Signal::SIGKILL).unwrap();
    }
    let result = &agent.answer(id)["result"];
    failed(result, "error");
    let error = result["structuredContent"]["error"].to_string();
    for part in [
        "the session notebook is gone",
        "call again with the session notebook",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // One that is still ending may take a call.
    for session in sessions {
        gone(session as u32);
    }
    let again = call_in(&mut agent, "notebook", "2");
    assert_eq!(again["isError"], false, "{again}");
}

#[test]
fn sessions_end_with_their_server_however_it_ends() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut agent = Agent::start(&[]);
        call_in(&mut agent, "a", "x = 1");
        let server = agent.server.child.id();
        let [session] = sessions_of(server)[..] else {
            panic!("{:?}", sessions_of(server));
        };
        kill(Pid::from_raw(server as i32), signal).unwrap();
        exit_code(agent.server.child.wait().unwrap());
        let end = Instant::now() + Duration::from_secs(30);
        let is_there = || {
            let stat = fs::read_to_string(format!("/proc/{session}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while is_there() && Instant::now() < end {
            sleep(Duration::from_millis(10));
        }
        assert!(!is_there(), "{signal}");
    }
}

#[test]
fn a_session_is_its_clients_own_whatever_its_name() {
    let (file, tokens) = tokens(&["one", "two"]);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let ask = |token: &str, code: &str| {
        let arguments = json!({"code": code, "session": "same"});
        let answer = web.ask(token, "tools/call", call(arguments)).message();
        answer["result"]["structuredContent"].clone()
    };
    ask(&tokens[0], "x = 1");
    assert_eq!(ask(&tokens[1], "x")["exception"]["type"], "NameError");
    assert_eq!(ask(&tokens[0], "x")["result"]["text/plain"], "1");
}
