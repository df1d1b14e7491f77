//! The messages of a session on its socket, with clients that do as they like.

use crate::sessions::Sessions;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection to a session.
pub struct Peer(BufReader<UnixStream>);

impl Peer {
    pub fn connect(sessions: &Sessions) -> Self {
        let stream = UnixStream::connect(sessions.socket()).unwrap();
        // For a slow machine; without it, a test that fails would hang.
        stream
            .set_read_timeout(Some(Duration::from_secs(300)))
            .unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, request: &Value) {
        writeln!(self.0.get_mut(), "{request}").unwrap();
    }

    fn run(&mut self, code: &str) {
        self.send(&json!({"verb": "run", "code": code}));
    }

    /// Returns the next message, which is as the schema says.
    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        let schema = include_str!("../../docs/session-protocol.schema.json");
        let schema = serde_json::from_str(schema).unwrap();
        jsonschema::validate(&schema, &message).unwrap_or_else(|error| panic!("{error}: {line}"));
        message
    }

    /// Returns the next message of this kind.
    pub fn hear_of(&mut self, event: &str) -> Value {
        loop {
            let message = self.hear();
            if message["event"] == event {
                return message;
            }
        }
    }

    /// Runs a cell to its end; returns its record.
    fn record(&mut self, code: &str) -> Value {
        self.run(code);
        self.hear_of("ended")["record"].take()
    }
}

#[test]
fn a_cell_is_told_from_its_begin_to_its_end() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    peer.run("print('a'); print('b\\udcff', end='')");
    assert_eq!(peer.hear(), json!({"event": "began", "cell": 1}));
    peer.hear_of("ended");
    peer.run("import sys; sys.stdout.buffer.write(b'\\xff') and None");
    assert_eq!(peer.hear(), json!({"event": "began", "cell": 2}));
    let output =
        json!({"event": "output", "stream": "stdout", "data": "/w==", "encoding": "base64"});
    assert_eq!(peer.hear(), output);
    let ended = peer.hear();
    assert_eq!(
        (&ended["event"], &ended["cell"]),
        (&json!("ended"), &json!(2))
    );
    assert_eq!(ended["record"]["stdout"], Value::Null);
    peer.send(&json!({"verb": "describe"}));
    let described = peer.hear();
    assert_eq!(
        (&described["cells"], &described["cell"]),
        (&json!(2), &Value::Null)
    );
    peer.send(&json!({"verb": "stop"}));
    assert_eq!(
        peer.hear(),
        json!({"event": "over", "why": "it was asked to stop"})
    );
}

#[test]
fn a_late_interrupt_never_hits_the_next_cell() {
    const TIMES: u64 = 1000;
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    let mut other = Peer::connect(&sessions);
    for cell in 1..=TIMES {
        // It comes while the cell ends, before or after; the next one waits already or comes then.
        let begun = cell * 2 - 1;
        peer.run("pass");
        peer.run("n = 0\nwhile n < 2000: n += 1");
        assert_eq!(peer.hear()["cell"], begun);
        other.send(&json!({"verb": "interrupt", "cell": begun}));
        let first = peer.hear_of("ended");
        let second = peer.hear_of("ended");
        assert_eq!(first["cell"], begun);
        assert_eq!(second["record"]["exit_code"], 0, "{cell}: {second}");
        other.hear_of("interrupted");
    }
}

#[test]
fn an_interrupt_that_comes_at_once_hits_its_cell() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    for cell in 1..=100 {
        peer.run("while True: pass");
        peer.hear_of("began");
        peer.send(&json!({"verb": "interrupt", "cell": cell}));
        assert_eq!(peer.hear_of("interrupted")["cell"], cell);
        let record = peer.hear_of("ended")["record"].take();
        assert_eq!(record["exception"]["type"], "KeyboardInterrupt", "{record}");
        assert_eq!(record["state"], "kept");
    }
    peer.send(&json!({"verb": "interrupt"}));
    assert_eq!(peer.hear()["cell"], Value::Null);
}

