//! `sandbox mcp --http`, which serves agents on the network.

use super::agent::*;
use super::common::*;
use super::web::*;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::net::TcpStream;

const FOREVER: &str = "while True: pass";

/// Starts a server with these clients; returns it with their tokens.
fn web(names: &[&str]) -> (Web, Vec<String>) {
    let (file, tokens) = tokens(names);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    (web, tokens)
}

fn calls(id: u64, code: &str) -> serde_json::Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call(json!({"code": code}))})
}

#[test]
fn without_tokens_only_this_host_is_served() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = finish(&mut sandbox(&["mcp", "--http", address]), b"");
        assert_eq!(exit_code(output.status), 125);
        assert!(
            text(&output.stderr).contains("--tokens"),
            "{}",
            text(&output.stderr)
        );
    }
    let web = Web::start(&[]);
    let answer = web.ask("", "tools/call", call(json!({"code": "print(1)"})));
    assert_eq!(text_of(&answer.message()["result"]), "1\n");
}

#[test]
fn without_tokens_all_places_are_the_one_clients() {
    let mut policy = tempfile::NamedTempFile::new().unwrap();
    policy.write_all(b"[server]\nconcurrency = 2\n").unwrap();
    let web = Web::start(&["--policy", policy.path().to_str().unwrap()]);
    let session = web.session("");
    let calls = [1, 2].map(|id| web.post(&borrowed(&session), &calls(id, FOREVER)));
    until(|| (web.server.runs().len() == 2).then_some(()));
    drop(calls);
}

#[test]
fn messages_whose_length_is_not_told_are_read_at_once() {
    let (web, tokens) = web(&["one"]);
    let message =
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta()}})
            .to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {NEW}\r\nMcp-Method: tools/list\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        web.address, tokens[0]
    );
    let (begin, end) = message.split_at(20);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let mut streams: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(&web.address).unwrap();
            stream
                .write_all(format!("{head}{}", chunk(begin)).as_bytes())
                .unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        stream
            .write_all(format!("{}0\r\n\r\n", chunk(end)).as_bytes())
            .unwrap();
    }
    for stream in streams {
        let answer = Answer::read(stream);
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("run_code"));
    }
}

#[test]
fn who_is_turned_away_is_in_the_log_but_not_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (file, tokens) = tokens(&["one"]);
    let tokens_file = file.path().to_str().unwrap();
    let web = Web::start(&["--tokens", tokens_file, "--audit", log.to_str().unwrap()]);
    for _ in 0..200 {
        assert_eq!(web.ask("wrong", "tools/list", json!({})).status, 401);
    }
    let right = format!("Bearer {}", tokens[0]);
    let elsewhere = [
        ("Authorization", right.as_str()),
        ("Origin", "http://example.com"),
    ];
    assert_eq!(web.send("POST", &elsewhere, b"{}").status, 403);
    let entries = || fs::read_to_string(&log).unwrap();
    until(|| entries().contains("host or origin").then_some(()));
    let entries = entries();
    let entries: Vec<serde_json::Value> = entries
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = &entries[0];
    assert_eq!(
        [
            &first["event"],
            &first["client"],
            &first["why"],
            &first["times"]
        ],
        [
            &json!("turned_away"),
            &json!("unknown"),
            &json!("token"),
            &json!(1)
        ]
    );
    let elsewhere = |entry: &&serde_json::Value| entry["why"] == "host or origin";
    assert_eq!(entries.iter().find(elsewhere).unwrap()["client"], "one");
    assert!(entries.len() < 20, "{entries:?}");
}

