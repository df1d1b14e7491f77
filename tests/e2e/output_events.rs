//! `--json-events`: output as it comes, then the record.

use crate::common::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandbox::internals::record::{Record, Status};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};

/// Returns what the events tell of both streams, and the record.
fn told(stdout: &[u8]) -> ([Vec<u8>; 2], Record) {
    let lines: Vec<_> = stdout.split_inclusive(|&byte| byte == b'\n').collect();
    let (record, events) = lines.split_last().unwrap();
    let mut streams = [Vec::new(), Vec::new()];
    for event in events {
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(event["event"], "output");
        let data = event["data"].as_str().unwrap();
        let stream = &mut streams[usize::from(event["stream"] == "stderr")];
        match event["encoding"].as_str().unwrap() {
            "utf-8" => stream.extend(data.as_bytes()),
            _ => stream.extend(STANDARD.decode(data).unwrap()),
        }
    }
    (streams, serde_json::from_slice(record).unwrap())
}

#[test]
fn a_line_is_told_when_it_is_written() {
    let code = "for step in range(3): print('step', step); input()";
    let mut child = start(&mut sandbox(&["run", "--json-events", "-c", code]));
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for step in 0..3 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["data"], format!("step {step}\n"));
        writeln!(stdin).unwrap();
    }
    let record: Record = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((record.status, record.stdout), (Status::Exited, None));
    assert!(lines.next().is_none());
    assert_eq!(exit_code(child.wait().unwrap()), 0);
}

#[test]
fn all_output_is_in_the_events_whatever_its_bytes() {
    let code = "import sys
out, err = sys.stdout.buffer, sys.stderr.buffer
out.write(bytes(range(256)) * 4000); err.write('é'.encode() * 100000)
for byte in 'ü'.encode(): out.write(bytes([byte])); out.flush()
exit(3)";
    let output = run(&["--json-events"], code);
    let ([stdout, stderr], record) = told(&output.stdout);
    let bytes: Vec<u8> = (0..=255).collect();
    assert!(stdout == [bytes.repeat(4000).as_slice(), "ü".as_bytes()].concat());
    assert!(stderr == "é".repeat(100_000).as_bytes());
    assert_eq!((record.exit_code, exit_code(output.status)), (Some(3), 3));
    assert_eq!(record.stdout_bytes.total, stdout.len() as u64);
}

#[test]
fn events_end_at_the_limit_of_output() {
    let output = run(
        &["--json-events", "--max-output", "1000"],
        "print('x' * 5000)",
    );
    let ([stdout, _], record) = told(&output.stdout);
    assert_eq!(stdout, "x".repeat(1000).as_bytes());
    assert_eq!(record.stdout_bytes.omitted, 4001);
}

#[test]
fn where_nothing_runs_there_is_the_record_alone() {
    let output = finish(&mut sandbox(&["run", "--json-events", "/nosuch.py"]), b"");
    let ([stdout, _], record) = told(&output.stdout);
    assert!(stdout.is_empty());
    assert_eq!(
        (record.status, exit_code(output.status)),
        (Status::Error, 127)
    );
}
