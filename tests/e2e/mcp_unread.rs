//! Clients that do not read their answers: the server keeps few of them, and stays up.

use super::agent::*;
use super::mcp_abuse::{MEMORY, latency, works};
use super::web::*;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn a_client_that_reads_nothing_costs_no_more_than_a_few_answers() {
    let mut server = Server::start(&[]);
    let mut stdin = server.child.stdin.take().unwrap();
    let lines: String =
        [json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": initialize(OLD)})]
            .into_iter()
            .chain(
                (1..20_000).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"})),
            )
            .map(|message| format!("{message}\n"))
            .collect();
    let taken = Arc::new(AtomicUsize::new(0));
    let (count, length) = (Arc::clone(&taken), lines.len());
    let writer = thread::spawn(move || {
        let mut rest = lines.as_bytes();
        // In pieces: one write returns when all of it is taken.
        while let Ok(written @ 1..) = stdin.write(&rest[..rest.len().min(4096)]) {
            rest = &rest[written..];
            count.fetch_add(written, Ordering::Relaxed);
        }
    });
    // It is up. From here on nothing is read, until it takes no more.
    let stdout = server.child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    let mut before = None;
    while before != Some(taken.load(Ordering::Relaxed)) {
        before = Some(taken.load(Ordering::Relaxed));
        thread::sleep(Duration::from_secs(2));
    }
    println!("{} MiB", server.memory());
    assert!(server.memory() < 64);
    assert!(before < Some(length), "it went on listening");
    drop(server);
    writer.join().unwrap();
}

/// Waits until a server's memory no longer changes; returns its size.
fn settled(server: &Server) -> u64 {
    let mut before = 0;
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = server.memory();
        if now <= before + 1 {
            return now;
        }
        before = now;
    }
}

#[test]
fn large_answers_that_nobody_reads_cost_no_more_than_a_few() {
    let mut agent = Agent::that_reads_late(&[]);
    let code = "open('large', 'wb').write(b'\"' * (16 << 20))";
    let made = agent.call(json!({"code": code, "files": [{"path": "large"}]}));
    let uri = &made["structuredContent"]["files"][0]["host"];
    let ids: Vec<_> = (0..60)
        .map(|_| agent.request("resources/read", json!({"uri": uri})))
        .collect();
    let unread = settled(&agent.server);
    println!("{unread} MiB with large files unread");
    assert!(unread < MEMORY);
    for id in ids {
        let answer = agent.answer(id);
        let text = answer["result"]["contents"][0]["text"].as_str();
        assert_eq!(text.map(str::len), Some(16 << 20));
        agent.forget();
    }
    works(&mut agent);
}

#[test]
fn large_output_that_nobody_reads_costs_no_more_than_a_few_answers() {
    let code = "import sys\nfor stream in sys.stdout, sys.stderr: stream.write('\\1' * (1 << 20))";
    assert_bounded_unread(&json!({"code": code}));
}

#[test]
fn texts_of_files_that_nobody_reads_cost_no_more_than_a_few_answers() {
    let code = "import os\nos.mkdir('out')\nfor n in range(256): open(f'out/{n}', 'w').write('x' * (64 << 10))";
    assert_bounded_unread(&json!({"code": code, "files": [{"path": "out"}]}));
}

/// Makes the same call several times, and reads no answer until all runs have ended.
fn assert_bounded_unread(arguments: &Value) {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut agent = Agent::that_reads_late(&["--audit", log.to_str().unwrap()]);
    let ids: Vec<_> = (0..8)
        .map(|_| agent.start_call(arguments.clone()))
        .collect();
    let most = until(|| {
        let ends = std::fs::read_to_string(&log).unwrap_or_default();
        let ended = ends.matches("\"event\":\"end\"").count();
        (ended == ids.len()).then(|| agent.server.memory())
    });
    println!("{most} MiB unread");
    assert!(most < 200);
    let (mut whole, mut refused) = (0, 0);
    for id in ids {
        let record = agent.answer(id)["result"]["structuredContent"].clone();
        match record["status"].as_str() {
            Some("exited") => whole += 1,
            _ => {
                let why = record["error"]["message"].as_str().unwrap();
                assert!(why.contains("no room"), "{why}");
                refused += 1;
            }
        }
    }
    println!("{whole} came, {refused} were refused");
    assert!(whole > 0);
    works(&mut agent);
}

#[test]
fn requests_that_are_cancelled_while_they_wait_for_room_leave_nothing() {
    let mut agent = Agent::that_reads_late(&[]);
    let code = "open('large', 'wb').write(b'x' * (16 << 20))";
    let made = agent.call(json!({"code": code, "files": [{"path": "large"}]}));
    let uri = &made["structuredContent"]["files"][0]["host"];
    let unread = agent.request("resources/read", json!({"uri": uri}));
    let large = "x".repeat(8 << 20);
    for _ in 0..30 {
        let params = json!({"uri": uri, "_meta": {"large": large}});
        let id = agent.request("resources/read", params);
        agent.tell("notifications/cancelled", json!({"requestId": id}));
    }
    let memory = settled(&agent.server);
    println!("{memory} MiB after 240 MiB of requests that were cancelled");
    assert!(memory < 200);
    assert!(agent.answer(unread)["result"].is_object());
    works(&mut agent);
}

#[test]
fn large_answers_over_http_that_nobody_reads_cost_no_more_than_a_few() {
    let (file, tokens) = tokens(&["one", "other"]);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let code = "open('large', 'wb').write(b'\"' * (16 << 20))";
    let arguments = json!({"code": code, "files": [{"path": "large"}]});
    let made = web.ask(&tokens[0], "tools/call", call(arguments)).message();
    let uri = &made["result"]["structuredContent"]["files"][0]["host"];
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri, "_meta": meta()}
    });
    let authorization = format!("Bearer {}", tokens[0]);
    let headers = [
        ("Authorization", authorization.as_str()),
        ("MCP-Protocol-Version", NEW),
        ("Mcp-Method", "resources/read"),
        ("Mcp-Name", uri.as_str().unwrap()),
    ];
    let unread: Vec<_> = (0..50)
        .map(|_| web.begin("POST", &headers, message.to_string().as_bytes()))
        .collect();
    let memory = settled(&web.server);
    println!("{memory} MiB with large files unread");
    assert!(memory < MEMORY);
    // Files that a client does not read keep none of its runs from it, nor others'.
    assert!(latency(&web, &tokens[0]) > 0 && latency(&web, &tokens[1]) > 0);
    let readers = unread.into_iter().map(|mut stream| {
        thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()).unwrap())
    });
    for reader in readers.collect::<Vec<_>>() {
        assert!(reader.join().unwrap() > 16 << 20);
    }
}

#[test]
fn a_program_that_displays_without_end_costs_no_more_than_a_few_answers() {
    let mut agent = Agent::start(&[]);
    let code =
        "class Nothing:\n def __repr__(self): return ''\nfor _ in range(50000): display(Nothing())";
    let result = agent.call(json!({"code": code}));
    let record = &result["structuredContent"];
    assert_eq!(
        record["limits_hit"],
        json!(["report"]),
        "{}",
        text_of(&result)
    );
    assert_eq!(record["displays"].as_array().unwrap().len(), 1000);
    println!("{} MiB", agent.server.memory());
    assert!(agent.server.memory() < 64);
}