#[test]
fn a_file_of_tokens_that_is_no_such_file_is_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_string();
    let arguments = ["mcp", "--http", "127.0.0.1:0", "--tokens", &path];
    for line in ["", "name:changeme\n", "name\n"] {
        file.write_all(line.as_bytes()).unwrap();
        let output = finish(&mut sandbox(&arguments), b"");
        assert_eq!(exit_code(output.status), 125, "{line}");
        assert!(
            text(&output.stderr).contains("sandbox mcp token"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn who_has_no_token_or_a_wrong_one_gets_nothing() {
    let (web, tokens) = web(&["one"]);
    let right = format!("Bearer {}", tokens[0]);
    let other = if tokens[0].starts_with('0') { "1" } else { "0" };
    let wrong = format!("Bearer {other}{}", &tokens[0][1..]);
    let list =
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize(OLD)});
    let basic = format!("Basic {}", tokens[0]);
    for header in ["", "Bearer ", "Bearer x", &wrong, &tokens[0], &basic] {
        let answer = web.post(&[("Authorization", header)], &list);
        assert_eq!(answer.status, 401, "{header}");
        assert_eq!(answer.header("www-authenticate").as_deref(), Some("Bearer"));
        assert!(!answer.text().contains("result"));
    }
    assert_eq!(web.post(&[("Authorization", &right)], &list).status, 200);
}

#[test]
fn other_hosts_and_origins_are_refused() {
    let (file, tokens) = tokens(&["one"]);
    let web = Web::start(&[
        "--tokens",
        file.path().to_str().unwrap(),
        "--allow-origin",
        "https://agent.example:443",
        "--allow-host",
        "box.example",
    ]);
    let right = format!("Bearer {}", tokens[0]);
    let message =
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize(OLD)});
    for (header, value, status) in [
        ("Origin", "https://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "https://127.0.0.1", 403),
        ("Origin", "http://127.0.0.1:6274", 200),
        ("Origin", "https://agent.example", 200),
        ("Host", "evil.example", 403),
        ("Host", "127.0.0.1.evil.example", 403),
        ("Host", "box.example", 200),
        ("Host", "localhost", 200),
    ] {
        let answer = web.post(&[("Authorization", &right), (header, value)], &message);
        assert_eq!(answer.status, status, "{header}: {value}");
    }
}

#[test]
fn both_protocols_run_code() {
    let (web, tokens) = web(&["one"]);
    let session = web.session(&tokens[0]);
    let answer = web.post(&borrowed(&session), &calls(1, "print('old')"));
    assert_eq!(text_of(&answer.message()["result"]), "old\n");
    let answer = web.ask(
        &tokens[0],
        "tools/call",
        call(json!({"code": "print('new')"})),
    );
    assert_eq!(text_of(&answer.message()["result"]), "new\n");
}

#[test]
fn a_session_is_its_clients_alone() {
    let (web, tokens) = web(&["one", "two"]);
    let mut session = web.session(&tokens[0]);
    session[0].1 = format!("Bearer {}", tokens[1]);
    let headers = borrowed(&session);
    assert_eq!(web.post(&headers, &calls(1, "print(1)")).status, 404);
    assert_eq!(web.send("DELETE", &headers, b"").status, 404);
    assert_eq!(web.send("GET", &headers, b"").status, 404);
}

#[test]
fn files_are_their_clients_alone() {
    let (web, tokens) = web(&["one", "two"]);
    let arguments = json!({"code": "open('a', 'w').write('mine')", "files": [{"path": "a"}]});
    let answer = web.ask(&tokens[0], "tools/call", call(arguments)).message();
    let uri = answer["result"]["structuredContent"]["files"][0]["host"].clone();
    let read = |token: &str| {
        web.ask(token, "resources/read", json!({"uri": uri}))
            .message()
    };
    assert_eq!(read(&tokens[0])["result"]["contents"][0]["text"], "mine");
    assert!(read(&tokens[1])["error"].is_object());
    let listed = web.ask(&tokens[1], "resources/list", json!({})).message();
    assert_eq!(listed["result"]["resources"], json!([]));
}

