//! Clients that are malicious or broken: the server stays up, within bounds, and serves others.

use super::agent::*;
use super::web::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const FOREVER: &str = "while True: pass";

/// The MiB that a server may grow to: a few times a message of the largest size.
pub const MEMORY: u64 = 256;

pub fn works(agent: &mut Agent) {
    let result = agent.call(json!({"code": "print('still here')"}));
    assert_eq!(text_of(&result), "still here\n");
}

/// Generates any JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{0,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Generates a line that is no message, a message that is no request, or a request with wrong
/// values.
fn hostile_line() -> impl Strategy<Value = Vec<u8>> {
    let method = prop_oneof![
        Just("tools/call"),
        Just("tools/list"),
        Just("resources/read"),
        Just("initialize"),
        Just("ping"),
        Just("server/discover"),
        Just("notifications/cancelled"),
        Just("subscriptions/listen"),
        Just("tasks/get"),
        Just("logging/setLevel"),
        Just("no/such"),
        Just(""),
    ];
    // No call of the tool that would run: its code is no text.
    let arguments = any_json().prop_map(|value| json!({"code": [value]}));
    let params = prop_oneof![any_json(), arguments.prop_map(call)];
    let id = prop_oneof![any::<u32>().prop_map(Value::from), any_json()];
    let message = (id, method, params).prop_map(|(id, method, params)| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
            .to_string()
            .into_bytes()
    });
    prop_oneof![
        message.clone(),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..100),
        (message.clone(), any::<prop::sample::Index>())
            .prop_map(|(line, cut)| line[..cut.index(line.len())].to_vec()),
        (message.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
            |(mut line, place, byte)| {
                let place = place.index(line.len());
                line[place] = byte;
                line
            }
        ),
        message.prop_map(|line| [b"[", &line[..], b"]"].concat()),
    ]
    .prop_map(|line| line.into_iter().filter(|byte| *byte != b'\n').collect())
}

#[test]
fn ten_thousand_hostile_messages_leave_the_server_as_it_was() {
    let mut agent = Agent::start(&[]);
    works(&mut agent);
    let before = agent.server.memory();
    let mut runner = TestRunner::deterministic();
    let lines = hostile_line();
    for number in 0..10_000 {
        let line = lines.new_tree(&mut runner).unwrap().current();
        agent.send(&line);
        if number % 100 == 0 {
            // Their answers are read, or the server would wait for that.
            let id = format!("between {number}");
            agent.send(
                json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"})
                    .to_string()
                    .as_bytes(),
            );
            agent.next(|message| message["id"] == id);
            agent.forget();
        }
    }
    works(&mut agent);
    let after = agent.server.memory();
    println!("{before} MiB before, {after} MiB after");
    assert!(after < before + 32, "{before} {after}");
    assert_eq!(agent.server.runs(), [0; 0]);
}

#[test]
fn what_is_too_large_or_too_deep_is_answered_and_not_kept() {
    let mut agent = Agent::start(&[]);
    let wide = format!("[{}0]", "0,".repeat(1 << 20));
    let many = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call(json!({"code": "", "args": vec![""; 30_000]}))});
    for (line, words) in [
        ("x".repeat((32 << 20) + 1), "MiB"),
        ("x".repeat(100 << 20), "MiB"),
        ("[".repeat(10 << 20), "deep"),
        ("{\"a\":".repeat(1 << 20), "deep"),
        (wide, "values"),
        (many.to_string(), "values"),
    ] {
        agent.send(line.as_bytes());
        let answer = agent.next(|message| message["error"].is_object());
        assert!(
            answer["error"]["message"].as_str().unwrap().contains(words),
            "{answer}"
        );
    }
    works(&mut agent);
    println!("{} MiB", agent.server.memory());
    assert!(agent.server.memory() < MEMORY);
}

#[test]
fn a_storm_of_calls_that_are_cancelled_leaves_nothing() {
    let mut agent = Agent::start(&[]);
    works(&mut agent);
    let before = agent.server.memory();
    for round in 0..300 {
        let id = agent.start_call(json!({"code": FOREVER}));
        if round % 3 == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        agent.tell("notifications/cancelled", json!({"requestId": id}));
    }
    works(&mut agent);
    until(|| agent.server.runs().is_empty().then_some(()));
    let [directory] = &agent.server.left()[..] else {
        panic!()
    };
    until(|| (std::fs::read_dir(directory).unwrap().count() == 0).then_some(()));
    let after = agent.server.memory();
    println!("{before} MiB before, {after} MiB after");
    assert!(after < before + 32);
}