#[test]
fn a_peer_that_is_gone_has_its_cell_interrupted_and_the_rest_dropped() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    peer.run("x = 1; print(x, flush=True)\nwhile True: pass");
    peer.run("x = 2");
    peer.hear_of("output");
    drop(peer);
    assert_eq!(sessions.gives("x"), "1\n");
}

#[test]
fn variables_that_were_lost_while_nobody_listened_are_told_next() {
    let sessions = Sessions::with(&["--grace", "100ms"]);
    let mut peer = Peer::connect(&sessions);
    let stubborn = "try:\n        while True: pass\n    except KeyboardInterrupt: pass";
    peer.run(&format!(
        "x = 1; print(x, flush=True)\nwhile True:\n    {stubborn}"
    ));
    peer.hear_of("output");
    drop(peer);
    let record = sessions.record(&[], "'x' in globals()");
    assert_eq!(record["result"]["text/plain"], "False");
    assert_eq!(record["state"], "reset");
    assert_eq!(sessions.record(&[], "1")["state"], "kept");
}

#[test]
fn cells_that_are_too_many_are_refused_and_the_others_run_in_their_order() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    peer.run("import time; time.sleep(900)");
    peer.hear_of("began");
    for _ in 0..8 {
        peer.run("n = globals().get('n', 0) + 1; n");
    }
    peer.run("'too many'");
    let refused = peer.hear_of("refused");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("8 cells"), "{refused}");
    peer.send(&json!({"verb": "interrupt"}));
    peer.hear_of("ended");
    for n in 1..=8 {
        let ended = peer.hear_of("ended");
        assert_eq!(ended["record"]["result"]["text/plain"], n.to_string());
    }
}

#[test]
fn a_reader_that_stops_holds_up_its_cell_and_nobody_elses_requests() {
    let sessions = Sessions::with(&["--grace", "300s"]);
    let mut peer = Peer::connect(&sessions);
    peer.run("x = 3\nwhile True: print('flood' * 1000)");
    peer.hear_of("output");
    for _ in 0..20 {
        assert_eq!(sessions.description()["cell"], 1);
    }
    drop(peer);
    assert_eq!(sessions.gives("x"), "3\n");
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let sessions = Sessions::with(&[]);
    let mut peer = Peer::connect(&sessions);
    for line in [
        "",
        "x",
        "{}",
        "[]",
        "{\"verb\": \"fly\"}",
        "{\"verb\": \"run\"}",
        "{\"verb\": \"run\", \"code\": \"1\", \"more\": 1}",
        "{\"verb\": \"run\", \"code\": \"1\", \"stdin\": \"?\"}",
        "{\"verb\": \"run\", \"code\": \"1\", \"timeout_s\": -1}",
        "{\"verb\": \"run\", \"code\": \"1\", \"timeout_s\": 0}",
        "{\"verb\": \"stop\", \"more\": 1}",
        "{\"verb\": \"exec\", \"argv\": []}",
        "{\"verb\": \"exec\", \"argv\": [\"a\\u0000\"]}",
        "{\"verb\": \"exec\", \"argv\": [\"ls\"], \"env\": {\"=\": \"\"}}",
        "{\"verb\": \"input\", \"data\": \"?\", \"encoding\": \"base64\"}",
        "{\"verb\": \"resize\", \"rows\": 70000, \"columns\": 1}",
    ] {
        writeln!(peer.0.get_mut(), "{line}").unwrap();
        assert_eq!(peer.hear()["event"], "refused", "{line}");
    }
    assert_eq!(peer.record("1")["state"], "kept");
    let mut long = Peer::connect(&sessions);
    let megabyte = vec![b'x'; 1 << 20];
    // It is cut off in the middle.
    while long.0.get_mut().write_all(&megabyte).is_ok() {}
    assert_eq!(peer.record("2")["state"], "kept");
}

#[test]
fn more_peers_than_there_is_room_for_wait() {
    let sessions = Sessions::with(&[]);
    let mut peers: Vec<_> = (0..20).map(|_| Peer::connect(&sessions)).collect();
    assert_eq!(peers[0].record("7")["result"]["text/plain"], "7");
    peers.drain(..10);
    assert_eq!(peers[9].record("8")["result"]["text/plain"], "8");
}