#[test]
fn a_call_whose_stream_is_closed_ends_its_machine_at_once() {
    let (web, tokens) = web(&["one"]);
    let session = web.session(&tokens[0]);
    let answer = web.post(&borrowed(&session), &calls(1, FOREVER));
    let guest = web.server.guest();
    drop(answer);
    println!("in a session: gone after {:?}", gone(guest));

    // Without a session the head of the answer comes with its first message.
    let message = {
        let mut params = call(json!({"code": FOREVER}));
        params["_meta"] = meta();
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
    };
    let mut stream = TcpStream::connect(&web.address).unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {NEW}\r\nMcp-Method: tools/call\r\n\
         Mcp-Name: run_code\r\nContent-Length: {}\r\n\r\n",
        web.address,
        tokens[0],
        message.len(),
    );
    stream
        .write_all(&[head.as_bytes(), message.as_bytes()].concat())
        .unwrap();
    let guest = web.server.guest();
    drop(stream);
    println!("without one: gone after {:?}", gone(guest));
}

#[test]
fn a_call_of_a_session_can_be_cancelled() {
    let (web, tokens) = web(&["one"]);
    let session = web.session(&tokens[0]);
    let _answer = web.post(&borrowed(&session), &calls(7, FOREVER));
    let guest = web.server.guest();
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}});
    assert_eq!(web.post(&borrowed(&session), &cancelled).status, 202);
    println!("gone after {:?}", gone(guest));
}

#[test]
fn a_session_that_is_deleted_ends_its_machines() {
    let (web, tokens) = web(&["one"]);
    let session = web.session(&tokens[0]);
    let _answer = web.post(&borrowed(&session), &calls(1, FOREVER));
    let guest = web.server.guest();
    assert_eq!(web.send("DELETE", &borrowed(&session), b"").status, 202);
    println!("gone after {:?}", gone(guest));
    assert_eq!(
        web.post(&borrowed(&session), &calls(2, "print(1)")).status,
        404
    );
}

#[test]
fn a_client_has_so_many_sessions_and_the_oldest_goes_for_a_new_one() {
    let (web, tokens) = web(&["one", "two"]);
    let other = web.session(&tokens[1]);
    let sessions: Vec<_> = (0..33).map(|_| web.session(&tokens[0])).collect();
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let status = |session: &[(String, String)]| web.post(&borrowed(session), &ping).status;
    assert_eq!(status(&sessions[0]), 404);
    assert_eq!(status(&sessions[1]), 200);
    assert_eq!(status(&sessions[32]), 200);
    assert_eq!(status(&other), 200);
}

#[test]
fn whoever_asks_hears_that_the_server_answers() {
    let (web, _) = web(&["one"]);
    let mut stream = TcpStream::connect(&web.address).unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
        .unwrap();
    let answer = Answer::read(stream);
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
}

#[test]
fn a_token_that_is_taken_out_of_the_file_ends_what_its_client_has() {
    let (file, tokens) = tokens(&["stays", "goes"]);
    let lines = fs::read_to_string(file.path()).unwrap();
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let [stays, goes] = [0, 1].map(|number| web.session(&tokens[number]));
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let status = |session: &Vec<(String, String)>| web.post(&borrowed(session), &list).status;
    assert_eq!((status(&stays), status(&goes)), (200, 200));
    let running = web.post(&borrowed(&goes), &calls(2, FOREVER));
    let guest = web.server.guest();
    fs::write(file.path(), lines.lines().next().unwrap()).unwrap();
    gone(guest);
    drop(running);
    assert_eq!((status(&stays), status(&goes)), (200, 401));
    // And one that is put into it is known; its old sessions are not.
    fs::write(file.path(), lines).unwrap();
    until(|| (status(&goes) != 401).then_some(()));
    assert_eq!(status(&goes), 404);
    assert_eq!(web.ask(&tokens[1], "tools/list", json!({})).status, 200);
}

#[test]
fn an_event_over_http_is_one_line_for_every_reader() {
    let (web, tokens) = web(&["one"]);
    let code = "print('a\\u2028b\\u0085c')";
    let answer = web.ask(&tokens[0], "tools/call", call(json!({"code": code})));
    let body = answer.text();
    assert!(!body.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{body}");
    assert!(body.contains("a\\u2028b\\u0085c"), "{body}");
}