#[test]
fn calls_beyond_what_may_wait_are_refused_and_the_others_run() {
    let mut agent = Agent::start(&[]);
    let code = "import time; time.sleep(0.2); print(1)";
    let ids: Vec<_> = (0..200)
        .map(|_| agent.start_call(json!({"code": code})))
        .collect();
    let (mut ran, mut refused) = (0, 0);
    for id in ids {
        let answer = agent.answer(id);
        match (&answer["error"], &answer["result"]["isError"]) {
            (Value::Null, Value::Bool(false)) => ran += 1,
            (Value::Null, _) => {
                assert!(
                    answer["result"]["_meta"]["sandbox/retryAfterSeconds"].is_u64(),
                    "{answer}"
                );
                refused += 1;
            }
            _ => refused += 1,
        }
    }
    println!("{ran} ran, {refused} were refused");
    assert!(ran > 0 && refused > 0);
    works(&mut agent);
}

/// Returns the milliseconds that a call of this client takes: the median of several.
pub fn latency(web: &Web, token: &str) -> u128 {
    let mut times: Vec<_> = (0..15)
        .map(|_| {
            let began = Instant::now();
            let answer = web.ask(token, "tools/call", call(json!({"code": "print(1)"})));
            assert_eq!(text_of(&answer.message()["result"]), "1\n");
            began.elapsed().as_millis()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn while_one_client_floods_another_is_served() {
    let (file, tokens) = tokens(&["honest", "flood"]);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let alone = latency(&web, &tokens[0]);
    let end = Instant::now() + Duration::from_secs(5);
    thread::scope(|scope| {
        let floods: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    while Instant::now() < end {
                        let answer = web.ask(&tokens[1], "tools/list", json!({}));
                        assert!([200, 429].contains(&answer.status), "{}", answer.status);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let calls = scope.spawn(|| {
            while Instant::now() < end {
                drop(
                    web.ask(
                        &tokens[1],
                        "tools/call",
                        call(json!({"code": "sum(range(10**6))"})),
                    )
                    .text(),
                );
            }
        });
        let flooded = latency(&web, &tokens[0]);
        calls.join().unwrap();
        let requests: u32 = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        println!(
            "{requests} requests in 5 s; a call took {alone} ms alone, {flooded} ms meanwhile"
        );
    });
    println!("{} MiB", web.server.memory());
    assert!(web.server.memory() < MEMORY);
    assert!(latency(&web, &tokens[0]) > 0);
}

#[test]
fn what_is_no_request_or_a_slow_one_is_closed_and_others_are_served() {
    let (file, tokens) = tokens(&["one"]);
    let web = Web::start(&["--tokens", file.path().to_str().unwrap()]);
    let open = || {
        let stream = TcpStream::connect(&web.address).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream
    };
    // Heads and bodies that never end.
    let slow: Vec<_> = (0..100)
        .map(|number| {
            let mut stream = open();
            let piece = match number % 2 {
                0 => "POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: ".to_string(),
                _ => format!(
                    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\n{{",
                    tokens[0]
                ),
            };
            stream.write_all(piece.as_bytes()).unwrap();
            stream
        })
        .collect();
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET / HTTP/9\r\n\r\n",
        &[b'x'; 1 << 20],
    ] {
        let mut stream = open();
        // It may close before it has read all of it.
        stream.write_all(garbage).unwrap_or_default();
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    let right = format!("Bearer {}", tokens[0]);
    for (body, status) in [
        (vec![b'['; 1 << 20], 400),
        (b"{\"jsonrpc\": \xff}".to_vec(), 415),
    ] {
        assert_eq!(
            web.send("POST", &[("Authorization", &right)], &body).status,
            status
        );
    }
    // Refused for its length, before it has come.
    let mut stream = open();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: {right}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        (32 << 20) + 1
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    for mut stream in slow {
        // Closed by the server, with an answer or without.
        stream.read_to_end(&mut Vec::new()).unwrap_or_default();
    }
    assert!(latency(&web, &tokens[0]) > 0);
    println!("{} MiB", web.server.memory());
    assert!(web.server.memory() < MEMORY);
}
